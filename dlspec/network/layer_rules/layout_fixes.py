"""What to write where a layer can't take a value's layout: the Embedding, Permute, Flatten or Unflatten before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dlspec.layouts import Layout, TensorInfo
from dlspec.parts.layers.rule import Rule


def suggest_layout_fix(layer: str, rule: Rule, value: TensorInfo) -> str:
    """The nearest fix, ready to be written."""
    if value.layout == "tokens":
        return "put an 'Embedding: SIZE' before it"
    if rule.takes == ("tokens",):
        return "it takes token numbers: these data have none" if value.layout == "features" else "let it come first"
    return _FIXES_BY_LAYOUT[value.layout](layer, rule, value)


def _fix_features(layer: str, rule: Rule, value: TensorInfo) -> str:
    if "channels-first" not in rule.takes:
        return f"put an 'Unflatten: {{dim: 1, unflattened_size: [T, C]}}' before it, T * C = {value.channels}"
    if rule.dims == 1:
        sizes = f"[1, {value.channels}]"
        return f"put '- Unflatten: {{dim: 1, unflattened_size: {sizes}, layout: channels-first}}' before it"
    side = math.isqrt(value.channels)
    sizes = f"[1, {side}, {side}]" if side * side == value.channels and rule.dims == 2 else "[C, ...]"
    return f"put an 'Unflatten: {{dim: 1, unflattened_size: {sizes}}}' before it"


def _fix_sequence(layer: str, rule: Rule, value: TensorInfo) -> str:
    if "channels-first" not in rule.takes:
        return "give less from the layer before, such as 'LSTM: {hidden_size: 64, output: last}'"
    norm = "take LayerNorm, or " if "Norm" in layer else ""
    rank = len(value.shape)
    return f"{norm}put a 'Permute: {[0, rank, *range(1, rank)]}' before it: its channels come last"


def _fix_channels_first(layer: str, rule: Rule, value: TensorInfo) -> str:
    rank = len(value.shape)
    if layer == "GLU":
        return "write GLU: {dim: 1}, which halves the channels"
    if layer in ("LayerNorm", "RMSNorm"):
        written = f"write {layer}: {{normalized_shape: {list(value.shape)}}}"
        return f"{written}, or put a 'Permute: {[0, *range(2, rank + 1), 1]}' before it"
    if rank == 2:
        flat = ", or a 'Flatten'" if "features" in rule.takes else ""
        return f"put a 'Permute: [0, 2, 1]'{flat} before it: its channels come first"
    if layer in ("RNN", "LSTM", "GRU"):
        return f"put '- Flatten: {{end_dim: {rank - 1}, layout: sequence}}' before it, which reads row by row"
    if rule.takes == ("sequence",):
        return "put '- Flatten: 2' and '- Permute: [0, 2, 1]' before it: each place becomes a step"
    return "put a 'Flatten' before it"


def _fix_channels_last(layer: str, rule: Rule, value: TensorInfo) -> str:
    rank = len(value.shape)
    if rule.takes == ("sequence",):
        return f"put '- Flatten: {{end_dim: {rank - 1}, layout: sequence}}' before it"
    return f"put a 'Permute: {[0, rank, *range(1, rank)]}' before it: its channels come last"


_FIXES_BY_LAYOUT: Mapping[Layout, Callable[[str, Rule, TensorInfo], str]] = {
    "features": _fix_features,
    "sequence": _fix_sequence,
    "channels-first": _fix_channels_first,
    "channels-last": _fix_channels_last,
}
