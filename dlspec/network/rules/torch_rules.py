"""Which layouts PyTorch's own layers take and give, and what becomes of lengths: one row a family of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Value, Window, layout_of, roles
from dlspec.parts.layers.dims import counted, end_together, keeps_time, kept_lengths, moved
from dlspec.parts.layers.rule import ALL, LAST, Inputs, Rule, Settings, Shape, constant

_FIRST: tuple[Layout, ...] = ("channels-first",)


# ---- Flatten and Unflatten move the roles --------------------------------------------------------------------------


def _flattened(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return layout_of(_flattened_roles(inputs, shape, settings))


def _flattened_roles(inputs: Inputs, shape: Shape, settings: Settings) -> tuple[str, ...]:
    """The dimensions that are merged become one, channels if channels were among them."""
    start, end = _merged(inputs[0], settings)
    before = ("N", *inputs[0].roles)
    if start >= end:
        return before[1:]
    merged = "C" if "C" in before[start : end + 1] else before[start]
    return (*before[:start], merged, *before[end + 1 :])[1:]


def _merged(value: Value, settings: Settings) -> tuple[int, int]:
    rank = len(value.shape) + 1
    return settings.get("start_dim", 1) % rank, settings.get("end_dim", -1) % rank


def _keeps_steps(inputs: Inputs, settings: Settings) -> bool:
    """Whether a `Flatten` merges nothing with the steps, or an `Unflatten` leaves them alone."""
    value = inputs[0]
    if "unflattened_size" in settings:
        return value.layout == "sequence" and counted(settings["dim"], value) > 1
    start, end = _merged(value, settings)
    return start >= end or (value.layout == "sequence" and start > 1)


def _unflattened_roles(inputs: Inputs, shape: Shape, settings: Settings) -> tuple[str, ...]:
    """A dimension that is cut gives each of its parts its role."""
    value = inputs[0]
    if value.layout == "features":
        return roles(_unflattened(inputs, shape, settings), len(shape))
    at = counted(settings["dim"], value) - 1
    more = len(shape) - len(value.shape)
    return (*value.roles[:at], *[value.roles[at]] * (more + 1), *value.roles[at + 1 :])


def _unflattened(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    if inputs[0].layout == "features":
        return "channels-first" if len(shape) > 2 else "sequence"
    return inputs[0].layout


# ---- lengths behind convolutions and poolings ----------------------------------------------------------------------


def _only(setting: Any, default: int) -> int:
    """The number for the one dimension there is."""
    if setting is None:
        return default
    return int(setting[0] if isinstance(setting, list | tuple) else setting)


def _convolution(settings: Settings) -> Window | None:
    kernel, dilation = _only(settings["kernel_size"], 1), _only(settings.get("dilation"), 1)
    padding, reach = settings.get("padding", 0), dilation * (kernel - 1)
    if padding == "same":
        if reach % 2:  # PyTorch pads one more behind than before
            return None
        padding = reach // 2
    padding = 0 if padding == "valid" else _only(padding, 0)
    if padding and settings.get("padding_mode", "zeros") != "zeros":
        return None  # what stands at the border is the padding's
    return Window(kernel, _only(settings.get("stride"), 1), padding, dilation)


def _pooling(settings: Settings) -> Window | None:
    """A window that reaches over a sample's end would see padding where the sample alone has a border."""
    kernel, padding = _only(settings["kernel_size"], 1), _only(settings.get("padding"), 0)
    counts_border = "count_include_pad" in settings and settings["count_include_pad"]
    if settings.get("ceil_mode") or (padding and not counts_border):
        return None
    return Window(kernel, _only(settings.get("stride"), kernel), padding, _only(settings.get("dilation"), 1))


def _averaging(settings: Settings) -> Window | None:
    return _pooling({"count_include_pad": True, **settings})


# ---- checks and what is filled in ----------------------------------------------------------------------------------


def _check_prelu(inputs: Inputs, settings: Settings) -> Finding | None:
    """Its weights are dimension 1's."""
    count, value = settings.get("num_parameters", 1), inputs[0]
    if count == 1 or value.layout in ("features", "channels-first"):
        return None
    found = f"PReLU with {count} parameters wants features or channels-first, and {value} comes in"
    return Finding(Code.WRONG_LAYOUT, found, "leave num_parameters out: one for all")


def _check_pair(inputs: Inputs, settings: Settings) -> Finding | None:
    """Two values of one shape, or of one but for the channels where each has weights of its own."""
    if len(inputs) != 2:
        return Finding(
            Code.INPUT_COUNT,
            f"{len(inputs)} {'input comes' if len(inputs) == 1 else 'inputs come'} in, and two are wanted",
            _TWO,
        )
    one, other = (each.shape[:-1] if "out_features" in settings else each.shape for each in inputs)
    if one == other and inputs[0].layout == inputs[1].layout:
        return None
    return Finding(Code.SHAPE_MISMATCH, f"{inputs[0]} and {inputs[1]} don't fit", "both need one shape and one layout")


_TWO = "write from: [_, NAME]"


def _check_unpool(inputs: Inputs, settings: Settings) -> Finding | None:
    if len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
        return None
    found = "the indices of a MaxPool are wanted as second input"
    return Finding(
        Code.INPUT_COUNT, found, "write from: [_, NAME.1] behind a MaxPool: {return_indices: true, name: NAME}"
    )


def _softmax_dim(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """A softmax goes over the channels, where PyTorch would guess by the rank alone."""
    return {"dim": 1 if inputs[0].layout in ("features", "channels-first") else -1}


def _bag_padding(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """Padding is token 0 where texts have lengths, and no part of a bag."""
    return {"padding_idx": 0} if inputs[0].lengths else {}


def _compared(inputs: Inputs, settings: Settings) -> list[int]:
    """The dimensions that are left where one is compared: the channels' by PyTorch's default."""
    rank, dim = len(inputs[0].shape) + 1, settings.get("dim")
    gone = None if settings.get("keepdim") else rank - 1 if dim is None else counted(dim, inputs[0])
    return [each for each in range(rank) if each != gone]


# ---- the rows ------------------------------------------------------------------------------------------------------

_ELEMENTWISE = Rule(keeps_lengths=True)
_SOFTMAX = Rule(keeps_lengths=True, fill=_softmax_dim)
_ON_LAST = Rule(LAST, keeps_lengths=True)
_ON_CHANNELS_FIRST = Rule(_FIRST)
_ON_IMAGES = Rule(_FIRST, constant("channels-first"), dims=2)
_DISTANCE = Rule(
    LAST,
    lambda inputs, shape, settings: moved(inputs[0], _compared(inputs, settings)),
    keeps_lengths=lambda inputs, settings: end_together(inputs) and keeps_time(inputs[0], _compared(inputs, settings)),
    lengths=lambda inputs, shape, settings: kept_lengths(inputs[0], _compared(inputs, settings)),
    check=_check_pair,
)

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish RReLU ReLU ReLU6 SELU "
        "SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Threshold "
        "Dropout AlphaDropout FeatureAlphaDropout".split(),
        _ELEMENTWISE,
    ),
    "PReLU": Rule(keeps_lengths=True, check=_check_prelu),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Softmin"), _SOFTMAX),
    **dict.fromkeys(("Linear", "LayerNorm", "RMSNorm", "GLU"), _ON_LAST),
    "Bilinear": Rule(LAST, keeps_lengths=lambda inputs, settings: end_together(inputs), check=_check_pair),
    "CosineSimilarity": replace(_DISTANCE, fill=lambda inputs, settings: {"dim": len(inputs[0].shape)}),
    "PairwiseDistance": _DISTANCE,
    "Embedding": Rule(("tokens",), constant("sequence"), keeps_lengths=True),
    "EmbeddingBag": Rule(("tokens",), constant("features"), keeps_lengths=True, fill=_bag_padding),
    "Flatten": Rule(ALL, _flattened, keeps_lengths=_keeps_steps, roles=_flattened_roles),
    "Unflatten": Rule(gives=_unflattened, keeps_lengths=_keeps_steps, roles=_unflattened_roles),
    "Identity": Rule(ALL, keeps_lengths=True),
    **dict.fromkeys(("GroupNorm", "Upsample"), _ON_CHANNELS_FIRST),
    **dict.fromkeys(("LocalResponseNorm", "ChannelShuffle"), Rule(_FIRST, keeps_lengths=True)),
    # With one dimension less PyTorch would take the batch for channels.
    **dict.fromkeys(
        ("PixelShuffle", "PixelUnshuffle", "Softmax2d", "UpsamplingNearest2d", "UpsamplingBilinear2d", "Unfold"),
        _ON_IMAGES,
    ),
    "Fold": Rule(_FIRST, constant("channels-first"), dims=1),
    "BatchNorm1d": Rule(("features", "channels-first"), dims=1, keeps_lengths=True),
    "Dropout1d": Rule(_FIRST, dims=1, keeps_lengths=True),
    "Conv1d": Rule(_FIRST, dims=1, window=_convolution),
    **dict.fromkeys(("MaxPool1d", "LPPool1d"), Rule(_FIRST, dims=1, window=_pooling)),
    "AvgPool1d": Rule(_FIRST, dims=1, window=_averaging),
    **{f"MaxUnpool{n}d": Rule(_FIRST, dims=n, check=_check_unpool) for n in (1, 2, 3)},
}

_BY_DIMENSIONS = re.compile(
    r"(?:Conv|ConvTranspose|BatchNorm|InstanceNorm|(?:Max|Avg|LP|AdaptiveAvg|AdaptiveMax|FractionalMax)Pool"
    r"|\w+Pad|Dropout)([123])d$"
)
_OTHER = Rule()


def torch_rule(layer: str) -> Rule:
    """The row of PyTorch's layer of this name."""
    if layer not in _RULES and (found := _BY_DIMENSIONS.match(layer)):
        return Rule(_FIRST, dims=int(found[1]))
    return _RULES.get(layer, _OTHER)
