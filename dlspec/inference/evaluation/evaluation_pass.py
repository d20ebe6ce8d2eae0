"""One pass of a trained network over samples: its loss and metrics as training computes them, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from dlspec.data.dataset import Dataset, Split, Target
from dlspec.inference.evaluation.bootstrap import (
    MAX_SAMPLES,
    Indices,
    Interval,
    choose_samples,
    count_draws,
    draw_resamples,
    make_intervals,
    make_resampled,
)
from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.inference.evaluation.metric_resampling import MetricSamples, make_metric_samples
from dlspec.inference.evaluation.row_samples import count_rows, has_row_per_sample
from dlspec.inference.evaluation.sample_losses import SampleLosses, is_mean_of_samples
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.batch_factory import BatchFactory
from dlspec.training.components import Model, TrainingData
from dlspec.training.criterion_interface import CriterionProtocol, MetricGroups
from dlspec.training.evaluation.prediction_view import PredictionView, evaluation_mode
from dlspec.training.evaluation.scores import Scores
from dlspec.training.runtime.randomness import preserve_generators, seed_generators
from dlspec.training.step.compute_backend import ComputeBackend

ReportBatch = Callable[[int, int], None]  # called with the number of finished batches, and of all


class Observer(Protocol):
    """Collects something from the batches of a pass."""

    def add(self, batch: EvaluatedBatch) -> None:
        """Add a batch."""


@dataclass(frozen=True)
class Evaluator:
    """Evaluates samples with a run's network, in the batches and with the precision of its training.

    The network runs in eval mode, and draws from the run's seed if it draws at all.
    """

    model: Model
    data: TrainingData  # its description of the data counts, not its samples
    settings: TrainerSpec
    backend: ComputeBackend  # the precision and other settings of the computation
    report_batch: ReportBatch = field(default=lambda done, total: None, kw_only=True)

    @property
    def criterion(self) -> CriterionProtocol:
        """All loss terms."""
        return self.model.criterion

    @property
    def targets(self) -> list[tuple[Target, Target]]:
        """The predicted targets: with the shape that metrics see, and with the shape of a sample."""
        return [
            (each, self.data.dataset.get_loss_target(each.name) or each) for each in self.criterion.predicted_targets
        ]

    def make_batches(self) -> BatchFactory:
        """Make the factory of batches."""
        dtype = self.backend.precision.weights_dtype
        return BatchFactory(self.model, self.data, self.settings, self.backend.device, dtype)

    def make_metrics(self) -> MetricGroups:
        """Make new metrics for each target, on the CPU."""
        return self.model.make_metrics(torch.device("cpu"))

    def run(self, split: Split, observers: Sequence[Observer] = ()) -> dict[str, float]:
        """Run the network on all samples of a split.

        Returns:
            The mean loss and the metrics by name, as training computes them; empty for an empty split.
        """
        step = self.backend.make_evaluation_step(self.model.network)
        batches = self.make_batches().make_evaluation_batches(split)
        metrics = self.model.make_metrics(self.backend.device)
        scores = Scores(self.criterion, metrics, copies_outputs=self.backend.has_large_tensors)
        with (
            self.backend.apply_settings(self.settings.initial_batch_size),
            evaluation_mode(self.model.network),
            preserve_generators(),
        ):
            seed_generators(self.data.seed)
            for index, ((inputs, targets), size) in enumerate(
                zip(batches.iterate_in_order(), batches.sizes, strict=True)
            ):
                output, loss = step(inputs, targets)
                scores.add(output, loss, targets, size)
                for observer in observers:
                    observer.add(EvaluatedBatch(output, targets, size))
                self.report_batch(index + 1, len(batches))
            return scores.results()

    def make_view(self, split: Split, rows_name: str) -> PredictionView:
        """Make a view of the predictions for a split, to draw pictures of them; `rows_name` names its samples."""
        dataset: Dataset = replace(self.data.dataset, test=split)
        batches = self.make_batches().make_evaluation_batches
        inputs = tuple(self.model.inputs)
        return PredictionView("test", self.model.network, self.criterion, dataset, inputs, batches, rows_name)


@dataclass(frozen=True)
class BootstrapPlan:
    """How often and from how many samples intervals are computed."""

    resamples: int
    seed: int = 0
    max_samples: int = MAX_SAMPLES


class SampleCollector:
    """Collects from the batches of a pass what bootstrap intervals need of each chosen sample."""

    def __init__(self, evaluator: Evaluator, count: int, plan: BootstrapPlan) -> None:
        self._criterion, self._plan = evaluator.criterion, plan
        self._chosen = torch.from_numpy(choose_samples(count, plan.max_samples, plan.seed))
        self._seen = 0
        self._losses = SampleLosses(evaluator.criterion)
        metrics = evaluator.make_metrics()
        self._groups: list[tuple[Target, bool, MetricSamples]] = []
        for (predicted, target), group in zip(evaluator.targets, metrics, strict=True) if metrics else ():
            has_one_row = has_row_per_sample(predicted, target)
            samples = make_metric_samples(group, len(self._chosen), has_one_row=has_one_row)
            self._groups.append((predicted, has_one_row, samples))

    def add(self, batch: EvaluatedBatch) -> None:
        """Add the chosen samples of a batch."""
        rows = self._chosen[(self._chosen >= self._seen) & (self._chosen < self._seen + batch.count)] - self._seen
        self._seen += batch.count
        if not len(rows):
            return
        if len(rows) < batch.count:
            batch = batch.select(rows)
        self._losses.add(batch)
        if self._groups:
            self._add_metric_samples(batch)

    def _add_metric_samples(self, batch: EvaluatedBatch) -> None:
        pairs = self._criterion.make_metric_pairs(batch.output, batch.targets)
        for (predicted, has_one_row, samples), tensors in zip(self._groups, pairs, strict=True):
            counts = np.ones(batch.count, np.int64)
            if not has_one_row:
                counts = count_rows(self._criterion, batch, predicted)
            samples.add(tensors, counts)

    def make_intervals(self, values: dict[str, float], loss_names: Sequence[str]) -> dict[str, Interval]:
        """Make the interval of each result of the pass."""
        count = int((self._chosen < self._seen).sum())
        if not count:
            return make_intervals(values, {})
        draws: list[Indices] = [np.arange(count), *draw_resamples(count, self._plan.resamples, self._plan.seed)]
        losses = self._losses.resample(loss_names, count_draws(draws, count))
        results = {
            name: make_resampled(each) for name, each in losses.items() if is_mean_of_samples(values[name], each)
        }
        for _, _, samples in self._groups:
            results |= samples.resample(draws)
        return make_intervals(values, results, count / self._seen)


def evaluate_samples(
    evaluator: Evaluator, split: Split, plan: BootstrapPlan, observers: Sequence[Observer] = ()
) -> dict[str, Interval]:
    """Evaluate the samples of a split.

    Args:
        evaluator: the run's network with its loss and metrics
        split: the samples
        plan: how intervals are computed
        observers: collect more from the batches of the pass

    Returns:
        The loss and the metrics by name, each with its bootstrap interval.
    """
    if not plan.resamples:
        return make_intervals(evaluator.run(split, observers), {})
    collector = SampleCollector(evaluator, len(split), plan)
    values = evaluator.run(split, [collector, *observers])
    names = ["loss", *(f"loss_{name}" for name in evaluator.criterion.term_names)]
    return collector.make_intervals(values, names)
