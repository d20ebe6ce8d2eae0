"""Bootstrap intervals: how much a result would vary with other samples of the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import UserError, format_value

MAX_SAMPLES = 10_000  # of a split, drawn by seed: more make the interval no better and the resampling slow
DEFAULT_RESAMPLES = 200
MAX_RESAMPLES = 100_000  # more take hours and change no digit
LEVEL = 0.95  # of the samples' results lie within the interval

Indices = NDArray[np.int64]
Numbers = NDArray[np.float64]


def check_resamples(count: int) -> None:
    """Raise UserError if intervals can't be computed from so many resamples."""
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or not 0 <= count <= MAX_RESAMPLES:
        found = f"resamples must be a whole number from 0 to {MAX_RESAMPLES:,}, got {format_value(count)}"
        raise UserError(f"{found}; 0 computes no intervals")


@dataclass(frozen=True)
class Interval:
    """A result with the interval in which it lies for most resamples; None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Convert to JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


Intervals = dict[str, Interval]


def choose_samples(count: int, at_most: int, seed: int) -> Indices:
    """Draw some samples, in their order.

    Args:
        count: the number of samples
        at_most: how many to draw at most
        seed: seed of the draw

    Returns:
        The indices of the drawn samples.
    """
    if count <= at_most:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 0]).choice(count, at_most, replace=False))


def draw_resamples(count: int, resamples: int, seed: int) -> list[Indices]:
    """Draw as many samples as there are, with replacement, several times.

    Args:
        count: the number of samples
        resamples: how many times
        seed: seed of the draws

    Returns:
        The indices of each resample (count,).
    """
    generator = np.random.default_rng([seed, 1])
    return [generator.integers(0, count, count) for _ in range(resamples)]


def count_draws(draws: Sequence[Indices], count: int) -> Numbers:
    """Count how often each resample contains each sample: (resamples, count)."""
    return np.array([np.bincount(each, minlength=count) for each in draws], np.float64).reshape(len(draws), count)


@dataclass(frozen=True)
class Resampled:
    """A result of resamples of some drawn samples."""

    results: Numbers  # (resamples,)
    own: float  # the result of the drawn samples themselves
    share: float = 1.0  # the fraction of the drawn samples that it was computed from


def make_resampled(results: Numbers, share: float = 1.0) -> Resampled:
    """Make the result of resamples of which the first is the samples themselves.

    Args:
        results: the result of each (1 + resamples,)
        share: the fraction of the drawn samples that it was computed from
    """
    return Resampled(results[1:], float(results[0]), share)


def make_intervals(values: Mapping[str, float], resampled: Mapping[str, Resampled], share: float = 1.0) -> Intervals:
    """Make the percentile interval of each result.

    If only some of the samples were drawn, the interval of their result is moved to the result of all samples, and
    narrowed: it shrinks with the root of the number of samples.

    Args:
        values: the results of all samples by name
        resampled: by name, the results of resamples; a result may be missing, and has no interval then
        share: the fraction of the samples that were drawn
    """
    return {name: _make_interval(value, resampled.get(name), share) for name, value in values.items()}


def _make_interval(value: float, resampled: Resampled | None, share: float) -> Interval:
    if resampled is None or not np.isfinite([value, resampled.own]).all():
        return Interval(value)
    finite = resampled.results[np.isfinite(resampled.results)]
    if not len(finite):
        return Interval(value)
    share *= resampled.share
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if share < 1:
        low, high = (value + (each - resampled.own) * np.sqrt(share) for each in (low, high))
    return Interval(value, float(low), float(high))
