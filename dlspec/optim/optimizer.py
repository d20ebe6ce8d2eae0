"""Optimizers: made with a fused kernel where there is one, and restored."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.compat.torch_optim import mark_stepped

KERNEL_SETTINGS = ("fused", "foreach")
UNFUSABLE_SETTINGS = ("capturable", "differentiable")
CPU_ONLY_FUSED = (torch.optim.Adagrad,)
"""Those that have a fused kernel there alone."""
FUSED_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def make_optimizer(
    optimizer_class: type[Optimizer],
    groups: Iterable[Any],
    settings: Mapping[str, Any],
    *,
    fuse: bool = True,
) -> Optimizer:
    """An optimizer of that class, with `fused=True` where class and parameters allow and the settings do not choose.

    `fuse=False` keeps it out, for networks with sparse gradients (see `has_sparse_gradients`), which no fused kernel
    takes. `groups` is whatever PyTorch's constructor takes: parameters, (name, parameter) pairs, or mappings of them.
    No parameters at all makes PyTorch's own ValueError.
    """
    groups = list(groups)
    parameters = [each for group in groups for each in _list_group_parameters(group)]
    with without_dynamo():
        if fuse and can_fuse(optimizer_class, parameters, settings):
            return optimizer_class(groups, **{**settings, "fused": True})
        return optimizer_class(groups, **settings)


def can_fuse(optimizer_class: type[Optimizer], parameters: list[Tensor], settings: Mapping[str, Any]) -> bool:
    """Whether PyTorch has a kernel that steps all of these parameters at once, and the settings leave the choice."""
    if any(settings.get(name) is not None for name in KERNEL_SETTINGS) or any(
        settings.get(name) for name in UNFUSABLE_SETTINGS
    ):
        return False
    if "fused" not in inspect.signature(optimizer_class).parameters:
        return False
    devices = ("cpu",) if issubclass(optimizer_class, CPU_ONLY_FUSED) else ("cpu", "cuda")
    return all(each.device.type in devices and each.dtype in FUSED_DTYPES for each in parameters)


def has_sparse_gradients(network: nn.Module) -> bool:
    """Whether an embedding in it was built with `sparse=True`."""
    return any(isinstance(each, nn.Embedding | nn.EmbeddingBag) and each.sparse for each in network.modules())


def _list_group_parameters(group: Any) -> list[Tensor]:
    if isinstance(group, Tensor):
        return [group]
    if isinstance(group, Mapping):
        params = group["params"]
        return (
            [params] if isinstance(params, Tensor) else [each for one in params for each in _list_group_parameters(one)]
        )
    return [each for each in group if isinstance(each, Tensor)]  # (name, parameter)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether a step evaluates the loss again and again, as LBFGS's does."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Gives it a state that `state_dict` gave, whose tensors it takes as they are; raises ValueError for another's.

    A fused kernel asks nothing, and would read behind the end of what is too small for its parameter.
    """
    with without_dynamo():
        optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, each in optimizer.state.get(parameter, {}).items():
                expected = () if name == "step" else parameter.shape
                if isinstance(each, Tensor) and each.shape != expected:
                    raise ValueError(f"the optimizer's {name} is {tuple(each.shape)} for a {tuple(parameter.shape)}")
    mark_stepped(optimizer)
