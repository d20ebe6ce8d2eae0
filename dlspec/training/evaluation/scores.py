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

from dlspec.compat.torchmetrics import get_metric_state, restore_metric
from dlspec.data.batches.tensor_tree import iterate_tensors, map_tensors
from dlspec.training.criterion_interface import CriterionProtocol, MetricGroups, Targets
from dlspec.training.evaluation.tensor_arena import TensorArena

MAX_BUFFERED_ROWS = 2**16
MAX_BUFFERED_NUMBERS = 2**20
MAX_BUFFERED_STEPS = 1024
RUNNING_LOSS_STEPS = 50


BufferedStep = tuple[Any, Targets]


class Scores:
    """The loss (of several terms each one, too), the mean over samples, and the metrics of one pass over a split.

    `metrics` are those of each target that the criterion judges. With `copies` steps' outputs are laid aside, so that
    what their steps took can be given back as a whole.
    """

    def __init__(self, criterion: CriterionProtocol, metrics: MetricGroups, *, copies_outputs: bool = False) -> None:
        self._criterion = criterion
        self._arena = TensorArena() if copies_outputs else None
        self._metrics = metrics
        self._metrics_by_name = {name: each for group in metrics for name, each in group.items()}
        self.loss_names = ("loss", *(f"loss_{name}" for name in criterion.term_names))
        self.reset()

    @property
    def names(self) -> tuple[str, ...]:
        """What `results` will give."""
        return (*self.loss_names, *self._metrics_by_name)

    @torch.inference_mode()
    def reset(self) -> None:
        self._batch_sizes: list[int] = []
        self._losses: list[Tensor] = []
        self._loss_chunks: list[Tensor] = []
        self._buffered_steps: list[BufferedStep] = []
        self._num_buffered_rows = self._num_buffered_numbers = 0
        for metric in self._metrics_by_name.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """Everything that was added so far, in the pieces that it is in, for a checkpoint in the middle of a pass."""
        return {
            "sizes": list(self._batch_sizes),
            "pieces": torch.cat(self._loss_chunks) if self._loss_chunks else None,
            "losses": torch.stack(self._losses) if self._losses else None,
            "held": _pack_steps(self._buffered_steps),
            "rows": self._num_buffered_rows,
            "numbers": self._num_buffered_numbers,
            "metrics": {name: get_metric_state(each) for name, each in self._metrics_by_name.items()},
        }

    @torch.inference_mode()
    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Goes on from what `state_dict` gave."""
        self.reset()
        state = map_tensors(lambda each: each.to(device), state)
        self._batch_sizes, self._num_buffered_rows, self._num_buffered_numbers = (
            list(state["sizes"]),
            state["rows"],
            state["numbers"],
        )
        self._loss_chunks = [] if state["pieces"] is None else [state["pieces"]]
        self._losses = [] if state["losses"] is None else list(state["losses"].unbind())
        self._buffered_steps = _unpack_steps(state["held"])
        for name, metric in self._metrics_by_name.items():
            restore_metric(metric, state["metrics"][name])

    def add(self, output: Any, loss: Tensor, targets: Targets, num_samples: int) -> None:
        """Takes a step's detached output and loss, and its targets, of `rows` samples. Waits for nothing."""
        self._batch_sizes.append(num_samples)
        if self._arena is not None:
            loss = self._arena.copy(loss)
            if self._metrics_by_name:
                output, targets = map_tensors(self._arena.copy, (output, targets))
        self._losses.append(loss)
        if self._metrics_by_name:
            self._buffered_steps.append((output, targets))
            self._num_buffered_rows += num_samples
            self._num_buffered_numbers += sum(each.numel() for each in iterate_tensors(output))
        if (
            self._num_buffered_rows >= MAX_BUFFERED_ROWS
            or self._num_buffered_numbers >= MAX_BUFFERED_NUMBERS
            or len(self._losses) >= MAX_BUFFERED_STEPS
        ):
            self._flush()

    def running_loss(self) -> float:
        """The mean loss of the last steps, nan before the first; reading it waits for the device."""
        if self._losses:
            return float(_select_total(torch.stack(self._losses[-RUNNING_LOSS_STEPS:])).mean())
        return (
            float(_select_total(self._loss_chunks[-1][-RUNNING_LOSS_STEPS:]).mean()) if self._loss_chunks else math.nan
        )

    @torch.inference_mode()
    def results(self) -> dict[str, float]:
        """`loss` and every metric by its name; empty where nothing was added. Waits for the device, once an epoch."""
        if not self._batch_sizes:
            return {}
        self._flush()
        metrics = {name: float(metric.compute()) for name, metric in self._metrics_by_name.items()}
        all_losses = torch.cat(self._loss_chunks)
        columns = all_losses.T.tolist() if all_losses.dim() > 1 else [all_losses.tolist()]
        losses = {name: self._weighted_mean(column) for name, column in zip(self.loss_names, columns, strict=True)}
        return losses | metrics

    def _weighted_mean(self, losses: Sequence[float]) -> float:
        weighted = math.fsum(loss * size for loss, size in zip(losses, self._batch_sizes, strict=True))
        return weighted / sum(self._batch_sizes)

    def find_non_finite_step(self) -> int | None:
        """The first step of this pass, from 0, whose loss was not a finite number."""
        self._flush()
        losses = _select_total(torch.cat(self._loss_chunks)).tolist() if self._loss_chunks else []
        return next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)

    @torch.inference_mode()
    def _flush(self) -> None:
        if self._losses:
            self._loss_chunks.append(torch.stack(self._losses))
        if self._buffered_steps:
            self._update_metrics()
        self._losses, self._buffered_steps, self._num_buffered_rows, self._num_buffered_numbers = [], [], 0, 0

    def _update_metrics(self) -> None:
        pairs_of_steps = [
            self._criterion.make_metric_pairs(output, targets)
            for output, targets in _concatenate_steps(self._buffered_steps)
        ]
        for metrics, pairs in zip(self._metrics, zip(*pairs_of_steps, strict=True), strict=True):
            predictions, truth = pairs[0] if len(pairs) == 1 else map(torch.cat, zip(*pairs, strict=True))
            for metric in metrics.values():
                metric.update(predictions, truth)


def _select_total(losses: Tensor) -> Tensor:
    """Of several terms their sum, which comes first."""
    return losses[:, 0] if losses.dim() > 1 else losses


def _pack_steps(steps: list[BufferedStep]) -> dict[str, Any]:
    """For a checkpoint: each step's tensors one below the other, as copying hundreds of small ones takes long."""
    if (
        not steps
        or len({_sample_shapes(each) for each in steps}) > 1
        or any(not isinstance(output, Tensor) for output, _ in steps)
    ):
        return {"steps": list(steps)}
    columns = list(zip(*((output, *targets) for output, targets in steps), strict=True))
    if any(not each[0].dim() for each in columns):
        return {"steps": list(steps)}
    return {"columns": [torch.cat(each) for each in columns], "sizes": [[len(one) for one in each] for each in columns]}


def _unpack_steps(packed: Mapping[str, Any]) -> list[BufferedStep]:
    """The steps as they were, in memory of their own: some kernels round otherwise where it is not aligned."""
    if "steps" in packed:
        return [(output, targets) for output, targets in packed["steps"]]
    pairs = zip(packed["columns"], packed["sizes"], strict=True)
    columns = [[one.clone() for one in column.split(sizes)] for column, sizes in pairs]
    return [(output, tuple(targets)) for output, *targets in zip(*columns, strict=True)]


def _concatenate_steps(steps: list[BufferedStep]) -> list[BufferedStep]:
    """One (output, targets) of all rows; or the batches as they are, where they differ in length or it is one alone."""
    if len(steps) == 1 or len({_sample_shapes(each) for each in steps}) > 1:
        return steps
    outputs, targets = zip(*steps, strict=True)
    return [(_concatenate_outputs(outputs), tuple(torch.cat(each) for each in zip(*targets, strict=True)))]


def _sample_shapes(step: BufferedStep) -> Any:
    output, targets = step
    values = (output,) if isinstance(output, Tensor) else output.values() if isinstance(output, Mapping) else output
    return tuple(each.shape[1:] if each.dim() else None for each in (*values, *targets))


def _concatenate_outputs(outputs: Sequence[Any]) -> Any:
    """Outputs, one below the other; what has no rows is left as it is, as nothing is predicted of it."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.dim() else first
    if isinstance(first, Mapping):
        return {name: _concatenate_outputs([each[name] for each in outputs]) for name in first}
    return tuple(_concatenate_outputs(each) for each in zip(*outputs, strict=True))
