"""The flag of an optimizer that tells learning-rate schedulers that `step` was called."""

from __future__ import annotations

from torch.optim import Optimizer


def mark_optimizer_stepped(optimizer: Optimizer) -> None:
    """Mark an optimizer as stepped, so that learning-rate schedulers do not warn about the order of calls.

    If a later PyTorch no longer uses the flag, setting it has no effect.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]
