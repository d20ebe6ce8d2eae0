"""Several values made one: their sum, their product, or one beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add, mul
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import Lengths, Value, Window, format_shape
from dlspec.parts.layers.dims import agree, counted, end_together, refused_dim
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, main


def _several(inputs: Inputs) -> Finding | None:
    if len(inputs) > 1:
        return None
    return Finding(Code.INPUT_COUNT, "one input comes in, and two or more are wanted", "write from: [_, NAME]")


# ---- element by element --------------------------------------------------------------------------------------------


def _check_broadcast(inputs: Inputs, settings: Settings) -> Finding | None:
    first = main(inputs)
    return _several(inputs) or next((bad for each in inputs if (bad := misfit(first, each))), None)


def misfit(first: Value, other: Value) -> Finding | None:
    """Sizes of 1 stretch between values of one rank, a `Parameter` by PyTorch's rule; nothing else does."""
    rank = max(len(first.shape), len(other.shape))
    one, two = (
        each.shape if each.has_batch else (1,) * (rank - len(each.shape)) + each.shape for each in (first, other)
    )
    pairs = zip(one, two, strict=False)
    if len(one) == len(two) and all(each == size or 1 in (each, size) for each, size in pairs):
        return None
    return Finding(
        Code.SHAPE_MISMATCH,
        f"{format_shape(first.shape)} and {format_shape(other.shape)} don't fit",
        _fix_shapes(first, other),
    )


def _fix_shapes(first: Value, other: Value) -> str:
    if not other.has_batch:
        sizes = [first.channels] + [1] * (len(first.shape) - first.channels_dim)
        return f"a Parameter must stretch to the value: one of shape {sizes} is a number a channel"
    if len(first.shape) != len(other.shape):
        return "both need as many dimensions; sizes of 1 stretch: put a Reshape before one of them"
    return "try Residual with shortcut: auto, or a layer that gives one the other's size"


_ELEMENTWISE = Rule(
    keeps_lengths=lambda inputs, settings: end_together(inputs),
    lengths=lambda inputs, shape, settings: main(inputs).lengths if agree(inputs) else None,
    check=_check_broadcast,
    takes_parameter=True,
)


class Add(nn.Module):
    """The sum of two or more values of one shape; sizes of 1 stretch, and a `Parameter` over the batch."""

    rule = _ELEMENTWISE
    inline = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(add, inputs)


class Multiply(nn.Module):
    """The product, element by element, of two or more values; what stretches is as in `Add`."""

    rule = _ELEMENTWISE
    inline = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(mul, inputs)


# ---- side by side --------------------------------------------------------------------------------------------------


def _dim(inputs: Inputs, settings: Settings) -> int:
    dim = settings.get("dim")
    return main(inputs).channels_dim if dim is None else counted(dim, main(inputs))


def _check_concat(inputs: Inputs, settings: Settings) -> Finding | None:
    first = main(inputs)
    refused = _several(inputs) or (None if settings.get("dim") is None else refused_dim(settings["dim"], first))
    if refused:
        return refused
    if not first.has_batch:
        return Finding(
            Code.WRONG_LAYOUT,
            "only Parameters come in, and one value of a batch is wanted",
            "write one Parameter of the whole shape",
        )
    dim = _dim(inputs, settings)
    for each in inputs:
        if _others(each, dim) != _others(first, dim):
            found = f"{format_shape(first.shape)} and {format_shape(each.shape)} don't fit side by side along dim {dim}"
            return Finding(Code.SHAPE_MISMATCH, found, "all other sizes must be equal")
    return None


def _others(value: Value, dim: int) -> Shape:
    """Every size but the one along which values stand side by side."""
    return (*value.shape[: dim - 1], -1, *value.shape[dim:]) if dim <= len(value.shape) else value.shape


def _fill_concat(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """The dimension, and the ranks of those inputs that have no batch."""
    ranks = [None if each.has_batch else len(each.shape) for each in inputs]
    return {"dim": _dim(inputs, settings), "_ranks": ranks}


def _adds_steps(inputs: Inputs, settings: Settings) -> bool:
    return _dim(inputs, settings) == main(inputs).time_dim


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    if not _adds_steps(inputs, settings):
        return end_together(inputs)
    return all(each.lengths is None for each in inputs[:-1])  # padding stands at the end, and nowhere between


def _lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    """Steps put before a sample's own make it so much longer; what stands behind its padding is no part of it."""
    if not _adds_steps(inputs, settings):
        return main(inputs).lengths if agree(inputs) else None
    lengths = inputs[-1].lengths
    if lengths is None or not _keeps_lengths(inputs, settings):
        return None
    more = sum(each.shape[_dim(inputs, settings) - 1] for each in inputs[:-1])
    return Lengths(lengths.field, (*lengths.windows, Window(more + 1, padding=more)))


class Concat(nn.Module):
    """Two or more values side by side along `dim`, the channels' where it is left out; all other sizes are equal.

    A `Parameter` stands in every sample. Along the steps of a sequence those that come first make each sample longer.
    """

    rule = Rule(
        keeps_lengths=_keeps_lengths,
        lengths=_lengths,
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
