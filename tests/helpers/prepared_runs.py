"""A run of some layers on random data, prepared and not begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.jobs.run_preparation import Preparation, PreparedRun
from dlspec.language.source_map import SourceMap
from dlspec.network.build_mode import SMALL_MODE, BuildMode


def prepare_layers(layers: Any, data: Mapping[str, Any], place: BuildMode = SMALL_MODE, **config: Any) -> PreparedRun:
    """A run of these layers, or this model, on random data."""
    model = layers if isinstance(layers, dict) else {"layers": layers}
    tree = {"model": model, "data": {"type": "random", "size": 16, "num_classes": 2, **data}, "optimizer": "Adam"}
    return Preparation({**tree, **config}, SourceMap).prepare(place)
