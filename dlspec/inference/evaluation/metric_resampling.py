"""Metrics of resamples: computed again from the predictions of single samples, or from their summed statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dlspec.compat.torchmetrics import get_summed_state, set_summed_state
from dlspec.inference.evaluation.bootstrap import (
    Indices,
    Numbers,
    Resampled,
    count_draws,
    draw_resamples,
    make_resampled,
)
from dlspec.training.evaluation.scores import compute_metric

MAX_STATE_NUMBERS = 2**24  # of the statistics of all samples together: 128 MB
MAX_KEPT_NUMBERS = 2**16  # of samples with several rows: 200 areas under a curve of these take some seconds
MIN_KEPT_SAMPLES = 10  # fewer say nothing about how others would vary
Metrics = Mapping[str, Any]


class MetricSamples(Protocol):
    """What is kept of single samples to compute the metrics of one target for resamples."""

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        """Add some samples.

        Args:
            tensors: predictions, true values and, where samples do not count equally, weights, as metrics take them
            rows_by_sample: how many rows of the tensors each sample has
        """

    def resample(self, draws: Sequence[Indices]) -> dict[str, Resampled]:
        """Compute each metric, by name, for each resample; the first contains every sample once."""


class KeptPredictions:
    """The predictions of samples with one row each. Metrics are computed from the rows of each resample."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._parts: list[Sequence[Tensor]] = []

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        self._parts.append([each.cpu() for each in tensors])

    @torch.inference_mode()
    def resample(self, draws: Sequence[Indices]) -> dict[str, Resampled]:
        if not self._parts or not self._metrics:
            return {}
        tensors = [torch.cat(each) for each in zip(*self._parts, strict=True)]
        results = [_compute_metrics(self._metrics, tensors, torch.from_numpy(rows)) for rows in draws]
        return _join_results(results)


class KeptSamples:
    """The predictions of samples with several rows (steps, pixels), for metrics whose statistics do not add up.

    Resamples consist of whole samples. If they have too many numbers, every second one is dropped, again and again.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._samples: list[Sequence[Tensor]] = []
        self._distance = 1  # between samples that are kept
        self._seen = self._numbers = 0

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        if not self._metrics:
            return
        for sample in _split_samples(tensors, rows_by_sample):
            if self._seen % self._distance == 0:
                self._samples.append([each.clone() for each in sample])
                self._numbers += _count_kept(sample)
            self._seen += 1
            while self._numbers > MAX_KEPT_NUMBERS and len(self._samples) > 1:
                self._samples, self._distance = self._samples[::2], 2 * self._distance
                self._numbers = sum(map(_count_kept, self._samples))

    @torch.inference_mode()
    def resample(self, draws: Sequence[Indices]) -> dict[str, Resampled]:
        count = len(self._samples)
        if count < MIN_KEPT_SAMPLES:
            return {}
        if count < self._seen:
            draws = [np.arange(count), *draw_resamples(count, len(draws) - 1, seed=0)]
        tensors = [torch.cat(each) for each in zip(*self._samples, strict=True)]
        rows = torch.split(torch.arange(len(tensors[1])), [len(each[1]) for each in self._samples])
        results = [_compute_metrics(self._metrics, tensors, torch.cat([rows[each] for each in draw])) for draw in draws]
        return _join_results(results, count / self._seen)


def _split_samples(tensors: Sequence[Tensor], rows_by_sample: Indices) -> Iterator[tuple[Tensor, ...]]:
    """Divide rows into those of each sample."""
    return zip(*(torch.split(each.cpu(), rows_by_sample.tolist()) for each in tensors), strict=True)


def _count_kept(sample: Sequence[Tensor]) -> int:
    return sum(each.numel() for each in sample)


def _compute_metrics(metrics: Metrics, tensors: Sequence[Tensor], rows: Tensor) -> dict[str, float]:
    """Compute metrics of some rows."""
    chosen, found = [each[rows] for each in tensors], {}
    for name, metric in metrics.items():
        metric.reset()
        metric.update(*chosen)
        found[name] = compute_metric(metric)
    return found


def _join_results(results: Sequence[Mapping[str, float]], share: float = 1.0) -> dict[str, Resampled]:
    return {name: make_resampled(np.array([each[name] for each in results]), share) for name in results[0]}


class SummedStatistics:
    """The statistics of samples with several rows (steps, pixels), such as counts of hits, which resamples add up."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._states: dict[str, list[Numbers]] = {name: [] for name in metrics}

    @torch.inference_mode()
    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        for part in _split_samples(tensors, rows_by_sample):
            for name, metric in self._metrics.items():
                self._states[name].append(_compute_state(metric, part))

    @torch.inference_mode()
    def resample(self, draws: Sequence[Indices]) -> dict[str, Resampled]:
        return {
            name: make_resampled(self._resample_metric(name, draws)) for name, states in self._states.items() if states
        }

    def _resample_metric(self, name: str, draws: Sequence[Indices]) -> Numbers:
        metric, states = self._metrics[name], np.stack(self._states[name])
        metric.reset()
        found = []
        for sums in count_draws(draws, len(states)) @ states:
            _set_state(metric, sums)
            found.append(compute_metric(metric))
        return np.array(found)


@dataclass(frozen=True)
class JoinedSamples:
    """What is kept for different metrics of one target."""

    parts: Sequence[MetricSamples]

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        for each in self.parts:
            each.add(tensors, rows_by_sample)

    def resample(self, draws: Sequence[Indices]) -> dict[str, Resampled]:
        return {name: found for each in self.parts for name, found in each.resample(draws).items()}


def make_metric_samples(metrics: Metrics, samples: int, *, has_one_row: bool) -> MetricSamples:
    """Choose what is kept of single samples.

    Args:
        metrics: the metrics of one target by name, which are reset and used
        samples: how many samples will be added
        has_one_row: whether each sample has one row, not one for each step or pixel
    """
    if has_one_row:
        return KeptPredictions(metrics)
    summed = {name: each for name, each in metrics.items() if _count_numbers(each) * samples <= MAX_STATE_NUMBERS}
    kept = {name: each for name, each in metrics.items() if name not in summed}
    return JoinedSamples((SummedStatistics(summed), KeptSamples(kept)))


def _count_numbers(metric: Any) -> float:
    """Count the numbers of a metric's state; infinite if its states do not add up."""
    state = get_summed_state(metric)
    return np.inf if state is None else sum(each.numel() for each in state.values())


def _compute_state(metric: Any, tensors: Sequence[Tensor]) -> Numbers:
    """Compute the state of a metric after one sample, as one vector."""
    metric.reset()
    if len(tensors[0]):  # a sample may consist of padding only
        metric.update(*tensors)
    state = get_summed_state(metric) or {}
    return np.concatenate([np.ravel(each.double().numpy()) for each in state.values()])


def _set_state(metric: Any, numbers: Numbers) -> None:
    """Set the state of a metric to a sum of the vectors that `_compute_state` returned."""
    start, state = 0, {}
    for name, each in (get_summed_state(metric) or {}).items():
        end = start + each.numel()
        state[name] = torch.from_numpy(numbers[start:end]).to(each.dtype).reshape(each.shape)
        start = end
    set_summed_state(metric, state)
