"""Report why a batch of a run is not finite, with epoch, step, split and sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dlspec.data.batches.batch_loader import BatchLoader, make_permutation
from dlspec.data.batches.prefetching import Batch
from dlspec.errors import Finding
from dlspec.training.components import Model, TrainingData
from dlspec.training.health.nan_checks import NotFinite
from dlspec.training.health.nan_diagnosis import BatchNames, DiagnosedPass, find_cause, make_nan_finding
from dlspec.training.state import TrainingState

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}

# Wraps a `forward` so that it computes in the run's precision.
ForwardMaker = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class NanCauseFinder:
    """Finds out why the loss or a gradient of one of the run's batches is not finite."""

    state: TrainingState
    model: Model
    data: TrainingData
    make_forward: ForwardMaker
    # False where a process can't compute a batch alone: then the cause is not looked for.
    computes_again: bool = True

    def find(self, error: NotFinite, batches: BatchLoader, batch: Batch) -> Finding:
        """Pass a batch through the network again to find the first value that is not finite.

        Args:
            error: what the step raised.
            batches: the batches of the split.
            batch: the batch that failed. It must be the one at `state.batch`.

        Returns:
            A finding with the cause, where in the run it occurred, and what may help.
        """
        state, criterion = self.state, self.model.criterion
        is_training = state.phase == "train"
        step = state.step + 1 if is_training and has_trainable_weights(state) else state.step
        where = f"in epoch {state.epoch} at step {step}, learning rate {state.lr}"
        if not self.computes_again:
            return make_nan_finding(f"{state.phase}/{error} {where}")
        network = state.network if is_training else state.evaluated_network
        names = BatchNames(self.model.inputs, criterion.target_names, lambda row: self._name_sample(batches, row))
        cause = find_cause(error, DiagnosedPass(network, criterion, batch, self.make_forward, names))
        return replace(cause, found=f"{state.phase}/{error} {where}: {cause.found}")

    def _name_sample(self, batches: BatchLoader, row: int) -> str:
        """Name the sample of the split that is row `row` of the batch at `state.batch`."""
        state = self.state
        position = sum(batches.sizes[: state.batch]) + row
        if state.phase == "train":
            position = int(make_permutation(len(self.data.dataset.train), self.data.seed, state.epoch)[position])
        return f"sample {position} of the {SPLIT_NAMES[state.phase]} split (the first is 0)"


def has_trainable_weights(state: TrainingState) -> bool:
    """Whether there is an optimizer and any parameter is trainable."""
    return state.optimizer is not None and any(each.requires_grad for each in state.network.parameters())
