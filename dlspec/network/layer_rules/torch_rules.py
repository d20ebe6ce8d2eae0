"""Rules of PyTorch's layers: the layouts of their inputs and outputs, and whether they keep lengths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, LengthChange, TensorInfo, layout_from_roles, roles_from_layout
from dlspec.parts.layers.dimensions import (
    keeps_time,
    layout_from_dims,
    lengths_and_steps_agree,
    lengths_from_dims,
    normalize_dim,
)
from dlspec.parts.layers.rule import ALL_LAYOUTS, CHANNELS_LAST_LAYOUTS, Inputs, Rule, Settings, Shape, constant_layout

_CHANNELS_FIRST: tuple[Layout, ...] = ("channels-first",)


# ---- Flatten and Unflatten -----------------------------------------------------------------------------------------


def _find_flatten_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return layout_from_roles(_find_flatten_roles(inputs, shape, settings))


def _find_flatten_roles(inputs: Inputs, shape: Shape, settings: Settings) -> tuple[str, ...]:
    """Merge the flattened dimensions into one; it is the channels if they are among the merged ones."""
    start, end = _find_merged_dims(inputs[0], settings)
    before = ("N", *inputs[0].roles)
    if start >= end:
        return before[1:]
    merged = "C" if "C" in before[start : end + 1] else before[start]
    return (*before[:start], merged, *before[end + 1 :])[1:]


def _find_merged_dims(value: TensorInfo, settings: Settings) -> tuple[int, int]:
    rank = len(value.shape) + 1
    return settings.get("start_dim", 1) % rank, settings.get("end_dim", -1) % rank


def _keeps_time_dim(inputs: Inputs, settings: Settings) -> bool:
    """Whether a `Flatten` or `Unflatten` leaves the time dimension unchanged."""
    value = inputs[0]
    if "unflattened_size" in settings:
        return value.layout == "sequence" and normalize_dim(settings["dim"], value) > 1
    start, end = _find_merged_dims(value, settings)
    return start >= end or (value.layout == "sequence" and start > 1)


def _find_unflatten_roles(inputs: Inputs, shape: Shape, settings: Settings) -> tuple[str, ...]:
    """Give all dimensions that a dimension is split into the role of that dimension."""
    value = inputs[0]
    if value.layout == "features":
        return roles_from_layout(_find_unflatten_layout(inputs, shape, settings), len(shape))
    at = normalize_dim(settings["dim"], value) - 1
    more = len(shape) - len(value.shape)
    return (*value.roles[:at], *[value.roles[at]] * (more + 1), *value.roles[at + 1 :])


def _find_unflatten_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    if inputs[0].layout == "features":
        return "channels-first" if len(shape) > 2 else "sequence"
    return inputs[0].layout


# ---- convolutions and poolings change lengths ----------------------------------------------------------------------


def _as_single_number(setting: Any, default: int) -> int:
    """Return a setting of a one-dimensional layer as a number: `3` and `[3]` mean the same."""
    if setting is None:
        return default
    return int(setting[0] if isinstance(setting, list | tuple) else setting)


def _pads_convolution(settings: Settings) -> bool:
    padding = settings.get("padding", 0)
    return padding == "same" or (padding != "valid" and _as_single_number(padding, 0) > 0)


def _change_length_by_convolution(settings: Settings) -> LengthChange | None:
    if _pads_convolution(settings) and settings.get("padding_mode", "zeros") != "zeros":
        return None  # the values beyond a sample's end would be made from its padding
    if settings.get("padding") == "same":
        return LengthChange()
    padding = _as_single_number(settings.get("padding", 0), 0) if _pads_convolution(settings) else 0
    return _make_window(settings, 1, padding)


def _change_length_by_transposed_convolution(settings: Settings) -> LengthChange:
    kernel, stride = _as_single_number(settings["kernel_size"], 1), _as_single_number(settings.get("stride"), 1)
    padding, dilation = _as_single_number(settings.get("padding"), 0), _as_single_number(settings.get("dilation"), 1)
    more = _as_single_number(settings.get("output_padding"), 0)
    return LengthChange.from_factor(stride, dilation * (kernel - 1) + more + 1 - 2 * padding - stride)


def _change_length_by_pooling(settings: Settings) -> LengthChange | None:
    """Return None if a sample's result depends on its padding.

    A window that extends beyond a sample's end contains padding in a batch, but nothing for the sample by itself.
    """
    padding = _as_single_number(settings.get("padding"), 0)
    if settings.get("ceil_mode") or (padding and not settings.get("count_include_pad", True)):
        return None
    return _make_window(settings, _as_single_number(settings["kernel_size"], 1), padding)


def _make_window(settings: Settings, default_stride: int, padding: int) -> LengthChange:
    kernel, dilation = _as_single_number(settings["kernel_size"], 1), _as_single_number(settings.get("dilation"), 1)
    return LengthChange.from_window(
        kernel, _as_single_number(settings.get("stride"), default_stride), padding, dilation
    )


def _change_length_by_zeros(settings: Settings) -> LengthChange | None:
    """Return the change by padding with zeros at both ends; None for other values, which a convolution may read."""
    left, right = _read_both_paddings(settings)
    return None if settings.get("value", 0) or min(left, right) < 0 else LengthChange.from_factor(1, left + right)


def _read_both_paddings(settings: Settings) -> tuple[int, int]:
    padding = settings["padding"]
    left, right = padding if isinstance(padding, list | tuple) else (padding, padding)
    return int(left), int(right)


def _change_length_by_repeating(settings: Settings) -> LengthChange | None:
    """Return the change by an `Upsample` that repeats each step; None where it computes values between steps."""
    written = settings.get("scale_factor")
    factor = written[0] if isinstance(written, list | tuple) and len(written) == 1 else written
    if not isinstance(factor, int | float) or factor != int(factor) or factor < 1:
        return None
    is_repeating = settings.get("mode", "nearest").startswith("nearest")
    return LengthChange.from_factor(int(factor)) if is_repeating else None


# ---- checks, and settings that depend on the inputs ----------------------------------------------------------------


def _check_prelu(inputs: Inputs, settings: Settings) -> Finding | None:
    """Check that dimension 1 contains the channels: PReLU has one parameter for each index of dimension 1."""
    count, value = settings.get("num_parameters", 1), inputs[0]
    if count == 1 or value.layout in ("features", "channels-first"):
        return None
    found = f"PReLU with {count} parameters expects features or channels-first input, got {value}"
    return Finding(Code.WRONG_LAYOUT, found, "leave num_parameters out, to use one parameter for all channels")


def _check_two_equal_inputs(inputs: Inputs, settings: Settings) -> Finding | None:
    """Check that there are two inputs of the same shape and layout; those of `Bilinear` may differ in channels."""
    if len(inputs) != 2:
        return Finding(Code.INPUT_COUNT, f"expected two inputs, got {len(inputs)}", _TWO_INPUTS_FIX)
    one, other = (each.shape[:-1] if "out_features" in settings else each.shape for each in inputs)
    if one == other and inputs[0].layout == inputs[1].layout:
        return None
    return Finding(
        Code.SHAPE_MISMATCH, f"the inputs are {inputs[0]} and {inputs[1]}", "give both the same shape and layout"
    )


_TWO_INPUTS_FIX = "write from: [_, NAME]"


def _check_unpool(inputs: Inputs, settings: Settings) -> Finding | None:
    if len(inputs) == 2 and inputs[0].shape == inputs[1].shape:
        return None
    found = "expected the indices of a MaxPool layer as the second input"
    return Finding(
        Code.INPUT_COUNT, found, "write from: [_, NAME.1], with {return_indices: true, name: NAME} in the MaxPool layer"
    )


def _fill_bag_padding(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """Exclude padding (token 0) from an EmbeddingBag if the samples have lengths."""
    return {"padding_idx": 0} if inputs[0].lengths else {}


def _check_bag(inputs: Inputs, settings: Settings) -> Finding | None:
    """Check that padding is the token that an EmbeddingBag excludes: it takes no lengths."""
    value, index = inputs[0], settings.get("padding_idx")
    if value.lengths is None or (index in (None, 0) and value.vocab_size is not None):
        return None
    reduction = settings.get("mode", "mean").capitalize()
    found = "EmbeddingBag counts padding: it excludes the token 0 only, " + (
        f"and padding_idx is {index}" if index else "and these tokens are computed from others"
    )
    return Finding(Code.COUNTS_PADDING, found, f"use Embedding and {reduction} instead")


def _list_dims_kept_by_similarity(inputs: Inputs, settings: Settings) -> list[int]:
    """List the dimensions that a similarity or distance keeps: all but `dim`, by default the last."""
    rank, dim = len(inputs[0].shape) + 1, settings.get("dim")
    compared_dim = None if settings.get("keepdim") else rank - 1 if dim is None else normalize_dim(dim, inputs[0])
    return [each for each in range(rank) if each != compared_dim]


# ---- the rules -----------------------------------------------------------------------------------------------------

_ELEMENTWISE = Rule(keeps_lengths=True)
_ON_LAST = Rule(CHANNELS_LAST_LAYOUTS, keeps_lengths=True)
_ON_CHANNELS_FIRST = Rule(_CHANNELS_FIRST)
_ON_IMAGES = Rule(_CHANNELS_FIRST, constant_layout("channels-first"), dims=2)
_DISTANCE = Rule(
    CHANNELS_LAST_LAYOUTS,
    lambda inputs, shape, settings: layout_from_dims(inputs[0], _list_dims_kept_by_similarity(inputs, settings)),
    keeps_lengths=lambda inputs, settings: (
        lengths_and_steps_agree(inputs) and keeps_time(inputs[0], _list_dims_kept_by_similarity(inputs, settings))
    ),
    lengths=lambda inputs, shape, settings: lengths_from_dims(
        inputs[0], _list_dims_kept_by_similarity(inputs, settings)
    ),
    check=_check_two_equal_inputs,
)

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish RReLU ReLU ReLU6 SELU "
        "SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Threshold "
        "Dropout AlphaDropout FeatureAlphaDropout".split(),
        _ELEMENTWISE,
    ),
    "PReLU": Rule(keeps_lengths=True, check=_check_prelu),
    **dict.fromkeys(("Linear", "LayerNorm", "RMSNorm", "GLU"), _ON_LAST),
    "Bilinear": Rule(
        CHANNELS_LAST_LAYOUTS,
        keeps_lengths=lambda inputs, settings: lengths_and_steps_agree(inputs),
        check=_check_two_equal_inputs,
    ),
    "CosineSimilarity": replace(_DISTANCE, fill=lambda inputs, settings: {"dim": len(inputs[0].shape)}),
    "PairwiseDistance": _DISTANCE,
    "Embedding": Rule(("tokens",), constant_layout("sequence"), keeps_lengths=True),
    "EmbeddingBag": Rule(
        ("tokens",), constant_layout("features"), keeps_lengths=True, fill=_fill_bag_padding, check=_check_bag
    ),
    "Flatten": Rule(ALL_LAYOUTS, _find_flatten_layout, keeps_lengths=_keeps_time_dim, roles=_find_flatten_roles),
    "Unflatten": Rule(
        gives=_find_unflatten_layout,
        guesses=lambda inputs, shape, settings: inputs[0].layout == "features",
        keeps_lengths=_keeps_time_dim,
        roles=_find_unflatten_roles,
    ),
    "Identity": Rule(ALL_LAYOUTS, keeps_lengths=True),
    "Upsample": Rule(_CHANNELS_FIRST, changes_length=_change_length_by_repeating),
    **dict.fromkeys(("LocalResponseNorm", "ChannelShuffle"), Rule(_CHANNELS_FIRST, keeps_lengths=True)),
    # For an input with one dimension fewer, PyTorch would use the batch as channels.
    **dict.fromkeys(
        ("PixelShuffle", "PixelUnshuffle", "Softmax2d", "UpsamplingNearest2d", "UpsamplingBilinear2d", "Unfold"),
        _ON_IMAGES,
    ),
    "Fold": Rule(_CHANNELS_FIRST, constant_layout("channels-first"), dims=1),
    "Dropout1d": Rule(_CHANNELS_FIRST, dims=1, keeps_lengths=True),
    "Conv1d": Rule(
        _CHANNELS_FIRST, dims=1, changes_length=_change_length_by_convolution, reads_past_end=_pads_convolution
    ),
    "ConvTranspose1d": Rule(
        _CHANNELS_FIRST,
        dims=1,
        changes_length=_change_length_by_transposed_convolution,
        reads_past_end=lambda settings: True,  # its last steps are computed from steps after the end, too
    ),
    "LPPool1d": Rule(_CHANNELS_FIRST, dims=1, changes_length=_change_length_by_pooling),
    "AvgPool1d": Rule(
        _CHANNELS_FIRST,
        dims=1,
        changes_length=_change_length_by_pooling,
        reads_past_end=lambda settings: _as_single_number(settings.get("padding"), 0) > 0,
    ),
    **dict.fromkeys(
        ("ZeroPad1d", "ConstantPad1d"),
        Rule(
            _CHANNELS_FIRST,
            dims=1,
            changes_length=_change_length_by_zeros,
            reads_past_end=lambda settings: _read_both_paddings(settings)[1] > 0,
        ),
    ),
    **{f"MaxUnpool{n}d": Rule(_CHANNELS_FIRST, dims=n, check=_check_unpool) for n in (1, 2, 3)},
}

_DIMENSION_PATTERN = re.compile(
    r"(?:Conv|ConvTranspose|BatchNorm|InstanceNorm|(?:Max|Avg|LP|AdaptiveAvg|AdaptiveMax|FractionalMax)Pool"
    r"|\w+Pad|Dropout)([123])d$"
)
_DEFAULT_RULE = Rule()


def find_torch_rule(layer: str) -> Rule:
    """Return the rule of the PyTorch layer with this name."""
    if layer not in _RULES and (found := _DIMENSION_PATTERN.match(layer)):
        return Rule(_CHANNELS_FIRST, dims=int(found[1]))
    return _RULES.get(layer, _DEFAULT_RULE)
