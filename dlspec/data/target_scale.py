"""How the numbers of a target were scaled, so that results are reported in the target's own unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlspec.data.prepare.kinds.saved_values import make_saved_error
from dlspec.data.prepare.kinds.scales import LinearScale, LogScale, QuantileScale, Scale, scale_from_json

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TargetScale:
    """How numbers were scaled before training: minus `shift`, divided by `divisor`.

    With `is_log`, the logarithm sign · log(1 + |number|) was scaled so. With `quantiles`, numbers were mapped to
    `scores` instead, linear between them.
    """

    shift: tuple[float, ...] = (0.0,)  # one for all numbers, or one for each number of a vector or each channel
    divisor: tuple[float, ...] = (1.0,)  # as many
    is_log: bool = False
    quantiles: tuple[float, ...] = ()  # ascending
    scores: tuple[float, ...] = ()  # as many, ascending

    @classmethod
    def from_scale(cls, scale: Scale) -> TargetScale | None:
        """Convert a fitted scale; None for numbers that were left as they are."""
        if isinstance(scale, QuantileScale):
            return cls(quantiles=tuple(scale.quantiles.tolist()), scores=tuple(scale.scores.tolist()))
        linear = scale.inner if isinstance(scale, LogScale) else scale
        assert isinstance(linear, LinearScale)
        shift, divisor = (tuple(each.reshape(-1).tolist()) for each in (linear.shift, linear.divisor))
        is_log = isinstance(scale, LogScale)
        return None if not is_log and not any(shift) and set(divisor) == {1.0} else cls(shift, divisor, is_log)

    @property
    def mean_and_deviation(self) -> tuple[float, float] | None:
        """What was subtracted and divided by, where these are two numbers and nothing else was done."""
        if self.is_log or self.quantiles or len(self.shift) > 1:
            return None
        return self.shift[0], self.divisor[0]

    def apply(self, values: Tensor) -> Tensor:
        """Scale numbers (N, ...) in their own unit: undo `invert`."""
        if self.quantiles:
            return _interpolate(values, self.quantiles, self.scores)
        shift, divisor = (self._spread(each, values) for each in (self.shift, self.divisor))
        return ((values.sign() * values.abs().log1p() if self.is_log else values) - shift) / divisor

    def invert(self, values: Tensor) -> Tensor:
        """Convert scaled numbers (N, ...) of a batch to their own unit."""
        if self.quantiles:
            return _interpolate(values, self.scores, self.quantiles)
        shift, divisor = (self._spread(each, values) for each in (self.shift, self.divisor))
        linear = values * divisor + shift
        return linear.sign() * linear.abs().expm1() if self.is_log else linear

    def _spread(self, numbers: tuple[float, ...], values: Tensor) -> Tensor | float:
        """Return one number, or a tensor that fits the last dimension, of images (N, C, H, W) the channels."""
        if len(numbers) == 1:
            return numbers[0]
        spread = values.new_tensor(numbers)
        return spread[:, None, None] if values.dim() == 4 else spread

    def to_json(self) -> Any:
        """Convert to JSON values: mean and deviation where there is nothing else, or a mapping as `Scale.to_json`."""
        if self.mean_and_deviation is not None:
            return list(self.mean_and_deviation)
        if self.quantiles:
            return {"kind": "quantile", "quantiles": list(self.quantiles), "scores": list(self.scores)}
        is_single = len(self.shift) == 1
        shift, divisor = (each[0] if is_single else list(each) for each in (self.shift, self.divisor))
        linear = {"kind": "linear", "shift": shift, "divisor": divisor}
        return {"kind": "log", "inner": linear} if self.is_log else linear

    @classmethod
    def from_json(cls, saved: object) -> TargetScale | None:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        if isinstance(saved, list):
            if len(saved) != 2:
                raise make_saved_error("the scale of a target must be a mean and a deviation")
            saved = {"kind": "linear", "shift": saved[0], "divisor": saved[1]}
        if not isinstance(saved, Mapping):
            raise make_saved_error("the scale of a target must be a list or a mapping")
        return cls.from_scale(scale_from_json(saved))


def _interpolate(values: Tensor, knots: tuple[float, ...], results: tuple[float, ...]) -> Tensor:
    """Interpolate linearly between knots, as `numpy.interp` does, in double precision."""
    import torch

    numbers = values.float() if values.device.type == "mps" else values.double()  # MPS has no float64
    given, wanted = numbers.new_tensor(knots), numbers.new_tensor(results)
    inside = numbers.clamp(given[0], given[-1]).contiguous()
    above = torch.searchsorted(given, inside, right=True).clamp(1, len(given) - 1)
    low, high = given[above - 1], given[above]
    share = (inside - low) / (high - low)
    return (wanted[above - 1] + share * (wanted[above] - wanted[above - 1])).to(values.dtype)
