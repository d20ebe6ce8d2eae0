"""Plan the projection of a residual's shortcut: a Linear or a 1x1 convolution, normalized if the body is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.layouts import TensorInfo

NORM_PREFIXES = ("BatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm", "RMSNorm")
Norm = tuple[str, Mapping[str, Any]]
"""The type of a normalization with its written settings."""
LayersToBuild = list[tuple[str, dict[str, Any]]]
"""Types and settings of layers, in the order in which they run."""


def is_norm(type: str) -> bool:
    """Whether layers of this type are normalizations."""
    return type.startswith(NORM_PREFIXES)


def plan_projection(shortcut: TensorInfo, body: TensorInfo, norm: Norm | None) -> LayersToBuild | None:
    """Choose the layers that project a shortcut to the shape of the body.

    Args:
        shortcut: Shape and layout of the shortcut.
        body: Shape and layout of the body's output.
        norm: The last normalization on the body's main path; the projection ends with the same one.

    Returns:
        The layers, or None where no Linear or 1x1 convolution can do it.
    """
    bias = {} if norm is None else {"bias": False}
    norm_layers = [] if norm is None else [(norm[0], dict(norm[1]))]
    if shortcut.layout != body.layout or len(shortcut.shape) != len(body.shape):
        return None
    if shortcut.layout in ("features", "sequence"):
        fits = shortcut.shape[:-1] == body.shape[:-1]
        return [("Linear", {"out_features": body.channels, **bias}), *norm_layers] if fits else None
    dims = len(shortcut.shape) - 1
    stride = _find_stride(shortcut.shape[1:], body.shape[1:])
    if shortcut.layout != "channels-first" or dims not in (1, 2, 3) or stride is None:
        return None
    convolution = {"out_channels": body.channels, "kernel_size": 1, "stride": stride, **bias}
    return [(f"Conv{dims}d", convolution), *norm_layers]


def _find_stride(before: tuple[int, ...], after: tuple[int, ...]) -> int | tuple[int, ...] | None:
    """Find the stride with which kernel size 1 turns sizes `before` into `after`; one number if all are equal."""
    strides = tuple(-(-one // other) for one, other in zip(before, after, strict=True))
    fits = all((one - 1) // each + 1 == other for one, other, each in zip(before, after, strides, strict=True))
    if not fits:
        return None
    return strides[0] if len(set(strides)) == 1 else strides
