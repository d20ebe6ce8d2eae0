"""Private parts of PyTorch's optimizers: the flag that schedulers look at, and the fused kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_module
from torch.optim.adam import Adam
from torch.optim.adamw import AdamW
from torch.optim.sgd import SGD


def mark_optimizer_stepped(optimizer: Optimizer) -> None:
    """Mark an optimizer as stepped, so that learning-rate schedulers do not warn about the order of calls.

    If a later PyTorch no longer uses the flag, setting it has no effect.
    """
    optimizer._opt_called = True  # type: ignore[attr-defined]


def make_fused_step(optimizer: Optimizer, step: Callable[[], None]) -> Callable[[], None]:
    """Return a `FusedStep` where the fused kernels of the CPU can make the optimizer's step, else `step` itself.

    Args:
        optimizer: the optimizer.
        step: makes its step.
    """
    make_call = _FUSED_CALLS.get(type(optimizer))
    if make_call is None or not all(map(_has_plain_kernel, optimizer.param_groups)):
        return step
    return FusedStep(optimizer, step, make_call)


class FusedStep:
    """Does what the optimizer's step does, and calls the fused kernel directly where it can.

    PyTorch collects the tensors of all parameters again in every step, which takes longer than the kernel for a small
    network. Here they are kept until the optimizer's state is loaded, or its tensors are moved.

    Args:
        optimizer: the optimizer.
        step: makes its step; called for the first step, and whenever a parameter has no gradient.
        make_call: makes the call of the kernel for a group of parameters.
    """

    def __init__(self, optimizer: Optimizer, step: Callable[[], None], make_call: _MakeCall) -> None:
        self._optimizer, self._step, self._make_call = optimizer, step, make_call
        self._calls: list[_FusedCall] = []
        self._state: Mapping[Tensor, Any] | None = None  # for which they were made; loading a state replaces it

    def __call__(self) -> None:
        run_fused_steps([self])

    def prepare_calls(self) -> list[_PreparedCall]:
        """Return the calls that make the step; none if PyTorch has made it just now."""
        optimizer = self._optimizer
        gradients = [[each.grad for each in group["params"]] for group in optimizer.param_groups]
        if has_step_hooks(optimizer) or any(each is None for group in gradients for each in group):
            self._step()
            return []
        if optimizer.state is not self._state or any(each.is_outdated() for each in self._calls):
            self._step()
            self._state = optimizer.state
            self._calls = [self._make_call(group, self._state) for group in optimizer.param_groups]
            return []
        mark_optimizer_stepped(optimizer)
        return list(zip(self._calls, gradients, strict=True))


def run_fused_steps(steps: Iterable[FusedStep]) -> None:
    """Make the steps of several optimizers, those whose numbers are equal in one call."""
    groups: defaultdict[Any, list[_PreparedCall]] = defaultdict(list)
    for step in steps:
        for prepared in step.prepare_calls():
            groups[prepared[0].read_numbers()].append(prepared)
    with torch.no_grad():
        for equal in groups.values():
            equal[0][0].run([call for call, _ in equal], [each for _, gradients in equal for each in gradients])


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether something is called before or after each step of the optimizer, or of all optimizers."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or optimizer_module._global_optimizer_pre_hooks
        or optimizer_module._global_optimizer_post_hooks
    )


def _has_plain_kernel(group: Mapping[str, Any]) -> bool:
    """Whether the fused kernel updates a group of parameters, all of one type and on the CPU."""
    kinds = {(each.dtype, each.device.type) for each in group["params"]}
    is_plain = len(kinds) == 1 and next(iter(kinds))[1] == "cpu" and not isinstance(group["lr"], Tensor)
    return bool(is_plain and group.get("fused") and not group.get("amsgrad") and not group.get("differentiable"))


class _FusedCall(Protocol):
    """A call of the kernel for a group of parameters, whose tensors are kept."""

    def is_outdated(self) -> bool:
        """Whether the tensors are no longer those of the optimizer's state."""

    def read_numbers(self) -> Hashable:
        """Read the numbers of the update; groups of equal ones can be updated in one call."""

    def run(self, calls: Sequence[Any], gradients: list[Tensor]) -> None:
        """Update the parameters of calls with the same numbers as this one, which is among them."""


_MakeCall = Callable[[Mapping[str, Any], Mapping[Tensor, Any]], _FusedCall]
_PreparedCall = tuple[_FusedCall, list[Tensor]]  # with the gradients


class _AdamCall:
    """Calls the kernel of Adam or AdamW."""

    def __init__(self, group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> None:
        states = [state[each] for each in group["params"]]
        self._group, self.parameters = group, group["params"]
        self.means, self.squares = ([each[name] for each in states] for name in ("exp_avg", "exp_avg_sq"))
        self.counts = torch.stack([each["step"] for each in states])  # one addition instead of one a parameter
        self.steps = list(self.counts.unbind())
        for each, step in zip(states, self.steps, strict=True):
            each["step"] = step
        self._kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def is_outdated(self) -> bool:
        return self.steps[0].data_ptr() != self.counts.data_ptr()

    def read_numbers(self) -> Hashable:
        group = self._group
        names = ("lr", "weight_decay", "eps", "maximize")
        return self._kernel, self.parameters[0].dtype, *group["betas"], *(group[each] for each in names)

    def run(self, calls: Sequence[_AdamCall], gradients: list[Tensor]) -> None:
        group = self._group
        beta1, beta2 = group["betas"]
        for each in calls:
            each.counts.add_(1)
        self._kernel(
            _join(each.parameters for each in calls), gradients, _join(each.means for each in calls),
            _join(each.squares for each in calls), [], _join(each.steps for each in calls), lr=group["lr"],
            beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False,
            maximize=group["maximize"],
        )  # fmt: skip


class _SgdCall:
    """Calls the kernel of SGD."""

    def __init__(self, group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> None:
        self._group, self.parameters, self._has_momentum = group, group["params"], bool(group["momentum"])
        buffers = [state.get(each, {}).get("momentum_buffer") for each in group["params"]]
        self.buffers = buffers if self._has_momentum else []

    def is_outdated(self) -> bool:
        return bool(self._group["momentum"]) != self._has_momentum  # without momentum PyTorch keeps no buffers

    def read_numbers(self) -> Hashable:
        group = self._group
        names = ("lr", "momentum", "weight_decay", "dampening", "nesterov", "maximize")
        return torch._fused_sgd_, self.parameters[0].dtype, *(group[each] for each in names)

    def run(self, calls: Sequence[_SgdCall], gradients: list[Tensor]) -> None:
        group = self._group
        torch._fused_sgd_(
            _join(each.parameters for each in calls), gradients, _join(each.buffers for each in calls),
            lr=group["lr"], momentum=group["momentum"], weight_decay=group["weight_decay"],
            dampening=group["dampening"], nesterov=group["nesterov"], maximize=group["maximize"], is_first_step=False,
        )  # fmt: skip


def _join(lists: Iterable[list[Tensor]]) -> list[Tensor]:
    return [tensor for each in lists for tensor in each]


_FUSED_CALLS: Mapping[type[Optimizer], _MakeCall] = {Adam: _AdamCall, AdamW: _AdamCall, SGD: _SgdCall}
