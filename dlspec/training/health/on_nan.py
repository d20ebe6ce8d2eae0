"""What a run does with a batch whose loss or gradients are not finite: `trainer.on_nan`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.compat.torch_layers import is_running_norm
from dlspec.data.batches.nests import mapped
from dlspec.optim.averaging import Average
from dlspec.optim.optimizer import restore_optimizer
from dlspec.training.health.finite import NotFinite, Step
from dlspec.training.state import State

log = logging.getLogger("dlspec")

MOST_SKIPPED = 100
"""Batches in a row."""
MOST_TOLD = 3
"""Batches; of the others their number."""
MOST_RESTORED = 3
"""Times without an epoch between them that went well."""


class OnNan:
    """`stop`: training fails with the first such batch. The others are subclasses."""

    names: tuple[str, ...] = ()
    """The results that it adds to an epoch's."""
    is_strict = False
    """Whether on every device each batch is looked at before it changes anything, its gradients too."""
    tells = True
    """Whether the next such batch is told, and its cause looked for."""
    gave_up = ""
    """What was tried, where training fails all the same."""

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: Average | None) -> None:
        self._network, self._optimizer, self._average = network, optimizer, average

    def begin_epoch(self) -> None:
        """An epoch's training begins, and not in its middle."""

    def guarded(self, step: Step) -> Step:
        """The step, with what has to be kept for the case that its batch is left out."""
        return step

    def may_go_on(self, state: State) -> bool:
        """A batch has made no update: whether training may go on without it."""
        return False

    def go_on(self) -> str:
        """Makes the weights ready for the next batch; says what was done."""
        return ""

    def end_epoch(self, state: State) -> dict[str, float]:
        """The epoch's training is over: the results that it adds."""
        return {}

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        """For a checkpoint: tensors, numbers and mappings."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Skip(OnNan):
    """Such a batch makes no update, and the running statistics of normalisations forget it."""

    names = ("skipped",)
    is_strict = True

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: Average | None) -> None:
        super().__init__(network, optimizer, average)
        norms = [each for each in network.modules() if is_running_norm(each)]
        self._statistics = [each for norm in norms for each in norm.buffers()]
        self._kept = [each.clone() for each in self._statistics]
        self._count = self._in_row = self._told = 0

    def begin_epoch(self) -> None:
        self._count = 0

    def guarded(self, step: Step) -> Step:
        def guarded(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
            _copy(self._statistics, self._kept)
            try:
                given = step(inputs, targets)
            except NotFinite:
                _copy(self._kept, self._statistics)
                self._count += 1
                self._in_row += 1
                raise
            self._in_row = 0
            return given

        return guarded

    @property
    def tells(self) -> bool:  # type: ignore[override]
        return self._told < MOST_TOLD

    @property
    def gave_up(self) -> str:  # type: ignore[override]
        return f"{self._in_row} batches in a row were left out"

    def may_go_on(self, state: State) -> bool:
        return self._in_row < min(MOST_SKIPPED, state.batches)

    def go_on(self) -> str:
        self._told += 1
        return "the batch is left out"

    def end_epoch(self, state: State) -> dict[str, float]:
        if self._count:
            log.warning("%d of %d batches of epoch %d were left out", self._count, state.batch, state.epoch)
        return {"skipped": float(self._count)}

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        return {"count": self._count, "in_row": self._in_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._count, self._in_row = int(state["count"]), int(state["in_row"])


class Restore(OnNan):
    """Weights, the optimizer's state and the average go back to those at the epoch's start; its rates stay."""

    is_strict = True

    def __init__(self, network: nn.Module, optimizer: Optimizer | None, average: Average | None) -> None:
        super().__init__(network, optimizer, average)
        self._start: dict[str, Any] | None = None
        self._times = 0
        self._is_good = True

    def begin_epoch(self) -> None:
        self._start = None
        self._start = _cloned(self._now())
        if self._is_good:
            self._times = 0
        self._is_good = True

    def _now(self) -> dict[str, Any]:
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
    def gave_up(self) -> str:  # type: ignore[override]
        return f"{self._times} times the weights went back to an epoch's start"

    def may_go_on(self, state: State) -> bool:
        return self._times < MOST_RESTORED and self._start is not None

    def go_on(self) -> str:
        start = _cloned(self._start)  # an optimizer goes on with the very tensors that it is given
        self._network.load_state_dict(start["network"])
        if self._optimizer is not None:
            groups = self._optimizer_state()["param_groups"]
            restore_optimizer(self._optimizer, {"state": start["optimizer"], "param_groups": groups})
        if self._average is not None:
            self._average.load_state_dict(start["average"])
        self._times, self._is_good = self._times + 1, False
        return "the weights go back to the epoch's start"

    def state_dict(self, is_between_epochs: bool) -> dict[str, Any]:
        start = None if is_between_epochs else self._start
        return {"times": self._times, "is_good": self._is_good, "start": start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._times, self._is_good, self._start = int(state["times"]), bool(state["is_good"]), state["start"]


KINDS: Mapping[str, type[OnNan]] = {"stop": OnNan, "skip": Skip, "restore": Restore}
"""By what `trainer.on_nan` says."""


@torch.no_grad()
def _copy(tensors: list[Tensor], to: list[Tensor]) -> None:
    for tensor, other in zip(tensors, to, strict=True):
        other.copy_(tensor)


def _cloned(nest: Any) -> Any:
    """The same with tensors of its own."""
    return mapped(lambda each: each.detach().clone(), nest)
