"""Adapters that give parts of a run a `state_dict` and `load_state_dict` for checkpoints.

What the spec defines is not saved: data and settings come from the spec, the order of the samples from seed and epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.network.weights.name_groups import find_patterns, format_patterns
from dlspec.network.weights.state_comparison import compare_states
from dlspec.optim.optimizer import restore_optimizer
from dlspec.optim.optimizer_memory import estimate_state_bytes
from dlspec.optim.optimizer_transfer import transfer_state
from dlspec.optim.schedule import Schedule
from dlspec.training.callbacks.callback import Callback
from dlspec.training.checkpoint.nested_state import ImmutableState
from dlspec.training.checkpoint.stateful import StateMismatch
from dlspec.training.checkpoint.validated_state import Count, Seconds, ValidatedState
from dlspec.training.distributed import ProcessGroup
from dlspec.training.evaluation.scores import Scores
from dlspec.training.runtime.randomness import read_random_states, seed_generators, set_random_state
from dlspec.training.state import EpochProgress, TrainingState

# "left" (the position in the epoch) comes first, as other parts depend on it when they load. The generators come last,
# as a callback may draw from them when it loads.
LOADING_ORDER = (
    "left", "progress", "monitor", "network", "optimizer", "scaler", "schedule", "average", "on_nan", "callbacks",
    "generators",
)  # fmt: skip
OPTIONAL_PARTS = ("on_nan",)  # missing in checkpoints of the first versions

_OTHER_CODE = "Put back the code of your own layers as it was when the checkpoint was written"

log = logging.getLogger("dlspec")


@dataclass(frozen=True)
class ResumeChanges:
    """What has changed between a checkpoint and the run that resumes from it."""

    # Whether the optimizer keeps its new settings, and the schedule is stepped to where the run stands. Otherwise both
    # are restored to the last bit.
    keeps_new_settings: bool = False
    # The optimizer before and now, if it is another one. It starts without state.
    optimizer_types: tuple[str, str] | None = None
    # Whether the saved average is of another kind. The new one starts empty.
    is_other_average: bool = False


UNCHANGED = ResumeChanges()


class _SavedPosition(ValidatedState):
    seconds: Seconds
    lr: float | None
    batch: Count
    samples: Count
    results: dict[str, float] | None
    scores: Any


@dataclass(frozen=True)
class EpochPosition:
    """A run's position within its epoch; its state is None between epochs."""

    state: TrainingState
    scores: Scores

    def state_dict(self) -> dict[str, Any] | None:
        state, epoch = self.state, self.state.current
        if epoch is None:
            return None
        is_training = epoch.results is None and epoch.scores is None
        return {
            "seconds": epoch.elapsed_seconds(),
            "lr": epoch.lr,
            "batch": state.batch if is_training else epoch.batch,
            "samples": state.samples if is_training else epoch.samples,
            "results": epoch.results,
            "scores": self.scores.state_dict() if is_training else epoch.scores,
        }

    def load_state_dict(self, state: Any, /) -> None:
        epoch = None if state is None else EpochProgress(**dict(_SavedPosition.model_validate(state)))
        if epoch is not None:
            if epoch.results is None and epoch.scores is None:
                raise ValueError("the epoch has neither results nor scores")
            epoch.start()
        self.state.current = epoch


@dataclass(frozen=True)
class MonitorState:
    """The best value of the monitored result. It must be from one of the finished epochs."""

    state: TrainingState

    def state_dict(self) -> dict[str, Any]:
        return self.state.monitor.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        self.state.monitor.load_state_dict(state, len(self.state.history))


@dataclass(frozen=True)
class NetworkState:
    """A network's parameters and buffers. Before they are loaded, all that differs is found."""

    network: nn.Module

    def state_dict(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        differences = compare_states(self.network.state_dict(), state)
        if differences:
            raise StateMismatch(f"{differences}. {_OTHER_CODE}")
        self.network.load_state_dict(state)


@dataclass(frozen=True)
class OptimizerState:
    """An optimizer's state dict with the names of its parameters, checked when it is loaded.

    After a change of its settings or groups, the optimizer keeps the new ones and gets only the state of its
    parameters, which are matched by name.
    """

    optimizer: Optimizer
    network: nn.Module
    changes: ResumeChanges = UNCHANGED

    def state_dict(self) -> dict[str, Any]:
        with without_dynamo():
            return {**self.optimizer.state_dict(), "names": self._list_names()}

    def load_state_dict(self, state: Any, /) -> None:
        if state is None:  # everything was frozen
            return
        if self.changes.optimizer_types is not None:
            before, now = self.changes.optimizer_types
            log.warning("the optimizer was %s and is now %s, which starts without the state of %s", before, now, before)
            return
        # Checkpoints of the first versions have no names. Then the groups are the same ones.
        saved, names = {key: each for key, each in state.items() if key != "names"}, self._list_names()
        if not self.changes.keeps_new_settings:
            _check_names(state.get("names", names), names)
            restore_optimizer(self.optimizer, saved)
            return
        stateless = transfer_state(self.optimizer, names, saved, state.get("names", names))
        if stateless and saved["state"]:
            log.warning(
                "%s starts without state for %d of %d parameters (%s): the checkpoint has none that fits the settings",
                type(self.optimizer).__name__, len(stateless), len(names), ", ".join(stateless[:3]),
            )  # fmt: skip

    def _list_names(self) -> list[str]:
        names: dict[Tensor, str] = {}
        for name, parameter in self.network.named_parameters():
            names.setdefault(parameter, name)
        return [names.get(each, "") for group in self.optimizer.param_groups for each in group["params"]]


def _check_names(saved: Sequence[str], names: Sequence[str]) -> None:
    """Check that a saved optimizer has updated the same parameters."""
    former, new = [each for each in saved if each not in names], [each for each in names if each not in saved]
    parts = [
        f"{words} {format_patterns(find_patterns(some, others))}"
        for words, some, others in (("no longer updates", former, names), ("updates for the first time", new, saved))
        if some
    ]
    if parts:
        raise StateMismatch(f"the optimizer {' and '.join(parts)}. {_OTHER_CODE}")


@dataclass(frozen=True)
class ScheduleState:
    """A schedule's state. After a change of settings, the schedule is stepped from its start instead."""

    schedule: Schedule
    state: TrainingState
    changes: ResumeChanges = UNCHANGED

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        has_other_warmup = state is not None and self.schedule.has_other_warmup(state)
        if state is not None and not self.changes.keeps_new_settings and not has_other_warmup:
            self.schedule.load_state_dict(state)
            return
        if has_other_warmup:
            log.warning("%s is stepped after every epoch from here on, with the warm-up as a factor; before, it was "
                        "stepped after every step", type(self.schedule.scheduler).__name__)  # fmt: skip
        name, history = self.state.monitor.name, self.state.history
        if self.schedule.needs_results and not all(name in row for row in history):
            log.warning("%s starts again: the epochs before have no result %s",
                        type(self.schedule.scheduler).__name__, name)  # fmt: skip
            return
        with without_dynamo():
            self.schedule.advance(self.state.step, [row.get(name, math.nan) for row in history])


@dataclass(frozen=True)
class ScalerState:
    """The state of the gradient scaler of float16; a run that had another precision has none."""

    scaler: torch.amp.GradScaler

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        if state is not None:
            self.scaler.load_state_dict(state)


@dataclass(frozen=True)
class AverageState:
    """The average of the weights; its state is None without one.

    A resumed run may start an average that the interrupted run did not have.
    """

    state: TrainingState
    changes: ResumeChanges = UNCHANGED

    def state_dict(self) -> dict[str, Any] | None:
        return self.state.average.state_dict() if self.state.average else None

    def load_state_dict(self, state: Any, /) -> None:
        average = self.state.average
        if average is None:
            return
        saved = None if self.changes.is_other_average else state
        if average.keeps_saved(0 if saved is None else saved["count"], self.state.trained_epochs) and saved is not None:
            average.load_state_dict(saved)


@dataclass(frozen=True)
class GeneratorState:
    """The state of all random generators: now, or at the end of the epoch's training split if that is finished.

    In the latter case validation starts again after resuming. Each process has its own; all must call `state_dict`.
    """

    state: TrainingState
    group: ProcessGroup = field(default_factory=ProcessGroup)

    def state_dict(self) -> dict[str, Any]:
        epoch, device = self.state.current, self.state.device
        own = epoch.generators if epoch is not None and epoch.generators else read_random_states(device)
        first, *others = self.group.gather(own.to_state_dict())
        return {**first, "ranks": others} if others else first

    def load_state_dict(self, state: Any, /) -> None:
        states, rank, device = [state, *state.get("ranks", [])], self.group.rank, self.state.device
        set_random_state(states[rank if rank < len(states) else 0], device)
        if rank >= len(states):  # more processes than before
            seed_generators(int(torch.randint(2**31, ())) + rank)


@dataclass(frozen=True)
class CallbackStates:
    """The state of each callback, by its `state_key`."""

    callbacks: Sequence[Callback]
    state: TrainingState

    def state_dict(self) -> list[list[Any]]:
        states = [(each.state_key, each.state_dict(self.state)) for each in self.callbacks]
        return [
            [name, ImmutableState(callback_state, f"callback.{name}")]
            for name, callback_state in states
            if callback_state
        ]

    def load_state_dict(self, state: Any, /) -> None:
        states: Mapping[str, Any] = dict(state)
        for callback in self.callbacks:
            if callback.state_key in states:
                callback.load_state_dict(self.state, states[callback.state_key])


def estimate_checkpoint_bytes(state: TrainingState) -> int:
    """Estimate the minimum size of a checkpoint: weights, best weights, their average, the optimizer's state."""
    tensors = [each for each in state.network.state_dict().values() if isinstance(each, Tensor)]
    weight_bytes = sum(each.numel() * each.element_size() for each in tensors)
    optimizer_bytes = estimate_state_bytes(state.optimizer) if state.optimizer else 0
    return weight_bytes * (3 if state.average else 2) + (optimizer_bytes or 0)
