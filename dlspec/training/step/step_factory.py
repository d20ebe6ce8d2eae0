"""Make a run's training and evaluation steps, and the actions after each update."""

from __future__ import annotations

from dataclasses import dataclass

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Optimization
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.state import TrainingState
from dlspec.training.step.compute_backend import ComputeBackend
from dlspec.training.step.step_functions import GradientAccumulation, Step, compute_batch_weights


@dataclass(frozen=True)
class StepFactory:
    """Makes new steps for each epoch or pass over a split, so that the loop itself has no branches for settings."""

    state: TrainingState
    backend: ComputeBackend
    optimization: Optimization
    guard: NanGuard
    settings: TrainerSpec

    def make_training_step(self, batches: BatchLoader) -> Step:
        """Make the step that trains on one batch; `batches` are those of the epoch."""
        state, accumulate = self.state, self.settings.accumulate
        accumulation = None
        if accumulate > 1:
            accumulation = GradientAccumulation(compute_batch_weights(batches.sizes, accumulate), lambda: state.batch)
        return self.backend.make_training_step(
            self.optimization.optimizer, self._finish_update, self.guard, accumulation
        )

    def make_evaluation_step(self) -> Step:
        """Make the step that evaluates one batch, with the network or with averaged weights."""
        return self.backend.make_evaluation_step(self.state.evaluated_network)

    def _finish_update(self) -> None:
        self.state.step += 1
        if self.state.average:
            self.state.average.after_step()
        if self.optimization.schedule:
            self.optimization.schedule.after_step()
