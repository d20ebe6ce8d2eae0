"""Suggest a fix for an input with the wrong layout: an Embedding, Permute, Flatten or Unflatten before the layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dlspec.layouts import Layout, TensorInfo
from dlspec.parts.layers.rule import Rule

RESHAPE_FIX = "insert 'Reshape: [1]' before it: its input is one number for each sample"


def suggest_layout_fix(layer: str, rule: Rule, value: TensorInfo) -> str:
    """Suggest the simplest fix for an input with the wrong layout.

    Args:
        layer: The layer's type.
        rule: Its rule, with the layouts that it accepts.
        value: The input.

    Returns:
        The fix as a message shows it, with entries that can be copied into the spec.
    """
    if value.layout == "tokens":
        return "insert 'Embedding: SIZE' before it"
    if rule.takes == ("tokens",):
        return (
            "use it only on tokens, which these data do not have"
            if value.layout == "features"
            else "make it the first layer"
        )
    return _FIXES_BY_LAYOUT[value.layout](layer, rule, value)


def _fix_features(layer: str, rule: Rule, value: TensorInfo) -> str:
    if "channels-first" not in rule.takes:
        return f"insert 'Unflatten: {{dim: 1, unflattened_size: [T, C]}}' before it, with T * C = {value.channels}"
    if rule.dims == 1:
        sizes = f"[1, {value.channels}]"
        return f"insert '- Unflatten: {{dim: 1, unflattened_size: {sizes}, layout: channels-first}}' before it"
    side = math.isqrt(value.channels)
    sizes = f"[1, {side}, {side}]" if side * side == value.channels and rule.dims == 2 else "[C, ...]"
    return f"insert 'Unflatten: {{dim: 1, unflattened_size: {sizes}}}' before it"


def _fix_sequence(layer: str, rule: Rule, value: TensorInfo) -> str:
    if "channels-first" not in rule.takes:
        return "let the layer before it return one vector per sample, as in 'LSTM: {hidden_size: 64, output: last}'"
    norm = "use LayerNorm, or " if "Norm" in layer else ""
    rank = len(value.shape)
    return f"{norm}insert 'Permute: {[0, rank, *range(1, rank)]}' before it: the input's channels come last"


def _fix_channels_first(layer: str, rule: Rule, value: TensorInfo) -> str:
    rank = len(value.shape)
    if layer == "GLU":
        return "write GLU: {dim: 1}, which halves the channels"
    if layer in ("LayerNorm", "RMSNorm"):
        written = f"write {layer}: {{normalized_shape: {list(value.shape)}}}"
        return f"{written}, or insert 'Permute: {[0, *range(2, rank + 1), 1]}' before it"
    if rank == 2:
        flat = ", or 'Flatten'," if "features" in rule.takes else ""
        return f"insert 'Permute: [0, 2, 1]'{flat} before it: the input's channels come first"
    if layer in ("RNN", "LSTM", "GRU"):
        return f"insert '- Flatten: {{end_dim: {rank - 1}, layout: sequence}}' before it: each row becomes a step"
    if "sequence" in rule.takes and "features" not in rule.takes:
        return "insert '- Flatten: 2' and '- Permute: [0, 2, 1]' before it: each position becomes a step"
    return "insert 'Flatten' before it"


def _fix_channels_last(layer: str, rule: Rule, value: TensorInfo) -> str:
    rank = len(value.shape)
    if rule.takes == ("sequence",):
        return f"insert '- Flatten: {{end_dim: {rank - 1}, layout: sequence}}' before it"
    return f"insert 'Permute: {[0, rank, *range(1, rank)]}' before it: the input's channels come last"


_FIXES_BY_LAYOUT: Mapping[Layout, Callable[[str, Rule, TensorInfo], str]] = {
    "features": _fix_features,
    "sequence": _fix_sequence,
    "channels-first": _fix_channels_first,
    "channels-last": _fix_channels_last,
}
