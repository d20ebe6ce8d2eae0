"""How much memory an optimizer's state needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.data.batches.tensor_tree import iterate_tensors
from dlspec.optim.optimizer import make_optimizer, needs_closure


def count_bytes(tensor: Tensor) -> int:
    """Return the size of a tensor's numbers in bytes."""
    return tensor.numel() * tensor.element_size()


def estimate_state_bytes(optimizer: Optimizer, count: Callable[[Tensor], int] = count_bytes) -> int | None:
    """Estimate the size of an optimizer's state in bytes; None if it can't be estimated.

    One step is tried on a parameter of 16 numbers with each group's settings, and state tensors of the parameter's size
    are counted: Adam has two, SGD none, or one with momentum. LBFGS has `2 * history_size` and a few more in the end.

    Args:
        optimizer: the optimizer, which is not changed.
        count: returns how many bytes of a parameter this process has; by default all.
    """
    try:
        return sum(
            _count_state_tensors(optimizer, group) * sum(map(count, group["params"]))
            for group in optimizer.param_groups
        )
    except Exception:  # a custom optimizer that fails on the tried parameter
        return None


def _count_state_tensors(optimizer: Optimizer, group: dict[str, Any]) -> int:
    """Count the state tensors of the parameter's size after one step."""
    if needs_closure(optimizer):
        return 2 * int(group["history_size"]) + 3
    state = make_trial_state(optimizer, group, (4, 4))
    return sum(each.numel() == 16 for each in iterate_tensors(state))


def make_trial_state(optimizer: Optimizer, group: dict[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """Return the state that an optimizer of the same class has for a small parameter after one step.

    Args:
        optimizer: the optimizer, which is not changed. It must not need a closure.
        group: the group whose settings are tried.
        shape: the shape of the tried parameter.
    """
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {name: each for name, each in group.items() if name in accepted and name != "params"}
    probe = nn.Parameter(torch.ones(*shape))
    ones = torch.ones(*shape)
    probe.grad = ones.to_sparse() if type(optimizer).__name__ == "SparseAdam" else ones
    trial_optimizer = make_optimizer(type(optimizer), [probe], settings)
    make_step_function(trial_optimizer)()
    return dict(trial_optimizer.state[probe])
