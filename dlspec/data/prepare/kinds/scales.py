"""How numbers are scaled: fitted on training values, applied in double precision, inverted for targets.

Scaling a value outside the training range is fine, except by quantiles, where it becomes the outermost value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error

Floats = NDArray[np.float64]
ScaleName = Literal["standard", "quantile", "log", "minmax", "none"]
MAX_KNOTS = 1_000  # of a quantile scale: scikit-learn's default number of quantiles
TAIL = 1e6  # how far the scale of a target goes on beyond the training values, in ranges of these


class Scale(ABC):
    """A fitted scale."""

    @abstractmethod
    def apply(self, values: Floats) -> Floats:
        """Scale values."""

    @abstractmethod
    def invert(self, values: Floats) -> Floats:
        """Convert scaled values back."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, with `kind`."""


@dataclass(frozen=True)
class LinearScale(Scale):
    """Subtracts `shift`, then divides by `divisor`. Arrays have one number for each column (W,)."""

    shift: Floats
    divisor: Floats

    def apply(self, values: Floats) -> Floats:
        with np.errstate(over="ignore"):
            scaled = np.asarray(values - self.shift)
            scaled /= self.divisor  # in place: a second array would cost as much time as the division
        return scaled

    def invert(self, values: Floats) -> Floats:
        return np.asarray(values * self.divisor + self.shift)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "linear", "shift": self.shift.tolist(), "divisor": self.divisor.tolist()}


@dataclass(frozen=True)
class LogScale(Scale):
    """Takes sign · log(1 + |value|), then scales that."""

    inner: LinearScale

    def apply(self, values: Floats) -> Floats:
        return self.inner.apply(compress(values))

    def invert(self, values: Floats) -> Floats:
        plain = self.inner.invert(values)
        return np.asarray(np.sign(plain) * np.expm1(np.abs(plain)))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "log", "inner": self.inner.to_json()}


@dataclass(frozen=True)
class QuantileScale(Scale):
    """Maps the training distribution to a normal one: quantiles to normal scores, linear between them."""

    quantiles: Floats  # (K,), ascending
    scores: Floats  # (K,), ascending

    def apply(self, values: Floats) -> Floats:
        return np.interp(values, self.quantiles, self.scores)

    def invert(self, values: Floats) -> Floats:
        return np.interp(values, self.scores, self.quantiles)

    def covers(self, values: Floats) -> NDArray[np.bool_]:
        """Return which values are between the outermost quantiles: `invert` gives the others back as these."""
        return np.asarray((values >= self.quantiles[0]) & (values <= self.quantiles[-1]))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "quantile", "quantiles": self.quantiles.tolist(), "scores": self.scores.tolist()}


def compress(values: Floats) -> Floats:
    """Return sign · log(1 + |value|)."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def round_to_float32(values: Floats) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Round scaled numbers (N, ...) to single precision.

    Returns:
        The numbers, 0 in place of one that is too large, and by row why it is wrong.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float32)
    infinite = ~np.isfinite(rounded)
    rows = np.flatnonzero(infinite.any(axis=tuple(range(1, values.ndim))))
    rounded[infinite] = 0
    return rounded, dict.fromkeys(rows.tolist(), "too far from the training rows: its scaled value is infinite")


def fit_scale(name: ScaleName, values: Floats) -> Scale:
    """Fit a scale to the rows of `values`, (N,) or (N, W), without NaN."""
    if name == "quantile":
        return _fit_quantiles(values)
    if name == "log":
        return LogScale(fit_standard(compress(values)))
    if name == "standard":
        return fit_standard(values)
    if name == "minmax":
        low, spread = values.min(axis=0), np.ptp(values, axis=0)
        return LinearScale(np.asarray(low), np.where(spread > 0, spread, 1.0))
    ones = np.ones(values.shape[1:])
    return LinearScale(np.zeros_like(ones), ones)


def fit_standard(values: Floats) -> LinearScale:
    """Fit mean and standard deviation. A constant column gets the deviation 1, so it is not divided."""
    mean = np.asarray(values.mean(axis=0, dtype=np.float64))
    std = np.asarray(values.std(axis=0, dtype=np.float64))
    # A constant such as 0.1 has a tiny deviation, because its mean is rounded.
    changes = std > 1e-12 * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
    return LinearScale(mean, np.where(changes, std, 1.0))


def _fit_quantiles(values: Floats) -> QuantileScale:
    """Fit normal scores of up to a thousand quantiles; equal quantiles get the score of their middle.

    The lowest and highest of n values are half a value from the ends of the distribution, at 1/2n and 1 - 1/2n.
    """
    count = len(values)
    levels = np.linspace(0, 1, min(MAX_KNOTS, count)) if count > 1 else np.array([0.5])
    quantiles = np.maximum.accumulate(np.quantile(values, levels))
    distinct, first, repeats = np.unique(quantiles, return_index=True, return_counts=True)
    middle = (levels[first] + levels[first + repeats - 1]) / 2
    share = np.clip(middle, 0.5 / count, 1 - 0.5 / count)
    normal = NormalDist()
    return QuantileScale(distinct, np.array([normal.inv_cdf(each) for each in share.tolist()]))


def extend_quantiles(scale: QuantileScale) -> QuantileScale:
    """Continue a quantile scale of two or more values beyond these, by its mean slope.

    Targets of validation and test rows then keep values that no training row has.
    """
    quantiles, scores = scale.quantiles, scale.scores
    width, height = TAIL * np.ptp(quantiles), TAIL * np.ptp(scores)
    return QuantileScale(
        np.concatenate([[quantiles[0] - width], quantiles, [quantiles[-1] + width]]),
        np.concatenate([[scores[0] - height], scores, [scores[-1] + height]]),
    )


def scale_from_json(saved: object) -> Scale:
    """Rebuild a scale from the result of `to_json`; DataError if that is damaged."""
    kind = saved.get("kind") if isinstance(saved, Mapping) else None
    if kind == "linear":
        return _read_linear(saved)
    if kind == "log":
        return LogScale(_read_linear(SavedValues(saved, ("inner",)).values["inner"]))
    if kind == "quantile":
        return _read_quantiles(saved)
    raise make_saved_error("a scale must be linear, log or quantile")


def single_scale_from_json(saved: object) -> Scale:
    """Rebuild the scale of a single column from the result of `to_json`; DataError if that is damaged."""
    scale = scale_from_json(saved)
    linear = scale.inner if isinstance(scale, LogScale) else scale
    if isinstance(linear, LinearScale) and linear.shift.ndim:
        raise make_saved_error("the scale must be of one column")
    return scale


def _read_linear(saved: object) -> LinearScale:
    values = SavedValues(saved, ("shift", "divisor"))
    if values.values["kind"] != "linear":
        raise make_saved_error("a log scale must contain a linear one")
    return make_linear(values, "shift", "divisor")


def make_linear(values: SavedValues, shift_key: str, divisor_key: str) -> LinearScale:
    """Make a linear scale of two saved numbers, or two lists of as many.

    Args:
        values: the saved values
        shift_key: key of what is subtracted
        divisor_key: key of what is divided by, which must be above 0

    Returns:
        The scale.
    """
    are_lists = [isinstance(values.values[key], list) for key in (shift_key, divisor_key)]
    read = values.get_numbers if any(are_lists) else values.get_number
    shift, divisor = (np.array(read(key)) for key in (shift_key, divisor_key))
    if shift.shape != divisor.shape or not (divisor > 0).all():
        raise make_saved_error(f"{shift_key} and {divisor_key} must be equally long, and {divisor_key} above 0")
    return LinearScale(shift, divisor)


def _read_quantiles(saved: object) -> QuantileScale:
    values = SavedValues(saved, ("quantiles", "scores"))
    quantiles, scores = (values.get_numbers(key, MAX_KNOTS + 2) for key in ("quantiles", "scores"))
    if not quantiles or len(quantiles) != len(scores):
        raise make_saved_error("quantiles and scores must be equally many")
    if any(low >= high for each in (quantiles, scores) for low, high in pairwise(each)):
        raise make_saved_error("quantiles and scores must rise")
    return QuantileScale(np.array(quantiles), np.array(scores))
