"""The code and data that a sweep's job was trained with, kept in its own folder in `versions.json`.

The process that trains a job writes the file before the first checkpoint, so no kill leaves a result without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlspec.runs.file_names import VERSIONS_FILE
from dlspec.runs.io import read_json_object, write_json

MAX_LENGTH = 10_000  # characters of a version; each resume with other code appends to it


@dataclass(frozen=True)
class JobVersions:
    """Versions of the code and data that a job was trained with; '' if unknown."""

    code: str = ""
    data: str = ""  # checksum

    @property
    def are_known(self) -> bool:
        """Whether both are known."""
        return self.code != "" and self.data != ""

    def resumed_with(self, now: JobVersions) -> JobVersions:
        """Return the versions of a job that started with these and is resumed with `now`; unknown ones stay unknown."""
        return JobVersions(_join_versions(self.code, now.code), _join_versions(self.data, now.data))


def _join_versions(before: str, now: str) -> str:
    if before == "" or before == now or before.endswith(f", resumed with {now}"):
        return before
    return f"{before}, resumed with {now}"


def read_versions(folder: Path) -> JobVersions | None:
    """Read the versions in a job's folder; None if there are none, as before version 0.2.0."""
    written = read_json_object(folder / VERSIONS_FILE)
    return None if written is None else JobVersions(_read_version(written, "code"), _read_version(written, "data"))


def _read_version(written: Mapping[str, Any], key: str) -> str:
    value = written.get(key)
    return value if isinstance(value, str) and len(value) <= MAX_LENGTH else ""


def write_versions(folder: Path, now: JobVersions, *, is_resumed: bool) -> None:
    """Write the versions that a job is trained with, before it trains.

    Args:
        folder: The job's folder.
        now: The present versions.
        is_resumed: Whether the job is resumed from a checkpoint, which other versions may have trained.
    """
    versions = (read_versions(folder) or JobVersions()).resumed_with(now) if is_resumed else now
    write_json(folder / VERSIONS_FILE, asdict(versions))
