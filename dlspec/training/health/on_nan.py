"""`trainer.on_nan`: policies for batches whose loss or gradients are not finite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.compat.torch_layers import can_have_running_statistics
from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.optim.optimizer import restore_optimizer
from dlspec.optim.weight_averages import WeightAverage
from dlspec.training.health.nan_checks import NotFinite, Step
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")

MAX_SKIPPED_IN_ROW = 100  # skipped batches in a row, then training fails
MAX_REPORTED = 3  # skipped batches with a warning each; the others are only counted
MAX_RESTORES = 3  # without a complete epoch in between, then training fails


class NanPolicy:
    """Policy `stop`: training fails at the first such batch. The other policies are subclasses."""

    names: tuple[str, ...] = ()  # the results that it adds to those of an epoch
    is_strict = False  # check loss and gradients before each update, on every device
    reports_next = True  # report and diagnose the next non-finite batch
    failure_reason = ""  # what was tried, if training fails after all

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: WeightAverage | None) -> None:
        self._network, self._optimizer, self._average = network, optimizer, average

    def start_epoch(self) -> None:
        """Called at the start of an epoch, but not when training resumes within one."""

    def restart_epoch(self) -> None:
        """Called when training resumes within an epoch with other settings, which a saved state may not fit."""

    def wrap_step(self, step: Step) -> Step:
        """Wrap a step to save what must be restored if its batch is skipped."""
        return step

    def can_continue(self, state: TrainingState) -> bool:
        """Whether training may continue after a batch that made no update."""
        return False

    def recover(self) -> str:
        """Prepare the weights for the next batch, and return what was done."""
        return ""

    def finish_epoch(self, state: TrainingState) -> dict[str, float]:
        """Return the policy's results of an epoch."""
        return {}

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        """Return the policy's state for a checkpoint: tensors, numbers and mappings."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SkipBatch(NanPolicy):
    """Policy `skip`: leave out the batch, and restore the running statistics of normalization layers."""

    names = ("skipped",)
    is_strict = True

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: WeightAverage | None) -> None:
        super().__init__(network, optimizer, average)
        norms = [each for each in network.modules() if can_have_running_statistics(each)]
        self._running_stats = [each for norm in norms for each in norm.buffers()]
        self._saved_stats = [each.clone() for each in self._running_stats]
        self._num_skipped = self._num_in_row = self._num_reported = 0

    def start_epoch(self) -> None:
        self._num_skipped = 0

    def wrap_step(self, step: Step) -> Step:
        def guarded_step(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
            _copy_tensors(self._running_stats, self._saved_stats)
            try:
                result = step(inputs, targets)
            except NotFinite:
                _copy_tensors(self._saved_stats, self._running_stats)
                self._num_skipped += 1
                self._num_in_row += 1
                raise
            self._num_in_row = 0
            return result

        return guarded_step

    @property
    def reports_next(self) -> bool:  # type: ignore[override]
        return self._num_reported < MAX_REPORTED

    @property
    def failure_reason(self) -> str:  # type: ignore[override]
        return f"{self._num_in_row} batches in a row were skipped"

    def can_continue(self, state: TrainingState) -> bool:
        return self._num_in_row < min(MAX_SKIPPED_IN_ROW, state.batches)

    def recover(self) -> str:
        self._num_reported += 1
        return "the batch is skipped"

    def finish_epoch(self, state: TrainingState) -> dict[str, float]:
        if self._num_skipped:
            log.warning("skipped %d of %d batches of epoch %d", self._num_skipped, state.batch, state.epoch)
        return {"skipped": float(self._num_skipped)}

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        return {"count": self._num_skipped, "in_row": self._num_in_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._num_skipped, self._num_in_row = int(state["count"]), int(state["in_row"])


class RestoreWeights(NanPolicy):
    """Policy `restore`: reset weights, optimizer state and average to the epoch's start, but not learning rates."""

    is_strict = True

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: WeightAverage | None) -> None:
        super().__init__(network, optimizer, average)
        self._start_state: dict[str, Any] | None = None
        self._num_restores = 0
        self._is_good = True

    def start_epoch(self) -> None:
        self._start_state = None
        self._start_state = _clone_tensors(self._current_state())
        if self._is_good:
            self._num_restores = 0
        self._is_good = True

    def restart_epoch(self) -> None:
        self.start_epoch()

    def _current_state(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer_state()["state"],
            "average": self._average.state_dict() if self._average else None,
        }

    def _optimizer_state(self) -> dict[str, Any]:
        if self._optimizer is None:
            return {"state": {}, "param_groups": []}
        with without_dynamo():
            return self._optimizer.state_dict()

    @property
    def failure_reason(self) -> str:  # type: ignore[override]
        return f"the weights were restored {self._num_restores} times from the start of an epoch"

    def can_continue(self, state: TrainingState) -> bool:
        return self._num_restores < MAX_RESTORES and self._start_state is not None

    def recover(self) -> str:
        start = _clone_tensors(self._start_state)  # the optimizer updates the loaded tensors in place
        self._network.load_state_dict(start["network"])
        if self._optimizer is not None:
            groups = self._optimizer_state()["param_groups"]
            restore_optimizer(self._optimizer, {"state": start["optimizer"], "param_groups": groups})
        if self._average is not None:
            self._average.load_state_dict(start["average"])
        self._num_restores, self._is_good = self._num_restores + 1, False
        return "the weights are restored from the start of the epoch"

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        start = None if is_between_epochs else self._start_state
        return {"times": self._num_restores, "is_good": self._is_good, "start": start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._num_restores, self._is_good, self._start_state = (
            int(state["times"]),
            bool(state["is_good"]),
            state["start"],
        )


# By the value of `trainer.on_nan`.
NAN_POLICIES: Mapping[str, type[NanPolicy]] = {"stop": NanPolicy, "skip": SkipBatch, "restore": RestoreWeights}


@torch.no_grad()
def _copy_tensors(tensors: list[Tensor], to: list[Tensor]) -> None:
    for tensor, other in zip(tensors, to, strict=True):
        other.copy_(tensor)


def _clone_tensors(nest: Any) -> Any:
    """Copy a nested value with all its tensors."""
    return map_tensors(lambda each: each.detach().clone(), nest)
