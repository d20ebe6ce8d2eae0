"""One epoch of training: what is asked of a contender, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One epoch over `samples` in batches of `batch_size`; `limit_batches` makes it shorter, to warm up."""

    data: str | None
    samples: int
    batch_size: int
    limit_batches: int | None = None


@dataclass(frozen=True)
class Result:
    """Seconds of the training steps, of the epoch with all that belongs to it, of that on the CPU; its mean loss."""

    train: float
    epoch: float
    cpu: float
    loss: float
