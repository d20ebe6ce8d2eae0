"""What runs save of their data. Jobs of a process that have the same data share it: it takes reading all samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.saved_dataset import make_saved_preparation
from dlspec.jobs.job_hash import compute_content_checksum, compute_data_checksum


@dataclass(frozen=True)
class DescribedData:
    """Data with what a run's files say of them, which is computed when it is first needed."""

    data: Dataset
    source_data: Dataset | None = None  # the data as their source returned them; None if they are `data`

    @cached_property
    def checksum(self) -> str:
        """The checksum of all splits, which `versions.json` contains."""
        return compute_data_checksum(self.data)

    @cached_property
    def content_checksum(self) -> str:
        """The checksum of all splits and of what their numbers mean, which checkpoints contain."""
        return compute_content_checksum(self.data, self.checksum)

    @cached_property
    def preparation(self) -> Mapping[str, Any]:
        """How rows are encoded, and the description of fields and targets: `prepare.json`."""
        return make_saved_preparation(self.source_data or self.data)
