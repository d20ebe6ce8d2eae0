"""PyTorch's softmax functions, which leave padding out where they work over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlspec.parts.layers.padding import make_padding_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings


def _fill_settings(inputs: Inputs, settings: Settings) -> Mapping[str, Any]:
    """Choose the channels as the dimension; PyTorch would choose it by the number of dimensions."""
    value, written = inputs[0], settings.get("dim")
    dim = (1 if value.layout in ("features", "channels-first") else -1) if written is None else written
    return {"dim": dim, "_works_on_time": dim % (len(value.shape) + 1) == value.time_dim}


class _SoftmaxWithLengths(nn.Module):
    """Base of the softmax functions; where they work over time, padding is left out and gets the value 0."""

    rule = Rule(keeps_lengths=lambda inputs, settings: True, fill=_fill_settings)
    lengths_of = {"lengths": 0}
    takes_unneeded_lengths = False
    dim: int | None
    _excluded_value = float("-inf")  # what padding is replaced by before the function

    def __init__(self, dim: int | None = None, _works_on_time: bool = False) -> None:
        super().__init__(dim)
        self._works_on_time = _works_on_time

    @property
    def needs_lengths(self) -> bool:
        """Whether the function works over time, so that padding has to be left out."""
        return self._works_on_time

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Apply the function along `dim`; `lengths` (N,) are the real steps of each sample, None if all are real."""
        if lengths is None:
            return super().forward(input)  # type: ignore[no-any-return]
        is_padding = make_padding_mask(input, lengths, (self.dim or 0) % input.dim())
        result: Tensor = super().forward(input.masked_fill(is_padding, self._excluded_value))
        return result.masked_fill(is_padding, 0)


class Softmax(_SoftmaxWithLengths, nn.Softmax):
    """`torch.nn.Softmax`, by default over the channels; over time it leaves padding out."""


class LogSoftmax(_SoftmaxWithLengths, nn.LogSoftmax):
    """`torch.nn.LogSoftmax`, by default over the channels; over time it leaves padding out."""


class Softmin(_SoftmaxWithLengths, nn.Softmin):
    """`torch.nn.Softmin`, by default over the channels; over time it leaves padding out."""

    _excluded_value = float("inf")
