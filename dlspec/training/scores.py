"""An epoch's mean loss and metrics, gathered without making the device wait.

Each step leaves its loss and detached output in a list, which costs nothing; metrics are fed from it in large pieces,
since one update of a torchmetrics metric takes as long as many small steps. Pieces end after a number of rows that
depends on nothing but the data, never on the time, so that equal runs add up equal numbers in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlspec.training.criterion import Criterion, Metric

MOST_ROWS = 4096
MOST_NUMBERS = 2**20
MOST_STEPS = 1024
RECENT = 50


class Scores:
    """The loss, the mean over samples, and the metrics of one pass over a split."""

    def __init__(self, criterion: Criterion, metrics: Mapping[str, Metric]) -> None:
        self._criterion = criterion
        self._metrics = metrics
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        self._sizes: list[int] = []
        self._losses: list[Tensor] = []
        self._pieces: list[Tensor] = []
        self._held: list[tuple[Any, Tensor]] = []
        self._rows = self._numbers = 0
        for metric in self._metrics.values():
            metric.reset()

    def add(self, output: Any, loss: Tensor, target: Tensor) -> None:
        """Takes a step's detached output and loss, and its target. Waits for nothing."""
        rows = len(target)
        self._sizes.append(rows)
        self._losses.append(loss)
        if self._metrics:
            self._held.append((output, target))
            self._rows += rows
            self._numbers += output.numel() if isinstance(output, Tensor) else MOST_NUMBERS
        if self._rows >= MOST_ROWS or self._numbers >= MOST_NUMBERS or len(self._losses) >= MOST_STEPS:
            self._flush()

    def running_loss(self) -> float:
        """The mean loss of the last steps, nan before the first; reading it waits for the device."""
        if self._losses:
            return float(torch.stack(self._losses[-RECENT:]).mean())
        return float(self._pieces[-1][-RECENT:].mean()) if self._pieces else math.nan

    @torch.inference_mode()
    def results(self) -> dict[str, float]:
        """`loss` and every metric by its name; empty where nothing was added. Waits for the device, once an epoch."""
        if not self._sizes:
            return {}
        metrics = {name: float(metric.compute()) for name, metric in self._fed().items()}
        losses = self._all_losses()
        weighted = math.fsum(loss * size for loss, size in zip(losses, self._sizes, strict=True))
        return {"loss": weighted / sum(self._sizes), **metrics}

    def first_bad_step(self) -> int | None:
        """The first step of this pass, from 0, whose loss was not a finite number."""
        return next((step for step, loss in enumerate(self._all_losses()) if not math.isfinite(loss)), None)

    def _all_losses(self) -> list[float]:
        self._flush()
        losses: list[float] = torch.cat(self._pieces).tolist() if self._pieces else []
        return losses

    def _fed(self) -> Mapping[str, Metric]:
        self._flush()
        return self._metrics

    @torch.inference_mode()
    def _flush(self) -> None:
        if self._losses:
            self._pieces.append(torch.stack(self._losses))
        if self._held:
            self._feed()
        self._losses, self._held, self._rows, self._numbers = [], [], 0, 0

    def _feed(self) -> None:
        for output, target in _joined(self._held):
            predictions, truth = self._criterion.predict(output), self._criterion.truth(target)
            for metric in self._metrics.values():
                metric.update(predictions, truth)


def _joined(held: list[tuple[Any, Tensor]]) -> list[tuple[Any, Tensor]]:
    """One (output, target) of all rows; or the batches as they are, where they differ in length or are no tensors."""
    outputs, targets = zip(*held, strict=True)
    tensors = all(isinstance(output, Tensor) and output.dim() for output in outputs)
    if not tensors or len({(output.shape[1:], target.shape[1:]) for output, target in held}) > 1:
        return held
    return [(torch.cat(outputs), torch.cat(targets))]
