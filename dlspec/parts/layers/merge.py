"""Layers that merge multiple inputs: `Add`, `Multiply` and `Concat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add, mul
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import LengthChange, Lengths, TensorInfo, format_shape
from dlspec.parts.layers.dimensions import (
    check_dim,
    find_common_lengths,
    lengths_and_steps_agree,
    normalize_dim,
)
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, main_input


def _check_input_count(inputs: Inputs) -> Finding | None:
    if len(inputs) > 1:
        return None
    return Finding(Code.INPUT_COUNT, "two or more inputs are required, got 1", "write from: [_, NAME]")


# ---- element by element --------------------------------------------------------------------------------------------


def _check_elementwise(inputs: Inputs, settings: Settings) -> Finding | None:
    first = main_input(inputs)
    return _check_input_count(inputs) or next(
        (bad for each in inputs if (bad := find_shape_mismatch(first, each))), None
    )


def find_shape_mismatch(first: TensorInfo, other: TensorInfo) -> Finding | None:
    """Check that two inputs can be broadcast together; return what is wrong, or None.

    Inputs with a batch must have the same number of dimensions. A `Parameter` is broadcast by PyTorch's rules, also if
    its first size, in place of the batch, is 1.
    """
    ranks = [len(each.shape) for each in (first, other) if each.has_batch]
    rank = max(ranks or [len(first.shape), len(other.shape)])
    one, two = (each.shape if each.has_batch else _align_to_sample(each.shape, rank) for each in (first, other))
    pairs = zip(one, two, strict=False)
    if len(one) == len(two) and all(each == size or 1 in (each, size) for each, size in pairs):
        return None
    return Finding(
        Code.SHAPE_MISMATCH,
        f"shapes {format_shape(first.shape)} and {format_shape(other.shape)} do not match",
        _suggest_shape_fix(first, other),
    )


def _align_to_sample(shape: Shape, rank: int) -> Shape:
    """Give the shape of a value without a batch as many dimensions as a sample has, where broadcasting does so."""
    if len(shape) == rank + 1 and shape[0] == 1:
        return shape[1:]
    return (1,) * (rank - len(shape)) + shape


def _suggest_shape_fix(first: TensorInfo, other: TensorInfo) -> str:
    if not other.has_batch:
        sizes = [first.channels] + [1] * (len(first.shape) - first.channels_dim)
        return f"a Parameter must broadcast to the other input: shape {sizes} gives one number per channel"
    if len(first.shape) != len(other.shape):
        return "put a Reshape before one of them: both need the same number of dimensions, and sizes of 1 broadcast"
    return "use Residual with shortcut: auto, or a layer that changes the size of one of them"


_ELEMENTWISE_RULE = Rule(
    keeps_lengths=lambda inputs, settings: lengths_and_steps_agree(inputs),
    lengths=lambda inputs, shape, settings: find_common_lengths(inputs),
    check=_check_elementwise,
    takes_parameter=True,
)


class Add(nn.Module):
    """Add two or more inputs of the same shape. Sizes of 1 are broadcast, and a `Parameter` over the batch."""

    rule = _ELEMENTWISE_RULE
    inline = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(add, inputs)


class Multiply(nn.Module):
    """Multiply two or more inputs element by element. They are broadcast as in `Add`."""

    rule = _ELEMENTWISE_RULE
    inline = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(mul, inputs)


# ---- concatenation -------------------------------------------------------------------------------------------------


def _concat_dim(inputs: Inputs, settings: Settings) -> int:
    dim = settings.get("dim")
    return main_input(inputs).channels_dim if dim is None else normalize_dim(dim, main_input(inputs))


def _check_concat(inputs: Inputs, settings: Settings) -> Finding | None:
    first = main_input(inputs)
    refused = _check_input_count(inputs) or (None if settings.get("dim") is None else check_dim(settings["dim"], first))
    if refused:
        return refused
    if not first.has_batch:
        return Finding(
            Code.WRONG_LAYOUT,
            "at least one input must be computed from the data, got only Parameters",
            "write a single Parameter of the whole shape",
        )
    dim = _concat_dim(inputs, settings)
    for each in inputs:
        if _mask_concatenated_size(each, dim) != _mask_concatenated_size(first, dim):
            found = f"{format_shape(first.shape)} and {format_shape(each.shape)} can't be concatenated along dim {dim}"
            return Finding(Code.SHAPE_MISMATCH, found, "all other sizes must be equal")
    return None


def _mask_concatenated_size(value: TensorInfo, dim: int) -> Shape:
    """The shape with the concatenated dimension replaced by -1."""
    return (*value.shape[: dim - 1], -1, *value.shape[dim:]) if dim <= len(value.shape) else value.shape


def _fill_concat(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """Infer the dimension, and the number of dimensions of each input without a batch."""
    ranks = [None if each.has_batch else len(each.shape) for each in inputs]
    return {"dim": _concat_dim(inputs, settings), "_ranks": ranks}


def _concatenates_steps(inputs: Inputs, settings: Settings) -> bool:
    """Whether the inputs are concatenated over time."""
    return _concat_dim(inputs, settings) == main_input(inputs).time_dim


def _concat_keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    if not _concatenates_steps(inputs, settings):
        return lengths_and_steps_agree(inputs)
    return all(each.lengths is None for each in inputs[:-1])  # padding may only be at the end


def _lengths_after_concat(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    """Lengths of the result. Over time, the steps of earlier inputs are added to the lengths of the last input."""
    if not _concatenates_steps(inputs, settings):
        return find_common_lengths(inputs)
    lengths = inputs[-1].lengths
    if lengths is None or not _concat_keeps_lengths(inputs, settings):
        return None
    added_steps = sum(each.shape[_concat_dim(inputs, settings) - 1] for each in inputs[:-1])
    return lengths.after(LengthChange.from_factor(1, added_steps))


class Concat(nn.Module):
    """Concatenate two or more inputs along `dim`, by default the channels. All other sizes must be equal.

    A `Parameter` is repeated for every sample. Concatenating over time adds the steps of earlier inputs to each
    sample's length.
    """

    rule = Rule(
        keeps_lengths=_concat_keeps_lengths,
        lengths=_lengths_after_concat,
        check=_check_concat,
        fill=_fill_concat,
        takes_parameter=True,
    )
    inline = True

    def __init__(self, dim: int | None = None, _ranks: Sequence[int | None] = ()) -> None:
        super().__init__()
        self.dim = 1 if dim is None else dim
        self._ranks = tuple(_ranks)

    def forward(self, *inputs: Tensor) -> Tensor:
        ranks = self._ranks or (None,) * len(inputs)
        with_batch = next(each for each, rank in zip(inputs, ranks, strict=True) if rank is None)
        return torch.cat(
            [
                each if rank is None else each.expand(with_batch.shape[0], *[-1] * rank)
                for each, rank in zip(inputs, ranks, strict=True)
            ],
            dim=self.dim,
        )

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
