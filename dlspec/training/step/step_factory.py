"""Make a run's training and evaluation steps, and the actions after each update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.data.batches.prefetching import Batch
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Optimization
from dlspec.training.distributed import ProcessGroup
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.state import TrainingState
from dlspec.training.step.block_factory import BlockFactory
from dlspec.training.step.block_step import BlockStep, RowBlock, iterate_blocks
from dlspec.training.step.compute_backend import ComputeBackend
from dlspec.training.step.step_functions import GradientAccumulation, Step, compute_batch_weights

MAX_WEIGHED_SAMPLES = 4096  # at a time: the windows of a text overlap, and a copy of all of them could be large


@dataclass(frozen=True)
class PassSteps:
    """The batches of a pass over a split, in order, and the steps that are made on them."""

    iterate_batches: Callable[[], Iterator[Batch | RowBlock]]  # from the batch at which the state stands
    step: Step  # on one batch
    block_step: BlockStep | None = None  # on a block of batches, if steps are compiled


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

    @cached_property
    def _block_factory(self) -> BlockFactory:
        return BlockFactory(self.state, self.backend, self.optimization, self.guard)

    def make_training_steps(self, batches: BatchLoader, step_listeners: Sequence[str] = ()) -> PassSteps:
        """Make the steps of the rest of the state's epoch.

        Args:
            batches: the batches of the training split.
            step_listeners: the names of the callbacks that must be called after each step.
        """
        accumulation = self._make_accumulation(batches)
        block_step = self._block_factory.make_block_step(batches, step_listeners)
        step = self.backend.make_training_step(
            self.optimization,
            self.finish_update,
            self.guard,
            accumulation,
            compiles=block_step is None and not self._block_factory.runs_eagerly,
        )
        return PassSteps(partial(self._iterate_batches, batches, block_step), step, block_step)

    def _iterate_batches(self, batches: BatchLoader, block_step: BlockStep | None) -> Iterator[Batch | RowBlock]:
        state, seed = self.state, self.seed
        if block_step is None:
            return batches.iterate_shuffled(seed, state.epoch, state.batch)
        return iterate_blocks(batches, batches.shuffle_samples(seed, state.epoch), state, block_step)

    def _make_accumulation(self, batches: BatchLoader) -> GradientAccumulation | None:
        state, accumulate = self.state, self.settings.accumulate
        if accumulate == 1 and not self.group.is_parallel:
            return None
        sample_weights = self._compute_sample_weights(batches)
        if sample_weights is not None:
            order = batches.shuffle_samples(self.seed, state.epoch)
            sample_weights = sample_weights[order.to(sample_weights.device)]
        ranks = self.group.world_size
        sizes = [size for by_rank in batches.sizes_by_rank for size in by_rank]
        batch_weights = compute_batch_weights(sizes, accumulate, sample_weights, ranks)[self.group.rank :: ranks]
        return GradientAccumulation(batch_weights, lambda: state.batch)

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

    def make_evaluation_steps(self, batches: BatchLoader) -> PassSteps:
        """Make the steps that evaluate a split, with the network or with averaged weights."""
        return PassSteps(batches.iterate_in_order, self.backend.make_evaluation_step(self.state.evaluated_network))

    def finish_update(self) -> None:
        """Count an optimizer step; update the average of the weights, and a schedule that counts steps."""
        self.state.step += 1
        if self.state.average:
            self.state.average.after_step()
        if self.optimization.schedule:
            self.optimization.schedule.after_step()
