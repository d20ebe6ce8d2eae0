"""The flag on an optimizer by which learning-rate schedulers know that it has stepped."""

from __future__ import annotations

from torch.optim import Optimizer


def mark_stepped(optimizer: Optimizer) -> None:
    """Tell learning-rate schedulers that the optimizer has stepped, so that they don't warn of the wrong order.

    If PyTorch drops the flag, nobody reads this one.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]
