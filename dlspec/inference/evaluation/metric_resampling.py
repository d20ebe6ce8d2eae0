"""Metrics of resamples: computed again from the predictions of single samples, or from their summed statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dlspec.compat.torchmetrics import get_summed_state, set_summed_state
from dlspec.inference.evaluation.bootstrap import Indices, Numbers, count_draws

MAX_STATE_NUMBERS = 2**24  # of the statistics of all samples together: 128 MB
Metrics = Mapping[str, Any]


class MetricSamples(Protocol):
    """What is kept of single samples to compute the metrics of one target for resamples."""

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        """Add some samples.

        Args:
            tensors: predictions, true values and, where samples do not count equally, weights, as metrics take them
            rows_by_sample: how many rows of the tensors each sample has
        """

    def resample(self, draws: Sequence[Indices]) -> dict[str, Numbers]:
        """Compute each metric for each resample, by name."""


class KeptPredictions:
    """The predictions of samples with one row each. Metrics are computed from the rows of each resample."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._parts: list[Sequence[Tensor]] = []

    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        self._parts.append([each.cpu() for each in tensors])

    @torch.inference_mode()
    def resample(self, draws: Sequence[Indices]) -> dict[str, Numbers]:
        if not self._parts or not self._metrics:
            return {}
        tensors = [torch.cat(each) for each in zip(*self._parts, strict=True)]
        results = [self._compute([each[torch.from_numpy(rows)] for each in tensors]) for rows in draws]
        return {name: np.array([each[name] for each in results]) for name in self._metrics}

    def _compute(self, tensors: Sequence[Tensor]) -> dict[str, float]:
        found = {}
        for name, metric in self._metrics.items():
            metric.reset()
            metric.update(*tensors)
            found[name] = _compute_metric(metric)
        return found


class SummedStatistics:
    """The statistics of samples with several rows (steps, pixels), such as counts of hits, which resamples add up.

    Metrics whose statistics do not add up, such as the area under a curve, are left out.
    """

    def __init__(self, metrics: Metrics, samples: int) -> None:
        self._metrics = {
            name: each for name, each in metrics.items() if _count_numbers(each) * samples <= MAX_STATE_NUMBERS
        }
        self._states: dict[str, list[Numbers]] = {name: [] for name in self._metrics}

    @torch.inference_mode()
    def add(self, tensors: Sequence[Tensor], rows_by_sample: Indices) -> None:
        parts = zip(*(torch.split(each.cpu(), rows_by_sample.tolist()) for each in tensors), strict=True)
        for part in parts:
            for name, metric in self._metrics.items():
                self._states[name].append(_compute_state(metric, part))

    @torch.inference_mode()
    def resample(self, draws: Sequence[Indices]) -> dict[str, Numbers]:
        return {name: self._resample_metric(name, draws) for name, states in self._states.items() if states}

    def _resample_metric(self, name: str, draws: Sequence[Indices]) -> Numbers:
        metric, states = self._metrics[name], np.stack(self._states[name])
        metric.reset()
        found = []
        for sums in count_draws(draws, len(states)) @ states:
            _set_state(metric, sums)
            found.append(_compute_metric(metric))
        return np.array(found)


def make_metric_samples(metrics: Metrics, samples: int, *, has_one_row: bool) -> MetricSamples:
    """Choose what is kept of single samples.

    Args:
        metrics: the metrics of one target by name, which are reset and used
        samples: how many samples will be added
        has_one_row: whether each sample has one row, not one for each step or pixel
    """
    return KeptPredictions(metrics) if has_one_row else SummedStatistics(metrics, samples)


def _compute_metric(metric: Any) -> float:
    """Compute a metric; nan if it is not defined for these samples, as R2 of a single one isn't."""
    try:
        return float(metric.compute())
    except ValueError:
        return math.nan


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
