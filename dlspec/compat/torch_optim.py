"""Flags that `torch.optim` keeps on an optimizer, to warn of steps that were not made, or not as expected."""

from __future__ import annotations

from torch.optim import Optimizer


def mark_stepped(optimizer: Optimizer) -> None:
    """Tell learning-rate schedulers that the optimizer has stepped, so that they don't warn of the wrong order.

    If PyTorch drops the flag, nobody reads this one.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]


def expect_uncaptured_steps(optimizer: Optimizer) -> None:
    """Keep a capturable optimizer from warning when a step is run without a CUDA graph, as warm-up steps are.

    If PyTorch drops the flag, nobody reads this one.
    """
    optimizer._warned_capturable_if_run_uncaptured = True
