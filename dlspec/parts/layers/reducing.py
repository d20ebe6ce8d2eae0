"""Mean, maximum and sum over dimensions of a sample; padding takes no part in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, roles
from dlspec.parts.layers.dims import counted, keeps_time, kept_lengths, moved, refused_dim
from dlspec.parts.layers.padding import real_steps
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape


def _dims(inputs: Inputs, settings: Settings) -> list[int]:
    """What is reduced: what was written, else the steps of a sequence and all space."""
    value, written = inputs[0], settings.get("dim")
    if written is None:
        return [at for at, role in enumerate(roles(value.layout, len(value.shape)), 1) if role in "TS"]
    return [counted(each, value) for each in (written if isinstance(written, list) else [written])]


def _check(inputs: Inputs, settings: Settings) -> Finding | None:
    written = settings.get("dim")
    if written is None:
        found = f"dim is left out, and {inputs[0]} has neither steps nor space"
        neither = Finding(Code.WRONG_LAYOUT, found, "write dim: 1 for one number a sample")
        return None if _dims(inputs, settings) else neither
    listed = written if isinstance(written, list) else [written]
    if not listed:
        return Finding(Code.WRONG_DIMENSION, "dim is an empty list", "leave it out for the steps or the space")
    refused = (refused_dim(each, inputs[0]) for each in listed)
    return next((each for each in refused if each is not None), None) or _twice(_dims(inputs, settings))


def _twice(dims: list[int]) -> Finding | None:
    twice = next((each for each in dims if dims.count(each) > 1), None)
    if twice is None:
        return None
    return Finding(Code.WRONG_DIMENSION, f"dim {twice} is named twice", "name each dimension once")


def _others(inputs: Inputs, settings: Settings) -> list[int]:
    """The dimensions that the output has; one that is kept at size 1 is still there."""
    gone = [] if settings.get("keepdim") else _dims(inputs, settings)
    return [each for each in range(len(inputs[0].shape) + 1) if each not in gone]


def _gives(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return inputs[0].layout if settings.get("keepdim") else moved(inputs[0], _others(inputs, settings))


def _is_over_steps(inputs: Inputs, settings: Settings) -> bool:
    return inputs[0].time_dim in _dims(inputs, settings)


def _keeps_lengths(inputs: Inputs, settings: Settings) -> bool:
    return _is_over_steps(inputs, settings) or keeps_time(inputs[0], _others(inputs, settings))


def _lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return None if _is_over_steps(inputs, settings) else kept_lengths(inputs[0], _others(inputs, settings))


def _fill(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    time = inputs[0].time_dim if _is_over_steps(inputs, settings) else None
    return {"dim": _dims(inputs, settings), "_time_dim": time, "_rank": len(inputs[0].shape) + 1}


class _Reducing(nn.Module):
    """Over `dim`, a dimension or several; left out, over a sequence's steps, and over all space of images.

    With `keepdim` the dimensions stay, of size 1. Over the steps each sample's own alone count.
    """

    rule = Rule(gives=_gives, keeps_lengths=_keeps_lengths, lengths=_lengths, check=_check, fill=_fill)
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
        return self._time_dim is not None

    def _without_padding(self, input: Tensor, lengths: Tensor | None, value: float) -> Tensor:
        """The input with `value` in place of padding."""
        if lengths is None or self._time_dim is None:
            return input
        real = real_steps(lengths, input.shape[self._time_dim], input.device)
        for _ in range(self._rank - 2):
            real = real.unsqueeze(-1)
        return input.masked_fill(~real.transpose(1, self._time_dim), value)

    def extra_repr(self) -> str:
        return f"dim={list(self.dim)}, keepdim={self.keepdim}"


class Mean(_Reducing):
    __doc__ = f"The mean. {_Reducing.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None or self._time_dim is None:
            return input.mean(dim=self.dim, keepdim=self.keepdim)
        mean = self._without_padding(input, lengths, 0.0).mean(dim=self.dim, keepdim=True)
        share = input.shape[self._time_dim] / lengths.to(input.device).clamp(min=1)
        mean = mean * share.to(input.dtype).reshape(-1, *[1] * (self._rank - 1))
        return mean if self.keepdim else mean.squeeze(self.dim)


class Max(_Reducing):
    __doc__ = f"The greatest number. {_Reducing.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._without_padding(input, lengths, float("-inf")).amax(dim=self.dim, keepdim=self.keepdim)


class Sum(_Reducing):
    __doc__ = f"The sum. {_Reducing.__doc__}"

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._without_padding(input, lengths, 0.0).sum(dim=self.dim, keepdim=self.keepdim)
