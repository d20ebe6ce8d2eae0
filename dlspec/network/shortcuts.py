"""A residual's shortcut where shapes decide: the identity, nothing, or the 1x1 convolution that maps the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.layouts import TensorInfo

NORM_PREFIXES = ("BatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm", "RMSNorm")
LayersToBuild = list[tuple[str, dict[str, Any]]]
"""Layers by their type and settings."""


def is_norm(type: str) -> bool:
    return type.startswith(NORM_PREFIXES)


def plan_projection(
    shortcut: TensorInfo, body: TensorInfo, norm: tuple[str, Mapping[str, Any]] | None
) -> LayersToBuild | None:
    """The layers that make the body's shape of what comes in; None where a 1x1 convolution can't.

    `norm` is the normalisation that the body ends in, with its settings: it stands behind the convolution too.
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
    """The stride that makes these sizes of those with a kernel of 1; one number where all are the same."""
    strides = tuple(-(-one // other) for one, other in zip(before, after, strict=True))
    fits = all((one - 1) // each + 1 == other for one, other, each in zip(before, after, strides, strict=True))
    if not fits:
        return None
    return strides[0] if len(set(strides)) == 1 else strides
