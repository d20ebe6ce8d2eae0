"""Which layouts each layer takes and gives, and what it learns from its input.

One row a family of layers. What a row refuses PyTorch would often run in silence, over the wrong dimension.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dlspec.building.values import Value
from dlspec.layouts import Layout, roles


@dataclass(frozen=True)
class Rule:
    """`takes` are layouts, `dims` how many dimensions stand beside the channels, `gives` the output's layout."""

    takes: tuple[Layout, ...]
    gives: Callable[[Value, tuple[int, ...], Mapping[str, Any]], Layout]
    dims: int | None = None
    keeps_lengths: bool = False


def _same(value: Value, shape: tuple[int, ...], settings: Mapping[str, Any]) -> Layout:
    return value.layout if len(shape) == len(value.shape) else _by_rank(value, shape, settings)


def _by_rank(value: Value, shape: tuple[int, ...], settings: Mapping[str, Any]) -> Layout:
    by_rank: dict[int, Layout] = {0: "features", 1: "features", 2: "sequence"}
    return by_rank.get(len(shape), "channels-first")


def _constant(layout: Layout) -> Callable[[Value, tuple[int, ...], Mapping[str, Any]], Layout]:
    return lambda value, shape, settings: layout


def _flattened(value: Value, shape: tuple[int, ...], settings: Mapping[str, Any]) -> Layout:
    """`Flatten` moves the roles: the dimensions that it merges become one, channels if channels were among them."""
    rank = len(value.shape) + 1
    start, end = settings.get("start_dim", 1) % rank, settings.get("end_dim", -1) % rank
    before = ("N", *roles(value.layout, len(value.shape)))
    merged = "C" if "C" in before[start : end + 1] else before[start]
    return _layout_of((*before[:start], merged, *before[end + 1 :])[1:])


def _layout_of(given: tuple[str, ...]) -> Layout:
    if given == ("T", "C"):
        return "sequence"
    if len(given) == 1:
        return "tokens" if given == ("T",) else "features"
    return "channels-first" if given[0] == "C" else "channels-last"


def _unflattened(value: Value, shape: tuple[int, ...], settings: Mapping[str, Any]) -> Layout:
    if value.layout == "features":
        return "channels-first" if len(shape) > 2 else "sequence"
    return value.layout


_ANY: tuple[Layout, ...] = ("features", "sequence", "channels-first", "channels-last")
_LAST: tuple[Layout, ...] = ("features", "sequence", "channels-last")
_FIRST: tuple[Layout, ...] = ("channels-first",)

_ELEMENTWISE = Rule(_ANY, _same, keeps_lengths=True)
_ON_LAST = Rule(_LAST, _same, keeps_lengths=True)
_ON_CHANNELS_FIRST = Rule(_FIRST, _same)
_CELL = Rule(("features",), _constant("features"))

_RULES: Mapping[str, Rule] = {
    "Linear": _ON_LAST,
    "LayerNorm": _ON_LAST,
    "RMSNorm": _ON_LAST,
    "GLU": _ON_LAST,
    "Embedding": Rule(("tokens",), _constant("sequence"), keeps_lengths=True),
    "EmbeddingBag": Rule(("tokens",), _constant("features")),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), Rule(("sequence",), _by_rank, keeps_lengths=True)),
    "TransformerEncoderLayer": Rule(("sequence",), _constant("sequence"), keeps_lengths=True),
    **dict.fromkeys(("RNNCell", "LSTMCell", "GRUCell"), _CELL),
    "Flatten": Rule((*_ANY, "tokens"), _flattened),
    "Unflatten": Rule(_ANY, _unflattened),
    "Identity": Rule((*_ANY, "tokens"), _same, keeps_lengths=True),
    "Fold": Rule(("channels-first", "sequence"), _constant("channels-first")),
    **dict.fromkeys(
        ("GroupNorm", "LocalResponseNorm", "ChannelShuffle", "PixelShuffle", "PixelUnshuffle", "Unfold", "Softmax2d",
         "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"),
        _ON_CHANNELS_FIRST,
    ),
    "BatchNorm1d": Rule(("features", "channels-first"), _same, dims=1),
    "InstanceNorm1d": Rule(_FIRST, _same, dims=1),
}  # fmt: skip

_BY_DIMENSIONS = re.compile(
    r"(?:Conv|ConvTranspose|BatchNorm|InstanceNorm|(?:Max|Avg|LP|AdaptiveAvg|AdaptiveMax|FractionalMax)Pool"
    r"|\w+Pad|Dropout)([123])d$"
)


def rule_for(layer: str) -> Rule:
    """The layer's row; a layer that has none works on each element, and its output's rank tells its layout."""
    if layer in _RULES:
        return _RULES[layer]
    if found := _BY_DIMENSIONS.match(layer):
        return Rule(_FIRST, _same, dims=int(found[1]))
    return _ELEMENTWISE


def refusal(layer: str, value: Value, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the layer can't take this value, and what to write; None where it can."""
    rule = rule_for(layer)
    if layer in ("LayerNorm", "RMSNorm") and "normalized_shape" in settings and value.layout != "tokens":
        return None
    if value.layout not in rule.takes:
        wanted = " or ".join(rule.takes if value.layout == "tokens" or len(rule.takes) < 3 else _LAST)
        return f"{layer} wants {wanted}, and {value} comes in", _remedy(rule, value)
    if rule.dims is not None and value.layout == "channels-first" and len(value.shape) != rule.dims + 1:
        found = len(value.shape) - 1
        right = re.sub(r"\dd$", f"{found}d", layer)
        fix = f"did you mean '{right}'?" if 1 <= found <= 3 else ""
        return f"{layer} wants channels and {rule.dims} more, and {value} comes in", fix
    return None


def _remedy(rule: Rule, value: Value) -> str:
    if value.layout == "tokens":
        return "put an 'Embedding: SIZE' before it"
    if value.layout == "channels-first":
        return "put a 'Flatten' before it"
    if value.layout == "sequence" and "features" in rule.takes:
        return "give less from the layer before, such as 'LSTM: {hidden_size: 64, output: last}'"
    if value.layout == "sequence":
        return "its channels come last; 'Permute: [0, 2, 1]' is not there yet"
    if rule.takes == ("tokens",):
        return "it takes token numbers: these data have none"
    if value.layout == "features":
        return (
            "put an 'Unflatten: {dim: 1, unflattened_size: [...]}' before it" if "channels-first" in rule.takes else ""
        )
    return ""


def infer(setting: str, value: Value) -> Any:
    """What an inferred setting is for this input; None where the input does not tell."""
    if setting == "num_embeddings":
        return value.vocab_size
    if setting in ("in_channels", "num_features", "num_channels"):
        return value.channels
    if setting in ("kdim", "vdim"):
        return None
    return value.shape[-1]
