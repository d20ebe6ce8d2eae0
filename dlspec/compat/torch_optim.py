"""Private parts of PyTorch's optimizers: the flag that schedulers look at, and the fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Return a function that does what `step` does, and calls the fused kernel of the CPU directly where it can.

    PyTorch collects the tensors of all parameters again in every step, which takes longer than the kernel for a small
    network. The function keeps them until the optimizer's state is loaded, or its tensors are moved.

    Args:
        optimizer: the optimizer.
        step: makes its step; called for the first step, and whenever a parameter has no gradient.
    """
    make_call = _FUSED_CALLS.get(type(optimizer))
    if make_call is None or not all(map(_has_plain_kernel, optimizer.param_groups)):
        return step
    calls: list[_FusedCall] = []
    state: Mapping[Tensor, Any] | None = None  # for which the calls were made; loading a state replaces it

    def fused_step() -> None:
        nonlocal state
        gradients = [[each.grad for each in group["params"]] for group in optimizer.param_groups]
        if has_step_hooks(optimizer) or any(each is None for group in gradients for each in group):
            step()
            return
        if optimizer.state is not state or any(each.is_outdated() for each in calls):
            step()
            state = optimizer.state
            calls[:] = [make_call(group, state) for group in optimizer.param_groups]
            return
        with torch.no_grad():
            for call, group in zip(calls, gradients, strict=True):
                call(group)
        mark_optimizer_stepped(optimizer)

    return fused_step


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

    def __call__(self, gradients: list[Tensor]) -> None:
        """Update the group's parameters."""


class _AdamCall:
    """Calls the kernel of Adam or AdamW."""

    def __init__(self, group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> None:
        states = [state[each] for each in group["params"]]
        self._group = group
        self._means, self._squares = ([each[name] for each in states] for name in ("exp_avg", "exp_avg_sq"))
        self._counts = torch.stack([each["step"] for each in states])  # one addition instead of one a parameter
        self._steps = list(self._counts.unbind())
        for each, step in zip(states, self._steps, strict=True):
            each["step"] = step
        self._kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def is_outdated(self) -> bool:
        return self._steps[0].data_ptr() != self._counts.data_ptr()

    def __call__(self, gradients: list[Tensor]) -> None:
        group = self._group
        beta1, beta2 = group["betas"]
        self._counts.add_(1)
        self._kernel(
            group["params"], gradients, self._means, self._squares, [], self._steps, lr=group["lr"], beta1=beta1,
            beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False,
            maximize=group["maximize"],
        )  # fmt: skip


class _SgdCall:
    """Calls the kernel of SGD."""

    def __init__(self, group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> None:
        self._group, self._has_momentum = group, bool(group["momentum"])
        buffers = [state.get(each, {}).get("momentum_buffer") for each in group["params"]]
        self._buffers = buffers if self._has_momentum else []

    def is_outdated(self) -> bool:
        return bool(self._group["momentum"]) != self._has_momentum  # without momentum PyTorch keeps no buffers

    def __call__(self, gradients: list[Tensor]) -> None:
        group = self._group
        torch._fused_sgd_(
            group["params"], gradients, self._buffers, lr=group["lr"], momentum=group["momentum"],
            weight_decay=group["weight_decay"], dampening=group["dampening"], nesterov=group["nesterov"],
            maximize=group["maximize"], is_first_step=False,
        )  # fmt: skip


_FUSED_CALLS: Mapping[type[Optimizer], Callable[[Mapping[str, Any], Mapping[Tensor, Any]], _FusedCall]] = {
    Adam: _AdamCall,
    AdamW: _AdamCall,
    SGD: _SgdCall,
}
