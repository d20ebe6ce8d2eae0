"""Mean, maximum and sum over dimensions of a sample, ignoring padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, roles_from_layout
from dlspec.parts.layers.dimensions import (
    check_dim,
    guesses_layout_from_dims,
    keeps_time,
    layout_from_dims,
    lengths_from_dims,
    normalize_dim,
)
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape


def _reduced_dims(inputs: Inputs, settings: Settings) -> list[int]:
    """The dimensions to reduce: `dim` if it is written, else all time and space dimensions."""
    value, written = inputs[0], settings.get("dim")
    if written is None:
        return [at for at, role in enumerate(roles_from_layout(value.layout, len(value.shape)), 1) if role in "TS"]
    return [normalize_dim(each, value) for each in (written if isinstance(written, list) else [written])]


def _check_reduction(inputs: Inputs, settings: Settings) -> Finding | None:
    written = settings.get("dim")
    if written is None:
        found = f"dim is not set, and {inputs[0]} has no time or space dimensions"
        neither = Finding(Code.WRONG_LAYOUT, found, "write dim: 1 for one number per sample")
        return None if _reduced_dims(inputs, settings) else neither
    listed = written if isinstance(written, list) else [written]
    if not listed:
        return Finding(
            Code.WRONG_DIMENSION, "dim is an empty list", "leave it out to reduce all time and space dimensions"
        )
    refused = (check_dim(each, inputs[0]) for each in listed)
    return next((each for each in refused if each is not None), None) or _check_duplicate_dims(
        _reduced_dims(inputs, settings)
    )


def _check_duplicate_dims(dims: list[int]) -> Finding | None:
    twice = next((each for each in dims if dims.count(each) > 1), None)
    if twice is None:
        return None
    return Finding(Code.WRONG_DIMENSION, f"dim {twice} is listed twice", "list each dimension once")


def _kept_dims(inputs: Inputs, settings: Settings) -> list[int]:
    """The dimensions that the output keeps, including those that are kept with size 1."""
    removed = [] if settings.get("keepdim") else _reduced_dims(inputs, settings)
    return [each for each in range(len(inputs[0].shape) + 1) if each not in removed]


def _output_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return inputs[0].layout if settings.get("keepdim") else layout_from_dims(inputs[0], _kept_dims(inputs, settings))


def _reduces_steps(inputs: Inputs, settings: Settings) -> bool:
    return inputs[0].time_dim in _reduced_dims(inputs, settings)


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    return _reduces_steps(inputs, settings) or keeps_time(inputs[0], _kept_dims(inputs, settings))


def _output_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return None if _reduces_steps(inputs, settings) else lengths_from_dims(inputs[0], _kept_dims(inputs, settings))


def _fill_settings(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    time = inputs[0].time_dim if _reduces_steps(inputs, settings) else None
    return {"dim": _reduced_dims(inputs, settings), "_time_dim": time, "_rank": len(inputs[0].shape) + 1}


class _Reduction(nn.Module):
    """Reduces `dim`, one dimension or a list; by default the steps of a sequence, and height and width of images.

    With `keepdim` the reduced dimensions are kept with size 1. Padding is ignored.
    """

    rule = Rule(
        gives=_output_layout,
        guesses=lambda inputs, shape, settings: guesses_layout_from_dims(inputs[0], _kept_dims(inputs, settings)),
        keeps_lengths=_keeps_lengths,
        lengths=_output_lengths,
        hides_steps=lambda inputs, shape, settings: (
            inputs[0].lengths is not None
            and not _reduces_steps(inputs, settings)
            and not _keeps_lengths(inputs, settings)
        ),
        check=_check_reduction,
        fill=_fill_settings,
    )
    inline = True
    lengths_of = {"lengths": 0}

    def __init__(
        self, dim: int | list[int] | None = None, keepdim: bool = False, _time_dim: int | None = 1, _rank: int = 3
    ) -> None:
        super().__init__()
        dim = 1 if dim is None else dim
        self.dim = (dim,) if isinstance(dim, int) else tuple(dim)
        self.keepdim, self._time_dim, self._rank = keepdim, _time_dim, _rank

    @property
    def needs_lengths(self) -> bool:
        """Whether the time dimension is reduced, so that padding has to be ignored."""
        return self._time_dim is not None

    def _fill_padding(self, input: Tensor, lengths: Tensor | None, value: float) -> Tensor:
        """Replace padding in the input by `value`."""
        if lengths is None or self._time_dim is None:
            return input
        is_real = make_step_mask(lengths, input.shape[self._time_dim], input.device)
        for _ in range(self._rank - 2):
            is_real = is_real.unsqueeze(-1)
        return input.masked_fill(~is_real.transpose(1, self._time_dim), value)

    def extra_repr(self) -> str:
        return f"dim={list(self.dim)}, keepdim={self.keepdim}"


class Mean(_Reduction):
    __doc__ = f"The mean over dimensions. {_Reduction.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None or self._time_dim is None:
            return input.mean(dim=self.dim, keepdim=self.keepdim)
        mean = self._fill_padding(input, lengths, 0.0).mean(dim=self.dim, keepdim=True)
        correction = input.shape[self._time_dim] / lengths.to(input.device).clamp(min=1)
        mean = mean * correction.to(input.dtype).reshape(-1, *[1] * (self._rank - 1))
        return mean if self.keepdim else mean.squeeze(self.dim)


class Max(_Reduction):
    __doc__ = f"The maximum over dimensions. {_Reduction.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._fill_padding(input, lengths, float("-inf")).amax(dim=self.dim, keepdim=self.keepdim)


class Sum(_Reduction):
    __doc__ = f"The sum over dimensions. {_Reduction.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._fill_padding(input, lengths, 0.0).sum(dim=self.dim, keepdim=self.keepdim)
