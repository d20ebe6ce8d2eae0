"""What is done with one batch. Each function here queues work on the device and waits for none of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.optim.optimizer import needs_closure
from dlspec.training.criterion_interface import CriterionProtocol, Targets, total_loss
from dlspec.training.health.nan_checks import LossCheck, NotFinite, require_finite_gradients
from dlspec.training.step.precision import ScaledUpdate

Inputs = tuple[Tensor, ...]
Step = Callable[[Inputs, Targets], tuple[Any, Tensor]]
"""Does one batch: (inputs, targets) to (detached output, detached loss as the criterion gives it)."""


@dataclass(frozen=True)
class GradientClipping:
    """The largest norm of all gradients together, and the largest absolute value of each; None leaves them."""

    norm: float | None = None
    value: float | None = None

    @property
    def is_enabled(self) -> bool:
        return self.norm is not None or self.value is not None

    def clip(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True)
class BatchWeight:
    """A batch's part in an update: the weight of its gradient, and whether it is the update's first and last batch."""

    weight: float
    is_first: bool
    is_last: bool


def compute_batch_weights(sizes: Sequence[int], accumulate: int) -> list[BatchWeight]:
    """Each batch's share of an epoch with batches of these sizes; what is left at its end makes an update of its own.

    A batch weighs as many samples as it has, so that for a loss that is a mean over samples the update is that of all
    its batches in one.
    """
    updates = [sizes[start : start + accumulate] for start in range(0, len(sizes), accumulate)]
    return [
        BatchWeight(size / sum(update), position == 0, position == len(update) - 1)
        for update in updates
        for position, size in enumerate(update)
    ]


@dataclass(frozen=True)
class GradientComputation:
    """A batch's output and loss; the gradients are left in the parameters, clipped.

    `forward` gives the network's output. `look` is shown the loss before anything is changed by it, and may raise.
    `is_strict` demands that the gradients are finite, too, but with `scaled` ones, those of float16, which deal with
    that themselves.
    """

    forward: Callable[..., Any]
    criterion: CriterionProtocol
    parameters: Sequence[nn.Parameter]
    clipping: GradientClipping
    check_loss: LossCheck
    scaled_update: ScaledUpdate | None = None
    is_strict: bool = False

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
        """Adds the batch's share to the gradients; they are clipped when they are whole."""
        if batch_weight.is_first:
            self.clear_gradients()
        output = self.forward(*inputs)
        loss = self.criterion(output, targets)
        total = total_loss(loss)
        self.check_loss(total)
        self._backward(total * batch_weight.weight)
        if batch_weight.is_last:
            self._finish_gradients(is_strict=self.is_strict)
        return output, loss

    def _backward(self, total: Tensor) -> None:
        scaled_loss = total if self.scaled_update is None else self.scaled_update.scaler.scale(total)
        scaled_loss.backward()  # type: ignore[no-untyped-call]

    def _finish_gradients(self, *, is_strict: bool) -> None:
        if self.scaled_update is not None and self.clipping.is_enabled:
            self.scaled_update.scaler.unscale_(self.scaled_update.optimizer)
        self.clipping.clip(self.parameters)
        if is_strict and self.scaled_update is None:
            require_finite_gradients(self.parameters)

    def clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad(set_to_none=True), without a wrapper that costs as much as a kernel


@dataclass(frozen=True)
class GradientAccumulation:
    """How an epoch's batches make updates; `batch` gives the place of the batch that comes, from 0."""

    batch_weights: Sequence[BatchWeight]
    batch: Callable[[], int]


def make_training_step(
    gradients: GradientComputation,
    optimizer: Optimizer | None,
    after_update: Callable[[], None],
    accumulation: GradientAccumulation | None = None,
) -> Step:
    """What trains on one batch, chosen once so that the loop asks no questions. `after_update` follows every update.

    An update from several batches is made where `gradients` raised for none of them. A network in which nothing can be
    trained is only evaluated. Make the optimizer's schedulers first. An optimizer that evaluates the loss itself
    updates with every batch.
    """
    if optimizer is None or not any(each.requires_grad for each in gradients.parameters):
        return make_evaluation_step(gradients.forward, gradients.criterion)
    if needs_closure(optimizer):
        return _make_closure_step(gradients, optimizer, after_update)
    update = gradients.scaled_update or make_step_function(optimizer)
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
    """Updates once in several batches, with the mean of their gradients; not at all where one of them is not finite."""
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
    """For LBFGS and its like, which ask for the loss and its gradients as often as they want."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        first_result: list[tuple[Any, Tensor]] = []  # this batch's loss before the update, as in any other step

        def closure() -> Tensor:
            # A line search may try weights whose loss is infinite, and come back.
            output, loss = gradients(inputs, targets, is_first=not first_result)
            if not first_result:
                first_result.append((detach_output(output), loss.detach()))
            return total_loss(loss)

        optimizer.step(closure)  # type: ignore[arg-type]
        after_update()
        return first_result[0]

    return step


def make_evaluation_step(forward: Callable[..., Any], criterion: CriterionProtocol) -> Step:
    """What only looks at one batch."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output = forward(*inputs)
        return detach_output(output), criterion(output, targets).detach()

    return step


def detach_output(output: Any) -> Any:
    """A network's output without its gradient graph: a tensor, or several in a tuple, list or mapping."""
    return map_tensors(Tensor.detach, output)
