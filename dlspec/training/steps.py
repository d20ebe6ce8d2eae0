"""What is done with one batch. Each function here queues work on the device and waits for none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.training.criterion import Criterion, Targets
from dlspec.training.optimizing import needs_closure, step_function

Inputs = tuple[Tensor, ...]
Step = Callable[[Inputs, Targets], tuple[Any, Tensor]]
"""Does one batch: (inputs, targets) to (detached output, detached loss as the criterion gives it)."""


@dataclass(frozen=True)
class Clipping:
    """The largest norm of all gradients together, and the largest absolute value of each; None leaves them."""

    norm: float | None = None
    value: float | None = None

    def clip(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True)
class Gradients:
    """A batch's output and loss; the gradients are left in the parameters, clipped."""

    network: nn.Module
    criterion: Criterion
    parameters: Sequence[nn.Parameter]
    clipping: Clipping

    def __call__(self, inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        for parameter in self.parameters:
            parameter.grad = None  # zero_grad(set_to_none=True), without a wrapper that costs as much as a kernel
        output = self.network(*inputs)
        loss = self.criterion(output, targets)
        (loss[0] if loss.dim() else loss).backward()  # type: ignore[no-untyped-call]  # the first is the terms' sum
        self.clipping.clip(self.parameters)
        return output, loss


def training_step(
    network: nn.Module,
    criterion: Criterion,
    optimizer: Optimizer | None,
    clipping: Clipping,
    after_update: Callable[[], None],
) -> Step:
    """What trains on one batch, chosen once so that the loop asks no questions. `after_update` follows every update.

    A network in which nothing can be trained is only evaluated. Make the optimizer's schedulers first.
    """
    parameters = list(network.parameters())
    if optimizer is None or not any(each.requires_grad for each in parameters):
        return evaluation_step(network, criterion)
    gradients = Gradients(network, criterion, parameters, clipping)
    if needs_closure(optimizer):
        return _closure_step(gradients, optimizer, after_update)
    update = step_function(optimizer)

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output, loss = gradients(inputs, targets)
        update()
        after_update()
        return detached(output), loss.detach()

    return step


def _closure_step(gradients: Gradients, optimizer: Optimizer, after_update: Callable[[], None]) -> Step:
    """For LBFGS and its like, which ask for the loss and its gradients as often as they want."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        first: list[tuple[Any, Tensor]] = []  # this batch's loss before the update, as in any other step

        def closure() -> Tensor:
            output, loss = gradients(inputs, targets)
            if not first:
                first.append((detached(output), loss.detach()))
            return loss[0] if loss.dim() else loss

        optimizer.step(closure)  # type: ignore[arg-type]
        after_update()
        return first[0]

    return step


def evaluation_step(network: nn.Module, criterion: Criterion) -> Step:
    """What only looks at one batch."""

    def step(inputs: Inputs, targets: Targets) -> tuple[Any, Tensor]:
        output = network(*inputs)
        return detached(output), criterion(output, targets).detach()

    return step


def detached(output: Any) -> Any:
    """A network's output without its gradient graph: a tensor, or several in a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, Mapping):
        return {name: detached(each) for name, each in output.items()}
    return tuple(detached(each) for each in output) if isinstance(output, list | tuple) else output
