"""A run of some layers on random data, prepared and not begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.jobs.preparation import Preparation, Prepared
from dlspec.language.source_map import SourceMap
from dlspec.network.meta_device import SMALL, Place


def prepared(layers: Any, data: Mapping[str, Any], where: Place = SMALL, **config: Any) -> Prepared:
    """A run of these layers, or this model, on random data."""
    model = layers if isinstance(layers, dict) else {"layers": layers}
    tree = {"model": model, "data": {"type": "random", "size": 16, "num_classes": 2, **data}, "optimizer": "Adam"}
    return Preparation({**tree, **config}, SourceMap).prepare(where)
