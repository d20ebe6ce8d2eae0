"""Compare a saved state dict with that of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlspec.network.weights.mismatch_texts import describe_mismatches
from dlspec.network.weights.mismatches import Mismatches, ShapeMismatch


def compare_states(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """Describe all names and shapes in which two state dicts differ; '' if there are none.

    Args:
        own: The network's state dict.
        saved: The one that was saved.
    """
    own_shapes, saved_shapes = _list_shapes(own), _list_shapes(saved)
    found = Mismatches(own_shapes, saved_shapes)
    found.shapes += [
        ShapeMismatch(name, (name,), saved_shapes[name], shape)
        for name, shape in own_shapes.items()
        if saved_shapes.get(name, shape) != shape
    ]
    found.unused += [(name, name) for name in saved if name not in own]
    found.missing += [name for name in own if name not in saved]
    return "; ".join(describe_mismatches(found))


def _list_shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """List the shapes of the tensors; a layer's extra state may be anything else."""
    return {name: tuple(each.shape) if isinstance(each, Tensor) else () for name, each in state.items()}
