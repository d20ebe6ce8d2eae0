"""A warm-up: learning rates rise over the first optimizer steps, on top of a scheduler that counts epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Warmup:
    """Multiplies a scheduler's learning rates by a factor that rises linearly (for 2 steps: 1/3 and 2/3).

    PyTorch's schedulers compute a learning rate from the one before, which they read from the optimizer. So their own
    rates are kept here, and the optimizer has them only while the scheduler is stepped: after the warm-up the rates
    equal those of the scheduler alone, to the last bit.

    Args:
        optimizer: the optimizer, with the learning rates that the scheduler starts with.
        length: the number of optimizer steps until the scheduler's own rates are reached.
    """

    def __init__(self, optimizer: Optimizer, length: int) -> None:
        self._optimizer, self._length = optimizer, length
        self._finished_steps = 0
        self._scheduler_lrs = self._read_lrs()
        self._write_lrs(self._factor)

    @property
    def _factor(self) -> float:
        return min(1.0, (self._finished_steps + 1) / (self._length + 1))

    @property
    def is_over(self) -> bool:
        """Whether the scheduler's own learning rates are reached."""
        return self._finished_steps >= self._length

    def after_step(self) -> None:
        """Raise the learning rates after an optimizer step."""
        if self._finished_steps < self._length:
            self._finished_steps += 1
            self._write_lrs(self._factor)

    @contextmanager
    def use_scheduler_lrs(self) -> Iterator[None]:
        """Let the scheduler read and write its own learning rates inside the `with` block."""
        self._write_lrs(1.0)
        yield
        self._scheduler_lrs = self._read_lrs()
        self._write_lrs(self._factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the scheduler's own learning rates."""
        return {"finished_steps": self._finished_steps, "scheduler_lrs": list(self._scheduler_lrs)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Load the state, and set the learning rates.

        Raises:
            ValueError: if the state is not that of a warm-up of an optimizer with as many groups.
        """
        steps, lrs = state["finished_steps"], state["scheduler_lrs"]
        if type(steps) is not int or not 0 <= steps <= self._length:
            raise ValueError(f"the warm-up has {self._length} steps, the checkpoint made {steps!r}")
        if len(lrs) != len(self._scheduler_lrs) or not all(isinstance(each, float | int) for each in lrs):
            raise ValueError("the warm-up's learning rates do not fit the optimizer's groups")
        self._finished_steps, self._scheduler_lrs = steps, list(lrs)
        self._write_lrs(self._factor)

    def _read_lrs(self) -> list[float]:
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def _write_lrs(self, factor: float) -> None:
        for group, lr in zip(self._optimizer.param_groups, self._scheduler_lrs, strict=True):
            if isinstance(group["lr"], Tensor):  # as compiled steps have
                group["lr"].fill_(lr * factor)
            else:
                group["lr"] = lr * factor
