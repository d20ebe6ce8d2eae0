"""Private parts of PyTorch's optimizers: the flag that schedulers look at, and the fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
    network. The function keeps them until the optimizer's state is loaded.

    Args:
        optimizer: the optimizer.
        step: makes its step; called for the first step, and whenever a parameter has no gradient.
    """
    make_call = _FUSED_CALLS.get(type(optimizer))
    if make_call is None or not all(map(_has_plain_kernel, optimizer.param_groups)):
        return step
    calls: list[Callable[[list[Tensor]], None]] = []
    state: Mapping[Tensor, Any] | None = None  # for which the calls were made; loading a state replaces it
    has_momentum: list[bool] = []  # in the groups when the calls were made: without it PyTorch keeps no buffers

    def fused_step() -> None:
        nonlocal state
        gradients = [[each.grad for each in group["params"]] for group in optimizer.param_groups]
        if has_step_hooks(optimizer) or any(each is None for group in gradients for each in group):
            step()
            return
        now = [bool(group.get("momentum")) for group in optimizer.param_groups]
        if has_momentum != now or optimizer.state is not state:
            step()
            has_momentum[:], state = now, optimizer.state
            calls[:] = [make_call(group, optimizer.state) for group in optimizer.param_groups]
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


def _make_adam_call(group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> Callable[[list[Tensor]], None]:
    states = [state[each] for each in group["params"]]
    means, squares = ([each[name] for each in states] for name in ("exp_avg", "exp_avg_sq"))
    counts = torch.stack([each["step"] for each in states])  # one addition instead of one for each parameter
    steps = list(counts.unbind())
    for each, step in zip(states, steps, strict=True):
        each["step"] = step
    kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def call(gradients: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        counts.add_(1)
        kernel(
            group["params"], gradients, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=group["maximize"],
        )  # fmt: skip

    return call


def _make_sgd_call(group: Mapping[str, Any], state: Mapping[Tensor, Any]) -> Callable[[list[Tensor]], None]:
    buffers = [state.get(each, {}).get("momentum_buffer") for each in group["params"]]

    def call(gradients: list[Tensor]) -> None:
        has_momentum = group["momentum"] != 0
        torch._fused_sgd_(
            group["params"], gradients, buffers if has_momentum else [], lr=group["lr"], momentum=group["momentum"],
            weight_decay=group["weight_decay"], dampening=group["dampening"], nesterov=group["nesterov"],
            maximize=group["maximize"], is_first_step=False,
        )  # fmt: skip

    return call


_FUSED_CALLS: Mapping[
    type[Optimizer], Callable[[Mapping[str, Any], Mapping[Tensor, Any]], Callable[[list[Tensor]], None]]
] = {Adam: _make_adam_call, AdamW: _make_adam_call, SGD: _make_sgd_call}
