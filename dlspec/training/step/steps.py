"""What is done with one batch. Each function here queues work on the device and waits for none of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.data.batches.nests import mapped
from dlspec.optim.optimizer import needs_closure
from dlspec.training.health.finite import Look, NotFinite, demand_finite_gradients
from dlspec.training.protocols import Criterion, Targets, total_loss
from dlspec.training.step.precision import Scaled

Inputs = tuple[Tensor, ...]
Step = Callable[[Inputs, Targets], tuple[Any, Tensor]]
"""Does one batch: (inputs, targets) to (detached output, detached loss as the criterion gives it)."""


@dataclass(frozen=True)
class Clipping:
    """The largest norm of all gradients together, and the largest absolute value of each; None leaves them."""

    norm: float | None = None
    value: float | None = None

    @property
    def is_wanted(self) -> bool:
        return self.norm is not None or self.value is not None

    def clip(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True)
class Share:
    """A batch's part in an update: the weight of its gradient, and whether it is the update's first and last batch."""

    weight: float
    begins: bool
    ends: bool


def shares(sizes: Sequence[int], accumulate: int) -> list[Share]:
    """Each batch's share of an epoch with batches of these sizes; what is left at its end makes an update of its own.

    A batch weighs as many samples as it has, so that for a loss that is a mean over samples the update is that of all
    its batches in one.
    """
    updates = [sizes[start : start + accumulate] for start in range(0, len(sizes), accumulate)]
    return [
        Share(size / sum(update), place == 0, place == len(update) - 1)
        for update in updates
        for place, size in enumerate(update)
    ]


@dataclass(frozen=True)
class Gradients:
    """A batch's output and loss; the gradients are left in the parameters, clipped.

    `forward` gives the network's output. `look` is shown the loss before anything is changed by it, and may raise.
    `is_strict` demands that the gradients are finite, too, but with `scaled` ones, those of float16, which deal with
    that themselves.
    """

    forward: Callable[..., Any]
    criterion: Criterion
    parameters: Sequence[nn.Parameter]
    clipping: Clipping
    look: Look
    scaled: Scaled | None = None
    is_strict: bool = False

    def __call__(self, inputs: Inputs, targets: Targets, *, is_first: bool = True) -> tuple[Any, Tensor]:
        self.clear()
        output = self.forward(*inputs)
        loss = self.criterion(output, targets)
        total = total_loss(loss)
        if is_first:
            self.look(total)
        self._backward(total)
        self._complete(is_strict=self.is_strict and is_first)
        return output, loss

    def accumulate(self, inputs: Inputs, targets: Targets, share: Share) -> tuple[Any, Tensor]:
        """Adds the batch's share to the gradients; they are clipped when they are whole."""
        if share.begins:
            self.clear()
        output = self.forward(*inputs)
        loss = self.criterion(output, targets)
        total = total_loss(loss)
        self.look(total)
        self._backward(total * share.weight)
        if share.ends:
            self._complete(is_strict=self.is_strict)
        return output, loss

    def _backward(self, total: Tensor) -> None:
        scaled = total if self.scaled is None else self.scaled.scaler.scale(total)
        scaled.backward()  # type: ignore[no-untyped-call]

    def _complete(self, *, is_strict: bool) -> None:
        if self.scaled is not None and self.clipping.is_wanted:
            self.scaled.scaler.unscale_(self.scaled.optimizer)
        self.clipping.clip(self.parameters)
        if is_strict and self.scaled is None:
            demand_finite_gradients(self.parameters)

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad(set_to_none=True), without a wrapper that costs as much as a kernel


@dataclass(frozen=True)
class Accumulation:
    """How an epoch's batches make updates; `batch` gives the place of the batch that comes, from 0."""

    shares: Sequence[Share]
    batch: Callable[[], int]


def training_step(
    gradients: Gradients,
    optimizer: Optimizer | None,
    after_update: Callable[[], None],
    accumulation: Accumulation | None = None,
) -> Step:
    """What trains on one batch, chosen once so that the loop asks no questions. `after_update` follows every update.

    An update from several batches is made where `gradients` raised for none of them. A network in which nothing can be
    trained is only evaluated. Make the optimizer's schedulers first. An optimizer that evaluates the loss itself
    updates with every batch.
    """
    if optimizer is None or not any(each.requires_grad for each in gradients.parameters):
        return evaluation_step(gradients.forward, gradients.criterion)
    if needs_closure(optimizer):
        return _closure_step(gradients, optimizer, after_update)
    update = gradients.scaled or make_step_function(optimizer)
    if accumulation is not None:
        return _accumulating_step(gradients, update, after_update, accumulation)

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output, loss = gradients(inputs, targets)
        update()
        after_update()
        return detached(output), loss.detach()

    return step


def _accumulating_step(
    gradients: Gradients, update: Callable[[], None], after_update: Callable[[], None], accumulation: Accumulation
) -> Step:
    """Updates once in several batches, with the mean of their gradients; not at all where one of them is not finite."""
    is_spoiled = False

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        nonlocal is_spoiled
        share = accumulation.shares[accumulation.batch()]
        is_spoiled = is_spoiled and not share.begins
        try:
            output, loss = gradients.accumulate(inputs, targets, share)
        except NotFinite:
            is_spoiled = True
            raise
        if share.ends and not is_spoiled:
            update()
            after_update()
        return detached(output), loss.detach()

    return step


def _closure_step(gradients: Gradients, optimizer: Optimizer, after_update: Callable[[], None]) -> Step:
    """For LBFGS and its like, which ask for the loss and its gradients as often as they want."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        first: list[tuple[Any, Tensor]] = []  # this batch's loss before the update, as in any other step

        def closure() -> Tensor:
            # A line search may try weights whose loss is infinite, and come back.
            output, loss = gradients(inputs, targets, is_first=not first)
            if not first:
                first.append((detached(output), loss.detach()))
            return total_loss(loss)

        optimizer.step(closure)  # type: ignore[arg-type]
        after_update()
        return first[0]

    return step


def evaluation_step(forward: Callable[..., Any], criterion: Criterion) -> Step:
    """What only looks at one batch."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output = forward(*inputs)
        return detached(output), criterion(output, targets).detach()

    return step


def detached(output: Any) -> Any:
    """A network's output without its gradient graph: a tensor, or several in a tuple, list or mapping."""
    return mapped(Tensor.detach, output)
