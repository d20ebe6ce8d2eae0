"""Make a run's training and evaluation steps, and the actions after each update."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Optimization
from dlspec.training.distributed import ProcessGroup
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.state import TrainingState
from dlspec.training.step.compute_backend import ComputeBackend
from dlspec.training.step.step_functions import GradientAccumulation, Step, compute_batch_weights

MAX_WEIGHED_SAMPLES = 4096  # at a time: the windows of a text overlap, and a copy of all of them could be large


@dataclass(frozen=True)
class StepFactory:
    """Makes new steps for each epoch or pass over a split, so that the loop itself has no branches for settings."""

    state: TrainingState
    backend: ComputeBackend
    optimization: Optimization
    guard: NanGuard
    settings: TrainerSpec
    seed: int  # of the order of the batches
    group: ProcessGroup = field(default_factory=ProcessGroup)

    def make_training_step(self, batches: BatchLoader) -> Step:
        """Make the step that trains on one batch of the state's epoch; `batches` are those of the training split."""
        state, accumulate = self.state, self.settings.accumulate
        accumulation = None
        if accumulate > 1 or self.group.is_parallel:
            sample_weights = self._compute_sample_weights(batches)
            if sample_weights is not None:
                order = batches.shuffle_samples(self.seed, state.epoch)
                sample_weights = sample_weights[order.to(sample_weights.device)]
            ranks = self.group.world_size
            sizes = [size for by_rank in batches.sizes_by_rank for size in by_rank]
            batch_weights = compute_batch_weights(sizes, accumulate, sample_weights, ranks)[self.group.rank :: ranks]
            accumulation = GradientAccumulation(batch_weights, lambda: state.batch)
        return self.backend.make_training_step(
            self.optimization.optimizer, self._count_step_and_update_schedule, self.guard, accumulation
        )

    @torch.no_grad()
    def _compute_sample_weights(self, batches: BatchLoader) -> Tensor | None:
        """Compute how much each sample of the split counts in each loss term, (N, terms); None if all count equally."""
        found: list[Tensor] = []
        for targets in batches.iterate_targets(MAX_WEIGHED_SAMPLES):
            weights = self.backend.criterion.weigh(tuple(each.to(self.backend.device) for each in targets))
            if weights is None:
                return None
            found.append(weights)
        return torch.cat(found) if found else None

    def make_evaluation_step(self) -> Step:
        """Make the step that evaluates one batch, with the network or with averaged weights."""
        return self.backend.make_evaluation_step(self.state.evaluated_network)

    def _count_step_and_update_schedule(self) -> None:
        self.state.step += 1
        if self.state.average:
            self.state.average.after_step()
        if self.optimization.schedule:
            self.optimization.schedule.after_step()
