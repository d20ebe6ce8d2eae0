"""Layers that change the shape of their input: `Reshape`, `Permute` and `Select`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import Lengths
from dlspec.parts.layers.dimensions import (
    check_dim,
    guesses_layout_from_dims,
    guesses_reshaped_layout,
    keeps_time,
    layout_after_selection,
    layout_from_dims,
    lengths_from_dims,
    normalize_dim,
    roles_after_reshape,
    roles_from_dims,
)
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape

# ---- Reshape -------------------------------------------------------------------------------------------------------


def _check_reshape(inputs: Inputs, settings: Settings) -> Finding | None:
    shape, numbers = settings["shape"], math.prod(inputs[0].shape)
    if shape.count(-1) > 1:
        return Finding(
            Code.WRONG_VALUE,
            f"shape is {shape}, which contains -1 more than once",
            "use -1 for at most one size",
        )
    if 0 in shape:
        return Finding(
            Code.WRONG_VALUE,
            f"shape is {shape}, but sizes must be positive or -1",
            "leave out the batch, and use -1 for one unknown size",
        )
    known = math.prod(each for each in shape if each != -1)
    if (numbers % known if -1 in shape else numbers != known) == 0:
        return None
    fix = (
        "leave out the batch: shape is that of one sample"
        if shape[:1] == [-1]
        else "use -1 for one size to have it inferred"
    )
    return Finding(Code.SHAPE_MISMATCH, f"shape is {shape}, but {inputs[0]} has {numbers} numbers per sample", fix)


class Reshape(nn.Module):
    """Reshape each sample. `shape` leaves out the batch; one size may be -1 and is then inferred."""

    rule = Rule(
        gives=lambda inputs, shape, settings: layout_after_selection(roles_after_reshape(inputs[0], shape)),
        guesses=lambda inputs, shape, settings: guesses_reshaped_layout(inputs[0], shape),
        check=_check_reshape,
        roles=lambda inputs, shape, settings: roles_after_reshape(inputs[0], shape),
    )
    inline = True

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape(input.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return f"shape={list(self.shape)}"


# ---- Permute -------------------------------------------------------------------------------------------------------


def _check_permute(inputs: Inputs, settings: Settings) -> Finding | None:
    dims, rank = settings["dims"], len(inputs[0].shape) + 1
    if sorted(dims) == list(range(rank)) and dims[0] == 0:
        return None
    if sorted(dims) == list(range(rank)):
        return Finding(
            Code.SAMPLES_MIXED,
            f"dims are {dims}, which moves the batch; samples must not be mixed",
            "put 0, the batch, first",
        )
    if sorted(dims) == list(range(1, rank)):
        return Finding(Code.WRONG_DIMENSION, f"dims are {dims}, without the batch", f"write Permute: {[0, *dims]}")
    expected = f"each of 0 to {rank - 1} once, 0 (the batch) first"
    return Finding(Code.WRONG_DIMENSION, f"dims are {dims}, which does not fit {inputs[0]}", f"write {expected}")


class Permute(nn.Module):
    """Reorder the dimensions. `dims` lists all of them, starting with 0, the batch.

    Each dimension keeps its role: `[0, 2, 1]` turns a sequence into channels-first, and back.
    """

    rule = Rule(
        gives=lambda inputs, shape, settings: layout_from_dims(inputs[0], settings["dims"]),
        keeps_lengths=lambda inputs, settings: keeps_time(inputs[0], settings["dims"]),
        lengths=lambda inputs, shape, settings: lengths_from_dims(inputs[0], settings["dims"]),
        check=_check_permute,
        roles=lambda inputs, shape, settings: roles_from_dims(inputs[0], settings["dims"]),
    )
    inline = True

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(self.dims)

    def extra_repr(self) -> str:
        return f"dims={list(self.dims)}"


# ---- Select --------------------------------------------------------------------------------------------------------


def _selected_dim(inputs: Inputs, settings: Settings) -> int:
    dim = settings.get("dim")
    return (inputs[0].time_dim or 1) if dim is None else normalize_dim(dim, inputs[0])


def _kept_dims(inputs: Inputs, settings: Settings) -> list[int]:
    return [each for each in range(len(inputs[0].shape) + 1) if each != _selected_dim(inputs, settings)]


def _check_select(inputs: Inputs, settings: Settings) -> Finding | None:
    refused = None if settings.get("dim") is None else check_dim(settings["dim"], inputs[0])
    if refused:
        return refused
    if not inputs[0].shape:
        found = f"{inputs[0]} is one number for each sample, without a dimension to select from"
        return Finding(Code.WRONG_DIMENSION, found, "select from an output before its dimensions were reduced")
    dim, index = _selected_dim(inputs, settings), settings["index"]
    size = inputs[0].shape[dim - 1]
    if -size <= index < size:
        return None
    return Finding(
        Code.SHAPE_MISMATCH,
        f"index is {index}, but dim {dim} of {inputs[0]} has size {size}",
        f"use an index from {-size} to {size - 1}",
    )


def _select_keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    """Over time, only the first step and steps counted from a sample's end are always real steps."""
    if _selected_dim(inputs, settings) == inputs[0].time_dim:
        return bool(settings["index"] <= 0)
    return keeps_time(inputs[0], _kept_dims(inputs, settings))


def _lengths_after_select(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return lengths_from_dims(inputs[0], _kept_dims(inputs, settings))


class Select(nn.Module):
    """Select one index of a dimension and remove that dimension. By default `dim` is time, else 1.

    Over time, a negative `index` counts from the end of each sample: -1 is its last real step.
    """

    rule = Rule(
        gives=lambda inputs, shape, settings: layout_from_dims(inputs[0], _kept_dims(inputs, settings)),
        guesses=lambda inputs, shape, settings: guesses_layout_from_dims(inputs[0], _kept_dims(inputs, settings)),
        keeps_lengths=_select_keeps_lengths,
        lengths=_lengths_after_select,
        hides_steps=lambda inputs, shape, settings: (
            inputs[0].lengths is not None
            and _selected_dim(inputs, settings) != inputs[0].time_dim
            and not keeps_time(inputs[0], _kept_dims(inputs, settings))
        ),
        check=_check_select,
        fill=lambda inputs, settings: {
            "dim": _selected_dim(inputs, settings),
            "_rank": len(inputs[0].shape) + 1,
            "_over_steps": _selected_dim(inputs, settings) == inputs[0].time_dim,
        },
    )
    inline = True
    lengths_of = {"lengths": 0}

    def __init__(self, index: int, dim: int | None = None, _rank: int = 3, _over_steps: bool = True) -> None:
        super().__init__()
        self.index, self.dim = index, 1 if dim is None else dim
        self._rank, self._over_steps = _rank, _over_steps

    @property
    def needs_lengths(self) -> bool:
        """Whether the index counts from the end of each sample."""
        return self._over_steps and self.index < 0

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None or self.index >= 0 or not self._over_steps:
            return input.select(self.dim, self.index)
        at = (lengths.to(input.device) + self.index).clamp(min=0)
        at = at.reshape(-1, *[1] * (self._rank - 1))
        return torch.take_along_dim(input, at, dim=self.dim).squeeze(self.dim)

    def extra_repr(self) -> str:
        return f"index={self.index}, dim={self.dim}"
