"""Training and evaluation of one batch. No function here waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_autograd import run_backward
from dlspec.data.batches.tensor_tree import iterate_tensors, map_tensors
from dlspec.optim.optimizer import needs_closure
from dlspec.training.criterion_interface import CriterionProtocol, Targets, total_loss
from dlspec.training.health.nan_checks import LossCheck, NotFinite, NotFiniteElsewhere, require_finite_gradients
from dlspec.training.step.precision import ScaledUpdate

Inputs = tuple[Tensor, ...]
# Processes one batch: from (inputs, targets) to (detached output, detached loss as the criterion returns it).
Step = Callable[[Inputs, Targets], tuple[Any, Tensor]]


class JointGradients(Protocol):
    """Computes the gradients of all processes together."""

    def __call__(self, backward: Callable[[], None], parameters: Sequence[nn.Parameter], *, is_bad: bool) -> bool:
        """Call `backward`, and add up gradients; return whether the loss of any process is not finite (`is_bad`)."""


@dataclass(frozen=True)
class GradientClipping:
    """Limits for the gradients; None for no limit."""

    norm: float | None = None  # of all gradients together
    value: float | None = None  # of each gradient, absolute

    @property
    def is_enabled(self) -> bool:
        """Whether there is any limit."""
        return self.norm is not None or self.value is not None

    def clip(self, parameters: Sequence[nn.Parameter]) -> None:
        """Clip the parameters' gradients in place, first by value, then by norm."""
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)

    def clip_tensors(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return clipped copies of gradients, which are those of all parameters together."""
        if self.value is not None:
            gradients = [each.clamp(-self.value, self.value) for each in gradients]
        if self.norm is not None:
            total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
            factor = (self.norm / (total + 1e-6)).clamp(max=1.0)  # as `nn.utils.clip_grad_norm_` computes it
            gradients = [each * factor for each in gradients]
        return gradients


@dataclass(frozen=True)
class TermWeights:
    """A batch's weight in each loss term, where samples do not count equally."""

    batch: Tensor  # summed over the batch's samples, (terms,)
    update: Tensor  # summed over the samples of all of its update's batches, (terms,)


@dataclass(frozen=True)
class BatchWeight:
    """A batch's part in an update that combines several, of one process or of several processes."""

    weight: float  # of its gradient if samples count equally; the weights of an update add up to 1
    is_first: bool  # of the update's batches
    is_last: bool
    terms: TermWeights | None = None  # if samples do not count equally


def compute_batch_weights(
    sizes: Sequence[int], accumulate: int, sample_weights: Tensor | None = None, world_size: int = 1
) -> list[BatchWeight]:
    """Compute each batch's weight in its update, so that the update equals that of one large batch.

    The remaining batches at the epoch's end form a smaller update.

    Args:
        sizes: the number of samples in each batch of the epoch; with several processes, of each process's part of each
            batch, one after the other.
        accumulate: the number of batches of an update.
        sample_weights: how much each sample counts in each loss term, (N, terms), in the epoch's order; None if all
            count equally.
        world_size: the number of processes.
    """
    parts = accumulate * world_size
    updates = [sizes[start : start + parts] for start in range(0, len(sizes), parts)]
    terms = [None] * len(sizes) if sample_weights is None else _sum_weights(sizes, parts, sample_weights)
    positions = [(update, position) for update in updates for position in range(len(update))]
    return [
        BatchWeight(update[position] / sum(update), position < world_size, position >= len(update) - world_size, each)
        for (update, position), each in zip(positions, terms, strict=True)
    ]


def _sum_weights(batch_sizes: Sequence[int], batches_per_update: int, sample_weights: Tensor) -> list[TermWeights]:
    """Sum the weights of the samples of each batch and of its update."""
    batch_of_sample = (
        torch.arange(len(batch_sizes)).repeat_interleave(torch.tensor(batch_sizes)).to(sample_weights.device)
    )
    empty = sample_weights.new_zeros(len(batch_sizes), sample_weights.shape[1])
    by_batch = empty.index_add(0, batch_of_sample, sample_weights)
    by_update = empty.index_add(0, batch_of_sample // batches_per_update, sample_weights)
    return [TermWeights(each, by_update[batch // batches_per_update]) for batch, each in enumerate(by_batch)]


@dataclass(frozen=True)
class GradientComputation:
    """Computes output, loss and clipped gradients of a batch; gradients are stored in the parameters."""

    forward: Callable[..., Any]  # from inputs to the network's output
    criterion: CriterionProtocol
    parameters: Sequence[nn.Parameter]
    clipping: GradientClipping
    check_loss: LossCheck  # called before the backward pass; may raise
    scaled_update: ScaledUpdate | None = None  # for float16
    # Raise `NotFinite` for gradients that are not finite, too. Not for float16: its update skips them already.
    is_strict: bool = False
    # Computes the gradients of all processes, and raises `NotFinite` for a loss of any process; None for a single one.
    joint_gradients: JointGradients | None = None
    # Returns whether a flag is true in any process that has a part of the parameters.
    is_true_on_any_part: Callable[[bool], bool] = bool

    def __call__(self, inputs: Inputs, targets: Targets, *, is_first: bool = True) -> tuple[Any, Tensor]:
        self.clear_gradients()
        output = self.forward(*inputs)
        loss = self.criterion(output, targets)
        total = total_loss(loss)
        if is_first:
            self.check_loss(total)
        self._backward(total)
        self._finish_gradients(is_strict=self.is_strict and is_first)
        return output, loss

    def accumulate(self, inputs: Inputs, targets: Targets, batch_weight: BatchWeight) -> tuple[Any, Tensor]:
        """Add a batch's weighted gradients to those of its update; clip them after the last batch.

        Args:
            inputs: the batch's inputs.
            targets: the batch's targets.
            batch_weight: the batch's weight and position in its update.

        Returns:
            The output and the loss of the batch.
        """
        if batch_weight.is_first:
            self.clear_gradients()
        output = self.forward(*inputs)
        part, checked, loss = self._weigh_loss(output, targets, batch_weight)
        if self.joint_gradients is None:
            self.check_loss(checked)
            self._backward(part)
        else:
            self._backward_together(part, checked, self.joint_gradients, is_last=batch_weight.is_last)
        if batch_weight.is_last:
            self._finish_gradients(is_strict=self.is_strict)
        return output, loss

    def _weigh_loss(self, output: Any, targets: Targets, batch_weight: BatchWeight) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch's part in the loss of its update, the number to check, and its own loss."""
        if not batch_weight.weight:  # a process without samples: its gradients are 0
            part = torch.stack([each.sum() for each in iterate_tensors(output) if each.requires_grad]).sum() * 0
            return part, part, part.detach()
        if batch_weight.terms is None:
            loss = self.criterion(output, targets)
            total = total_loss(loss)
            return total * batch_weight.weight, total, loss
        part, loss = self.criterion.accumulate(output, targets, batch_weight.terms.batch, batch_weight.terms.update)
        return part, part, loss  # not the mean: it is nan for a batch that has only ignored classes

    def _backward_together(self, part: Tensor, checked: Tensor, join: JointGradients, *, is_last: bool) -> None:
        """Compute the gradients, and add up those of all processes. A process whose loss is bad still takes part."""
        error: NotFinite | None = None
        try:
            self.check_loss(checked)
        except NotFinite as not_finite:
            error = not_finite
        parameters = self.parameters if is_last else ()
        is_bad = join(lambda: self._backward(part), parameters, is_bad=error is not None)
        if is_bad:
            raise error or NotFiniteElsewhere

    def _backward(self, total: Tensor) -> None:
        scaled_loss = total if self.scaled_update is None else self.scaled_update.scaler.scale(total)
        run_backward(scaled_loss)

    def _finish_gradients(self, *, is_strict: bool) -> None:
        if self.scaled_update is not None and self.clipping.is_enabled:
            self.scaled_update.scaler.unscale_(self.scaled_update.optimizer)
        self.clipping.clip(self.parameters)
        if is_strict and self.scaled_update is None:
            require_finite_gradients(self.parameters, self.is_true_on_any_part)

    def clear_gradients(self) -> None:
        """Remove all gradients."""
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad(set_to_none=True), without a wrapper that costs as much as a kernel


@dataclass(frozen=True)
class GradientAccumulation:
    """How an epoch's batches are combined to updates."""

    batch_weights: Sequence[BatchWeight]  # of every batch of the epoch
    batch: Callable[[], int]  # returns the index of the next batch, from 0


def make_training_step(
    gradients: GradientComputation,
    optimizer: Optimizer,
    update: Callable[[], None],
    after_update: Callable[[], None],
    accumulation: GradientAccumulation | None = None,
) -> Step:
    """Make the step that trains on one batch.

    An accumulated update is skipped if `gradients` raised for one of its batches. An optimizer that evaluates the loss
    itself, such as LBFGS, updates with every batch.

    Args:
        gradients: computes the gradients of a batch.
        optimizer: the optimizer; without trainable parameters, the step only evaluates.
        update: makes the optimizer's step with the gradients of the parameters.
        after_update: called after each update.
        accumulation: how to combine batches to updates; None updates with every batch.

    Returns:
        The step from (inputs, targets) to (output, loss).
    """
    if not any(each.requires_grad for each in gradients.parameters):
        return make_evaluation_step(gradients.forward, gradients.criterion)
    if needs_closure(optimizer):
        return _make_closure_step(gradients, optimizer, after_update)
    if accumulation is not None:
        return _make_accumulating_step(gradients, update, after_update, accumulation)

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output, loss = gradients(inputs, targets)
        update()
        after_update()
        return detach_output(output), loss.detach()

    return step


def _make_accumulating_step(
    gradients: GradientComputation,
    update: Callable[[], None],
    after_update: Callable[[], None],
    accumulation: GradientAccumulation,
) -> Step:
    """Make a step that updates after multiple batches with their mean gradient, unless one of them is not finite."""
    has_bad_batch = False

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        nonlocal has_bad_batch
        batch_weight = accumulation.batch_weights[accumulation.batch()]
        has_bad_batch = has_bad_batch and not batch_weight.is_first
        try:
            output, loss = gradients.accumulate(inputs, targets, batch_weight)
        except NotFinite:
            has_bad_batch = True
            raise
        if batch_weight.is_last and not has_bad_batch:
            update()
            after_update()
        return detach_output(output), loss.detach()

    return step


def _make_closure_step(gradients: GradientComputation, optimizer: Optimizer, after_update: Callable[[], None]) -> Step:
    """Make a step for optimizers such as LBFGS, which evaluate the loss multiple times in each update."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        first_result: list[tuple[Any, Tensor]] = []  # this batch's loss before the update, as in any other step

        def closure() -> Tensor:
            # Only the first loss is checked: a line search may try weights with an infinite loss, and reject them.
            output, loss = gradients(inputs, targets, is_first=not first_result)
            if not first_result:
                first_result.append((detach_output(output), loss.detach()))
            return total_loss(loss)

        optimizer.step(closure)  # type: ignore[arg-type]
        after_update()
        return first_result[0]

    return step


def make_evaluation_step(forward: Callable[..., Any], criterion: CriterionProtocol) -> Step:
    """Make the step that computes output and loss of one batch without training."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output = forward(*inputs)
        return detach_output(output), criterion(output, targets).detach()

    return step


def detach_output(output: Any) -> Any:
    """Detach a network's output, a tensor or a nested tuple, list or mapping of tensors, from the autograd graph."""
    return map_tensors(Tensor.detach, output)
