"""Which layouts each layer takes and gives, and what it learns from its input.

One row a family of layers. What a row refuses PyTorch would often run in silence, over the wrong dimension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dlspec.building.values import Value
from dlspec.layouts import Layout, roles

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """`takes` are layouts, `dims` how many dimensions stand beside the channels, `gives` the output's layout."""

    takes: tuple[Layout, ...]
    gives: Callable[[Value, tuple[int, ...], Settings], Layout]
    dims: int | None = None
    keeps_lengths: bool = False


def _same(value: Value, shape: tuple[int, ...], settings: Settings) -> Layout:
    return value.layout if len(shape) == len(value.shape) else _by_rank(value, shape, settings)


def _by_rank(value: Value, shape: tuple[int, ...], settings: Settings) -> Layout:
    by_rank: dict[int, Layout] = {0: "features", 1: "features", 2: "sequence"}
    return by_rank.get(len(shape), "channels-first")


def _constant(layout: Layout) -> Callable[[Value, tuple[int, ...], Settings], Layout]:
    return lambda value, shape, settings: layout


def _flattened(value: Value, shape: tuple[int, ...], settings: Settings) -> Layout:
    """`Flatten` moves the roles: the dimensions that it merges become one, channels if channels were among them."""
    rank = len(value.shape) + 1
    start, end = settings.get("start_dim", 1) % rank, settings.get("end_dim", -1) % rank
    before = ("N", *roles(value.layout, len(value.shape)))
    merged = "C" if "C" in before[start : end + 1] else before[start]
    return _layout_of((*before[:start], merged, *before[end + 1 :])[1:])


def _layout_of(given: tuple[str, ...]) -> Layout:
    if given[0] == "T":
        return "sequence" if "C" in given else "tokens"
    if len(given) == 1:
        return "features"
    return "channels-first" if given[0] == "C" else "channels-last"


def _unflattened(value: Value, shape: tuple[int, ...], settings: Settings) -> Layout:
    if value.layout == "features":
        return "channels-first" if len(shape) > 2 else "sequence"
    return value.layout


_ANY: tuple[Layout, ...] = ("features", "sequence", "channels-first", "channels-last")
_LAST: tuple[Layout, ...] = ("features", "sequence", "channels-last")
_FIRST: tuple[Layout, ...] = ("channels-first",)

_OTHER = Rule(_ANY, _same)
_ELEMENTWISE = Rule(_ANY, _same, keeps_lengths=True)
_ON_LAST = Rule(_LAST, _same, keeps_lengths=True)
_ON_CHANNELS_FIRST = Rule(_FIRST, _same)
_ON_IMAGES = Rule(_FIRST, _constant("channels-first"), dims=2)

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU "
        "SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Threshold "
        "Dropout AlphaDropout FeatureAlphaDropout Softmax LogSoftmax Softmin".split(),
        _ELEMENTWISE,
    ),
    **dict.fromkeys(("Linear", "LayerNorm", "RMSNorm", "GLU"), _ON_LAST),
    "Embedding": Rule(("tokens",), _constant("sequence"), keeps_lengths=True),
    "EmbeddingBag": Rule(("tokens",), _constant("features"), keeps_lengths=True),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), Rule(("sequence",), _by_rank, keeps_lengths=True)),
    "TransformerEncoderLayer": Rule(("sequence",), _constant("sequence"), keeps_lengths=True),
    "Flatten": Rule((*_ANY, "tokens"), _flattened),
    "Unflatten": Rule(_ANY, _unflattened),
    "Identity": Rule((*_ANY, "tokens"), _same, keeps_lengths=True),
    **dict.fromkeys(("GroupNorm", "LocalResponseNorm", "ChannelShuffle", "Upsample"), _ON_CHANNELS_FIRST),
    # With one dimension less PyTorch would take the batch for channels.
    **dict.fromkeys(
        ("PixelShuffle", "PixelUnshuffle", "Softmax2d", "UpsamplingNearest2d", "UpsamplingBilinear2d", "Unfold"),
        _ON_IMAGES,
    ),
    "Fold": Rule(_FIRST, _constant("channels-first"), dims=1),
    "BatchNorm1d": Rule(("features", "channels-first"), _same, dims=1),
}

_BY_DIMENSIONS = re.compile(
    r"(?:Conv|ConvTranspose|BatchNorm|InstanceNorm|(?:Max|Avg|LP|AdaptiveAvg|AdaptiveMax|FractionalMax)Pool"
    r"|\w+Pad|Dropout)([123])d$"
)


def rule_for(layer: str) -> Rule:
    """The layer's row; one that has none, such as a user's own, may do anything: its output's rank tells its layout."""
    if layer in _RULES:
        return _RULES[layer]
    if found := _BY_DIMENSIONS.match(layer):
        return Rule(_FIRST, _same, dims=int(found[1]))
    return _OTHER


def keeps_lengths(layer: str, module: nn.Module, settings: Settings, value: Value, shape: tuple[int, ...]) -> bool:
    """Whether its output at a step is that of the sample alone, whatever padding stands behind it.

    A layer of the user's own says so itself, by `keeps_lengths = True`.
    """
    if len(shape) > 1 and shape[0] != value.shape[0]:
        return False
    if getattr(module, "keeps_lengths", False) is True:
        return True
    return rule_for(layer).keeps_lengths and not _works_on_steps(settings, value)


def _works_on_steps(settings: Settings, value: Value) -> bool:
    """Whether a setting lets it work over dimension 1, where a sequence has its steps."""
    normalized, dim = settings.get("normalized_shape"), settings.get("dim")
    over_all = isinstance(normalized, list) and len(normalized) >= len(value.shape)
    return over_all or (isinstance(dim, int) and dim % (len(value.shape) + 1) == 1)


# ---- what is refused -----------------------------------------------------------------------------------------------


def refusal(layer: str, value: Value, settings: Settings) -> tuple[str, str] | None:
    """Why the layer can't take this value, and what to write; None where it can."""
    rule = rule_for(layer)
    if value.layout not in rule.takes and not _says_where(layer, value, settings):
        return f"{layer} wants {' or '.join(rule.takes)}, and {value} comes in", _remedy(layer, rule, value)
    if rule.dims is not None and value.layout == "channels-first" and len(value.shape) != rule.dims + 1:
        right = re.sub(r"\dd$", f"{len(value.shape) - 1}d", layer)
        fix = f"did you mean '{right}'?" if right != layer and hasattr(nn, right) else ""
        return f"{layer} wants channels and {rule.dims} more, and {value} comes in", fix
    return _mixing(layer, value, settings)


def _says_where(layer: str, value: Value, settings: Settings) -> bool:
    """Whether its settings say on which dimensions it works, so that any layout will do."""
    says = {"LayerNorm": "normalized_shape", "RMSNorm": "normalized_shape", "GLU": "dim"}
    return value.layout != "tokens" and layer in says and settings.get(says[layer]) is not None


def _mixing(layer: str, value: Value, settings: Settings) -> tuple[str, str] | None:
    """Dimension 0 is the batch, which no layer may touch, and a PReLU's weights are dimension 1's."""
    for name in ("dim", "start_dim"):
        dim = settings.get(name)
        if hasattr(nn, layer) and isinstance(dim, int) and dim in (0, -1 - len(value.shape)):
            found = f"{name} is {dim}: that is the batch, and samples must not mix"
            return found, "the dimensions of a sample start at 1"
    if layer == "PReLU" and settings.get("num_parameters", 1) > 1 and value.layout in ("sequence", "channels-last"):
        found = f"PReLU with {settings['num_parameters']} parameters wants features or channels-first"
        return f"{found}, and {value} comes in", "leave num_parameters out: one for all"
    return None


def _remedy(layer: str, rule: Rule, value: Value) -> str:
    if value.layout == "tokens":
        return "put an 'Embedding: SIZE' before it"
    if rule.takes == ("tokens",):
        return "it takes token numbers: these data have none" if value.layout == "features" else "let it come first"
    return _REMEDIES[value.layout](layer, rule, value)


def _on_features(layer: str, rule: Rule, value: Value) -> str:
    if "channels-first" not in rule.takes:
        return f"put an 'Unflatten: {{dim: 1, unflattened_size: [T, C]}}' before it, T * C = {value.channels}"
    if rule.dims == 1:
        sizes = f"[1, {value.channels}]"
        return f"put '- Unflatten: {{dim: 1, unflattened_size: {sizes}, layout: channels-first}}' before it"
    side = math.isqrt(value.channels)
    sizes = f"[1, {side}, {side}]" if side * side == value.channels and rule.dims == 2 else "[C, ...]"
    return f"put an 'Unflatten: {{dim: 1, unflattened_size: {sizes}}}' before it"


def _on_sequence(layer: str, rule: Rule, value: Value) -> str:
    if "channels-first" not in rule.takes:
        return "give less from the layer before, such as 'LSTM: {hidden_size: 64, output: last}'"
    norm = "take LayerNorm; " if "Norm" in layer else ""
    return f"{norm}its channels come last, and 'Permute: [0, 2, 1]' is not there yet"


def _on_channels_first(layer: str, rule: Rule, value: Value) -> str:
    if layer in ("LayerNorm", "RMSNorm"):
        return f"write {layer}: {{normalized_shape: {list(value.shape)}}}, or put a 'Flatten' before it"
    if layer == "GLU":
        return "write GLU: {dim: 1}, which halves the channels"
    if rule.takes == ("sequence",) and len(value.shape) == 2:
        return "its channels come first, and 'Permute: [0, 2, 1]' is not there yet"
    if rule.takes == ("sequence",):
        end = len(value.shape) - 1
        return f"put '- Flatten: {{end_dim: {end}, layout: sequence}}' before it, which reads row by row"
    return "put a 'Flatten' before it"


def _on_channels_last(layer: str, rule: Rule, value: Value) -> str:
    if rule.takes == ("sequence",):
        return f"put '- Flatten: {{end_dim: {len(value.shape) - 1}, layout: sequence}}' before it"
    return "its channels come last, and 'Permute' is not there yet"


_REMEDIES: Mapping[Layout, Callable[[str, Rule, Value], str]] = {
    "features": _on_features,
    "sequence": _on_sequence,
    "channels-first": _on_channels_first,
    "channels-last": _on_channels_last,
}


# ---- what is learned from the input --------------------------------------------------------------------------------


def infer(setting: str, value: Value) -> Any:
    """What an inferred setting is for this input; None where the input does not tell."""
    if setting == "num_embeddings":
        return value.vocab_size
    if setting in ("kdim", "vdim"):
        return None
    return value.shape[-1] if setting == "normalized_shape" else value.channels


def left_open(layer: str, value: Value) -> dict[str, Any]:
    """Settings that PyTorch leaves open, or guesses by the rank alone, and the input decides.

    A softmax goes over the channels; an `EmbeddingBag` leaves out padding, which is token 0 where texts have lengths.
    """
    if layer in ("Softmax", "LogSoftmax", "Softmin"):
        return {"dim": 1 if value.layout in ("features", "channels-first") else -1}
    return {"padding_idx": 0} if layer == "EmbeddingBag" and value.lengths else {}
