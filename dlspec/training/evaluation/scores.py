"""Mean loss and metrics of a pass over a split, computed without waiting for the device at every step.

Each step appends its loss and detached output to a list. Metrics are updated with many steps at once, because one
update of a torchmetrics metric takes as long as many small steps. When the list is flushed depends only on the data,
not on time, so equal runs sum equal numbers in the same order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torchmetrics import (
    compute_directly,
    get_metric_state,
    merge_metric,
    reset_directly,
    restore_metric,
    update_directly,
)
from dlspec.data.batches.tensor_tree import iterate_tensors, map_tensors
from dlspec.formatting import first_line
from dlspec.training.criterion_interface import CriterionProtocol, MetricGroups, Targets, total_losses
from dlspec.training.distributed import ProcessGroup
from dlspec.training.evaluation.buffered_steps import BufferedStep, concatenate_steps, pack_steps, unpack_steps
from dlspec.training.evaluation.tensor_arena import TensorArena

# Metrics are updated when the buffered steps reach one of these limits.
MAX_BUFFERED_ROWS = 2**16  # samples
MAX_BUFFERED_NUMBERS = 2**20  # numbers in outputs
MAX_BUFFERED_STEPS = 1024
RUNNING_LOSS_STEPS = 50  # over which the running loss is averaged


log = logging.getLogger("dlspec")


class Scores:
    """The mean loss (also of each loss term) and the metrics of one pass over a split.

    The mean is that of the whole split, whatever the sizes of the batches: over its samples, or over what the loss
    averages, such as real tokens.

    Args:
        criterion: all loss terms.
        metrics: metrics by name for each target that the criterion predicts.
        copies_outputs: copy losses, outputs and targets to a `TensorArena`, so that the memory of a step can be freed
            as a whole.
        group: the processes that evaluate together: results are those of the samples of all of them.
    """

    def __init__(
        self,
        criterion: CriterionProtocol,
        metrics: MetricGroups,
        *,
        copies_outputs: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        self._criterion, self._group = criterion, group or ProcessGroup()
        self._arena = TensorArena() if copies_outputs else None
        self._metrics = metrics
        self._metrics_by_name = {name: each for group in metrics for name, each in group.items()}
        for metric in self._metrics_by_name.values():
            self._group.prepare_metric(metric)
        self._undefined_metrics: set[str] = set()  # that were reported
        self.loss_names = ("loss", *(f"loss_{name}" for name in criterion.term_names))
        self.reset()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results."""
        return (*self.loss_names, *self._metrics_by_name)

    @torch.inference_mode()
    def reset(self) -> None:
        """Remove everything that was added, before a new pass."""
        self._batch_sizes: list[int] = []
        self._losses: list[Tensor] = []
        self._loss_chunks: list[Tensor] = []
        self._weights: list[Tensor] = []  # of each step in each loss term, if samples do not count equally
        self._buffered_steps: list[BufferedStep] = []
        self._num_buffered_rows = self._num_buffered_numbers = 0
        for metric in self._metrics_by_name.values():
            reset_directly(metric)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that was added so far, for a checkpoint in the middle of a pass.

        The state of the first process contains those of the others.
        """
        if not self._group.is_parallel:
            return self._get_own_state()
        first, *others = self._group.gather(map_tensors(Tensor.cpu, self._get_own_state()))
        return {**first, "ranks": others}

    def _get_own_state(self) -> dict[str, Any]:
        return {
            "sizes": list(self._batch_sizes),
            "pieces": torch.cat(self._loss_chunks) if self._loss_chunks else None,
            "losses": torch.stack(self._losses) if self._losses else None,
            "held": pack_steps(self._buffered_steps),
            "rows": self._num_buffered_rows,
            "numbers": self._num_buffered_numbers,
            "metrics": {name: get_metric_state(each) for name, each in self._metrics_by_name.items()},
            **({"weights": torch.stack(self._weights)} if self._weights else {}),
        }

    @torch.inference_mode()
    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue a pass from the state that `state_dict` returned, with any number of processes."""
        self.reset()
        states = [{key: each for key, each in state.items() if key != "ranks"}, *state.get("ranks", [])]
        own, *others = states[self._group.rank :: self._group.world_size] or [None]
        if own is not None:
            self._load_own_state(map_tensors(lambda each: each.to(device), own))
        for other in others:  # of processes that no longer exist
            self._add_state(map_tensors(lambda each: each.to(device), other))

    def _add_state(self, state: Mapping[str, Any]) -> None:
        """Add the state of another process."""
        mine = self._get_own_state()
        chunks, losses, weights, steps = self._loss_chunks, self._losses, self._weights, self._buffered_steps
        self._load_own_state(state)
        sizes, others = [*mine["sizes"], *self._batch_sizes], self._loss_chunks + [each[None] for each in self._losses]
        self._batch_sizes, self._loss_chunks, self._losses = (
            sizes,
            [*chunks, *(each[None] for each in losses), *others],
            [],
        )
        self._weights, self._buffered_steps = weights + self._weights, steps + self._buffered_steps
        self._num_buffered_rows += mine["rows"]
        self._num_buffered_numbers += mine["numbers"]
        for name, metric in self._metrics_by_name.items():
            merge_metric(metric, mine["metrics"][name])

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._batch_sizes, self._num_buffered_rows, self._num_buffered_numbers = (
            list(state["sizes"]),
            state["rows"],
            state["numbers"],
        )
        self._loss_chunks = [] if state["pieces"] is None else [state["pieces"]]
        self._losses = [] if state["losses"] is None else list(state["losses"].unbind())
        self._weights = list(state["weights"].unbind()) if "weights" in state else []
        self._buffered_steps = unpack_steps(state["held"])
        for name, metric in self._metrics_by_name.items():
            restore_metric(metric, state["metrics"][name])

    def add(self, output: Any, loss: Tensor, targets: Targets, num_samples: int) -> None:
        """Add a step, without waiting for the device.

        Args:
            output: the network's output, detached.
            loss: the batch's mean loss, detached: a scalar tensor, or [sum, term, ...].
            targets: the batch's targets.
            num_samples: the number of samples in the batch.
        """
        self._batch_sizes.append(num_samples)
        weights = self._criterion.weigh(targets)
        if weights is not None:
            weights = weights.sum(0)
            loss = self._zero_terms_without_weight(loss, weights)
            self._weights.append(weights if self._arena is None else self._arena.copy(weights))
        if self._arena is not None:
            loss = self._arena.copy(loss)
            if self._metrics_by_name:
                output, targets = map_tensors(self._arena.copy, (output, targets))
        self._losses.append(loss)
        self._buffer_step((output, targets), num_samples)

    def _buffer_step(self, step: BufferedStep, num_samples: int) -> None:
        if self._metrics_by_name:
            self._buffered_steps.append(step)
            self._num_buffered_rows += num_samples
            self._num_buffered_numbers += sum(each.numel() for each in iterate_tensors(step[0]))
        if (
            self._num_buffered_rows >= MAX_BUFFERED_ROWS
            or self._num_buffered_numbers >= MAX_BUFFERED_NUMBERS
            or len(self._losses) >= MAX_BUFFERED_STEPS
        ):
            self._flush()

    def add_block(self, outputs: Any, losses: Tensor, targets: Targets, batch_sizes: Sequence[int]) -> None:
        """Add several steps of one call, without waiting for the device.

        Args:
            outputs: the outputs of all batches, concatenated and detached.
            losses: the losses of the batches, (batches,) or (batches, 1 + terms).
            targets: the targets of all batches, concatenated.
            batch_sizes: the number of samples in each batch.
        """
        if self._arena is not None or self._criterion.weigh(targets) is not None:
            for one in self._split_block(outputs, losses, targets, batch_sizes):
                self.add(*one)
            return
        self._batch_sizes += batch_sizes
        self._losses += losses.unbind()
        self._buffer_step((outputs, targets), sum(batch_sizes))

    def _split_block(
        self, outputs: Any, losses: Tensor, targets: Targets, batch_sizes: Sequence[int]
    ) -> Iterator[tuple[Any, Tensor, Targets, int]]:
        end = 0
        for loss, size in zip(losses.unbind(), batch_sizes, strict=True):
            start, end = end, end + size
            output, own_targets = map_tensors(partial(_slice_samples, start=start, end=end), (outputs, targets))
            yield output, loss, own_targets, size

    def running_loss(self) -> float:
        """Compute the mean loss of the last steps; nan before the first step. This waits for the device."""
        if self._losses:
            return float(total_losses(torch.stack(self._losses[-RUNNING_LOSS_STEPS:])).mean())
        return (
            float(total_losses(self._loss_chunks[-1][-RUNNING_LOSS_STEPS:]).mean()) if self._loss_chunks else math.nan
        )

    @torch.inference_mode()
    def results(self) -> dict[str, float]:
        """Compute the mean loss and the metrics by name; empty if no step was added. This waits for the device."""
        self._flush()
        if self._group.is_parallel:
            self._gather_losses()
        if not self._batch_sizes:
            return {}
        metrics = {
            name: compute_metric(metric, partial(self._report_undefined_metric, name))
            for name, metric in self._metrics_by_name.items()
        }
        all_losses = torch.cat(self._loss_chunks) if len(self._loss_chunks) > 1 else self._loss_chunks[0]
        columns = all_losses.T.tolist() if all_losses.dim() > 1 else [all_losses.tolist()]
        means = self._average_weighted(columns) if self._weights else self._average_over_samples(columns)
        return dict(zip(self.loss_names, means, strict=True)) | metrics

    def _gather_losses(self) -> None:
        """Replace the losses of this process by those of all processes. No step can be added after that."""
        states = self._group.gather((self._batch_sizes, *map_tensors(Tensor.cpu, (self._loss_chunks, self._weights))))
        self._batch_sizes, self._loss_chunks, self._weights = (
            [each for part in column for each in part] for column in zip(*states, strict=True)
        )

    def _report_undefined_metric(self, name: str, error: ValueError) -> None:
        if name not in self._undefined_metrics:
            self._undefined_metrics.add(name)
            log.warning("%s of %d samples is nan: %s", name, sum(self._batch_sizes), first_line(error))

    def _average_over_samples(self, columns: Sequence[Sequence[float]]) -> list[float]:
        return [_weighted_mean(each, self._batch_sizes) for each in columns]

    def _average_weighted(self, columns: Sequence[Sequence[float]]) -> list[float]:
        """Average each loss term by its own weights, then add the terms."""
        is_single = len(columns) == 1
        known = torch.stack(self._weights).T.tolist()
        # A checkpoint of an older version has no weights of the steps before it: they count by their samples.
        weights = [[*self._batch_sizes[: len(self._batch_sizes) - len(each)], *each] for each in known]
        means = [_weighted_mean(*pair) for pair in zip(columns if is_single else columns[1:], weights, strict=True)]
        if is_single:
            return means
        return [sum(factor * mean for factor, mean in zip(self._criterion.factors, means, strict=True)), *means]

    def _zero_terms_without_weight(self, loss: Tensor, weights: Tensor) -> Tensor:
        """Set loss terms without any weight in a batch to 0: their mean is nan if all classes are ignored."""
        if not loss.dim():
            return loss.where(weights[0] != 0, 0)
        terms = loss[1:].where(weights != 0, 0)
        total = (terms * terms.new_tensor(self._criterion.factors)).sum()
        return torch.cat([loss[:1].where((weights != 0).all(), total), terms])

    def find_non_finite_step(self) -> int | None:
        """Find the first step of the pass, counted from 0, whose loss is not finite; None if all are finite."""
        self._flush()
        losses = total_losses(torch.cat(self._loss_chunks)).tolist() if self._loss_chunks else []
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
            for output, targets in concatenate_steps(self._buffered_steps)
        ]
        for metrics, pairs in zip(self._metrics, zip(*pairs_of_steps, strict=True), strict=True):
            # Predictions, true values and, where samples do not count equally, weights.
            tensors = pairs[0] if len(pairs) == 1 else tuple(map(torch.cat, zip(*pairs, strict=True)))
            for metric in metrics.values():
                update_directly(metric, *tensors)


def compute_metric(metric: Any, report: Callable[[ValueError], None] = lambda error: None) -> float:
    """Compute a metric as a number; nan if it is not defined for these samples, as R2 of a single one isn't.

    Args:
        metric: a metric of torchmetrics, updated with the samples.
        report: is given the reason why it is not defined.
    """
    try:
        return float(compute_directly(metric))
    except ValueError as error:
        report(error)
        return math.nan


def _slice_samples(tensor: Tensor, start: int, end: int) -> Tensor:
    return tensor[start:end] if tensor.dim() else tensor


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = math.fsum(weights)
    return (
        math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total if total else math.nan
    )
