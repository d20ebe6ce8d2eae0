"""An epoch's mean loss and metrics, gathered without making the device wait.

Each step leaves its loss and detached output in a list, which costs nothing; metrics are fed from it in large pieces,
since one update of a torchmetrics metric takes as long as many small steps. Pieces end after a number of rows that
depends on nothing but the data, never on the time, so that equal runs add up equal numbers in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torchmetrics import metric_state, restore_metric
from dlspec.data.batches.nests import mapped, tensors_in
from dlspec.training.evaluation.shelf import Shelf
from dlspec.training.protocols import Criterion, Metrics, Targets

MOST_ROWS = 2**16
MOST_NUMBERS = 2**20
MOST_STEPS = 1024
RECENT = 50


Held = tuple[Any, Targets]


class Scores:
    """The loss (of several terms each one, too), the mean over samples, and the metrics of one pass over a split.

    `metrics` are those of each target that the criterion judges. With `copies` steps' outputs are laid aside, so that
    what their steps took can be given back as a whole.
    """

    def __init__(self, criterion: Criterion, metrics: Metrics, *, copies: bool = False) -> None:
        self._criterion = criterion
        self._shelf = Shelf() if copies else None
        self._metrics = metrics
        self._by_name = {name: each for group in metrics for name, each in group.items()}
        self.loss_names = ("loss", *(f"loss_{name}" for name in criterion.term_names))
        self.reset()

    @property
    def names(self) -> tuple[str, ...]:
        """What `results` will give."""
        return (*self.loss_names, *self._by_name)

    @torch.inference_mode()
    def reset(self) -> None:
        self._sizes: list[int] = []
        self._losses: list[Tensor] = []
        self._pieces: list[Tensor] = []
        self._held: list[Held] = []
        self._rows = self._numbers = 0
        for metric in self._by_name.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """Everything that was added so far, in the pieces that it is in, for a checkpoint in the middle of a pass."""
        return {
            "sizes": list(self._sizes),
            "pieces": torch.cat(self._pieces) if self._pieces else None,
            "losses": torch.stack(self._losses) if self._losses else None,
            "held": _packed(self._held),
            "rows": self._rows,
            "numbers": self._numbers,
            "metrics": {name: metric_state(each) for name, each in self._by_name.items()},
        }

    @torch.inference_mode()
    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes on from what `state_dict` gave."""
        self.reset()
        state = mapped(lambda each: each.to(device), state)
        self._sizes, self._rows, self._numbers = list(state["sizes"]), state["rows"], state["numbers"]
        self._pieces = [] if state["pieces"] is None else [state["pieces"]]
        self._losses = [] if state["losses"] is None else list(state["losses"].unbind())
        self._held = _unpacked(state["held"])
        for name, metric in self._by_name.items():
            restore_metric(metric, state["metrics"][name])

    def add(self, output: Any, loss: Tensor, targets: Targets, rows: int) -> None:
        """Takes a step's detached output and loss, and its targets, of `rows` samples. Waits for nothing."""
        self._sizes.append(rows)
        if self._shelf is not None:
            loss = self._shelf.copy(loss)
            if self._by_name:
                output, targets = mapped(self._shelf.copy, (output, targets))
        self._losses.append(loss)
        if self._by_name:
            self._held.append((output, targets))
            self._rows += rows
            self._numbers += sum(each.numel() for each in tensors_in(output))
        if self._rows >= MOST_ROWS or self._numbers >= MOST_NUMBERS or len(self._losses) >= MOST_STEPS:
            self._flush()

    def running_loss(self) -> float:
        """The mean loss of the last steps, nan before the first; reading it waits for the device."""
        if self._losses:
            return float(_first(torch.stack(self._losses[-RECENT:])).mean())
        return float(_first(self._pieces[-1][-RECENT:]).mean()) if self._pieces else math.nan

    @torch.inference_mode()
    def results(self) -> dict[str, float]:
        """`loss` and every metric by its name; empty where nothing was added. Waits for the device, once an epoch."""
        if not self._sizes:
            return {}
        self._flush()
        metrics = {name: float(metric.compute()) for name, metric in self._by_name.items()}
        pieces = torch.cat(self._pieces)
        columns = pieces.T.tolist() if pieces.dim() > 1 else [pieces.tolist()]
        losses = {name: self._mean(column) for name, column in zip(self.loss_names, columns, strict=True)}
        return losses | metrics

    def _mean(self, losses: Sequence[float]) -> float:
        weighted = math.fsum(loss * size for loss, size in zip(losses, self._sizes, strict=True))
        return weighted / sum(self._sizes)

    def first_bad_step(self) -> int | None:
        """The first step of this pass, from 0, whose loss was not a finite number."""
        self._flush()
        losses = _first(torch.cat(self._pieces)).tolist() if self._pieces else []
        return next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)

    @torch.inference_mode()
    def _flush(self) -> None:
        if self._losses:
            self._pieces.append(torch.stack(self._losses))
        if self._held:
            self._feed()
        self._losses, self._held, self._rows, self._numbers = [], [], 0, 0

    def _feed(self) -> None:
        judged = [self._criterion.judged(output, targets) for output, targets in _joined(self._held)]
        for metrics, pairs in zip(self._metrics, zip(*judged, strict=True), strict=True):
            predictions, truth = pairs[0] if len(pairs) == 1 else map(torch.cat, zip(*pairs, strict=True))
            for metric in metrics.values():
                metric.update(predictions, truth)


def _first(losses: Tensor) -> Tensor:
    """Of several terms their sum, which comes first."""
    return losses[:, 0] if losses.dim() > 1 else losses


def _packed(held: list[Held]) -> dict[str, Any]:
    """For a checkpoint: each step's tensors one below the other, as copying hundreds of small ones takes long."""
    if (
        not held
        or len({_shape(each) for each in held}) > 1
        or any(not isinstance(output, Tensor) for output, _ in held)
    ):
        return {"steps": list(held)}
    columns = list(zip(*((output, *targets) for output, targets in held), strict=True))
    if any(not each[0].dim() for each in columns):
        return {"steps": list(held)}
    return {"columns": [torch.cat(each) for each in columns], "sizes": [[len(one) for one in each] for each in columns]}


def _unpacked(packed: Mapping[str, Any]) -> list[Held]:
    """The steps as they were, in memory of their own: some kernels round otherwise where it is not aligned."""
    if "steps" in packed:
        return [(output, targets) for output, targets in packed["steps"]]
    pairs = zip(packed["columns"], packed["sizes"], strict=True)
    columns = [[one.clone() for one in column.split(sizes)] for column, sizes in pairs]
    return [(output, tuple(targets)) for output, *targets in zip(*columns, strict=True)]


def _joined(held: list[Held]) -> list[Held]:
    """One (output, targets) of all rows; or the batches as they are, where they differ in length or it is one alone."""
    if len(held) == 1 or len({_shape(each) for each in held}) > 1:
        return held
    outputs, targets = zip(*held, strict=True)
    return [(_cat(outputs), tuple(torch.cat(each) for each in zip(*targets, strict=True)))]


def _shape(held: Held) -> Any:
    output, targets = held
    values = (output,) if isinstance(output, Tensor) else output.values() if isinstance(output, Mapping) else output
    return tuple(each.shape[1:] if each.dim() else None for each in (*values, *targets))


def _cat(outputs: Sequence[Any]) -> Any:
    """Outputs, one below the other; what has no rows is left as it is, as nothing is predicted of it."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.dim() else first
    if isinstance(first, Mapping):
        return {name: _cat([each[name] for each in outputs]) for name in first}
    return tuple(_cat(each) for each in zip(*outputs, strict=True))
