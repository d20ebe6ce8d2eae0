"""Build an optimizer, with a fused kernel where PyTorch has one, and restore its state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dtensor import is_sharded
from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.compat.torch_optim import mark_optimizer_stepped

KERNEL_SETTINGS = ("fused", "foreach")
UNFUSABLE_SETTINGS = ("capturable", "differentiable")
CPU_ONLY_FUSED = (torch.optim.Adagrad,)  # have a fused kernel on the CPU, but not on CUDA
SHARDED_FUSED = (torch.optim.Adam, torch.optim.AdamW)  # have a fused kernel for parameters that are divided
FUSED_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def make_optimizer(
    optimizer_class: type[Optimizer],
    groups: Iterable[Any],
    settings: Mapping[str, Any],
    *,
    fuse: bool = True,
) -> Optimizer:
    """Build an optimizer, with `fused=True` if the class and the parameters support it and the settings leave it open.

    Args:
        optimizer_class: a subclass of `torch.optim.Optimizer`.
        groups: anything that PyTorch's constructor accepts: parameters, (name, parameter) pairs, or group dicts.
        settings: keyword arguments of the constructor, such as `lr`.
        fuse: False never chooses the fused kernel. Needed for networks with sparse gradients (see
            `has_sparse_gradients`), which fused kernels do not support.

    Returns:
        The optimizer.

    Raises:
        ValueError: from PyTorch, for an empty list of parameters.
    """
    groups = list(groups)
    parameters = [each for group in groups for each in _list_group_parameters(group)]
    with without_dynamo():
        if fuse and can_fuse(optimizer_class, parameters, settings):
            return optimizer_class(groups, **{**settings, "fused": True})
        return optimizer_class(groups, **settings)


def can_fuse(optimizer_class: type[Optimizer], parameters: list[Tensor], settings: Mapping[str, Any]) -> bool:
    """Return whether a fused kernel can update these parameters, and the settings do not choose a kernel themselves.

    Args:
        optimizer_class: a subclass of `torch.optim.Optimizer`.
        parameters: all parameters to optimize. The kernels support only some devices and dtypes.
        settings: keyword arguments of the constructor.
    """
    if any(settings.get(name) is not None for name in KERNEL_SETTINGS) or any(
        settings.get(name) for name in UNFUSABLE_SETTINGS
    ):
        return False
    if "fused" not in inspect.signature(optimizer_class).parameters:
        return False
    if any(map(is_sharded, parameters)) and optimizer_class not in SHARDED_FUSED:
        return False
    devices = ("cpu",) if issubclass(optimizer_class, CPU_ONLY_FUSED) else ("cpu", "cuda")
    return all(each.device.type in devices and each.dtype in FUSED_DTYPES for each in parameters)


def has_sparse_gradients(network: nn.Module) -> bool:
    """Return whether any embedding in the network was built with `sparse=True`."""
    return any(isinstance(each, nn.Embedding | nn.EmbeddingBag) and each.sparse for each in network.modules())


def _list_group_parameters(group: Any) -> list[Tensor]:
    if isinstance(group, Tensor):
        return [group]
    if isinstance(group, Mapping):
        params = group["params"]
        return (
            [params] if isinstance(params, Tensor) else [each for one in params for each in _list_group_parameters(one)]
        )
    return [each for each in group if isinstance(each, Tensor)]  # a (name, parameter) pair


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether `optimizer.step` requires a closure that evaluates the loss again, as for LBFGS."""
    return _takes_closure(type(optimizer).step)


@cache
def _takes_closure(step: Callable[..., Any]) -> bool:
    closure = inspect.signature(step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def convert_first_state(optimizer: Optimizer) -> None:
    """Convert the state that an optimizer such as Adagrad makes at once to the dtype of its parameters."""
    for parameter, state in optimizer.state.items():
        for name, each in state.items():
            if isinstance(each, Tensor) and each.shape == parameter.shape and each.is_floating_point():
                state[name] = each.to(parameter.dtype)


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict into an optimizer. The optimizer keeps the tensors without copying them.

    Shapes are checked for fused kernels: they do not check, and would read past the end of a tensor that is too small.

    Raises:
        ValueError: if the state belongs to another optimizer or to parameters of other shapes.
    """
    with without_dynamo():
        optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, each in optimizer.state.get(parameter, {}).items():
                expected = () if name == "step" else parameter.shape
                if isinstance(each, Tensor) and each.shape != expected:
                    raise ValueError(
                        f"the optimizer's {name} has shape {tuple(each.shape)}, its parameter {tuple(parameter.shape)}"
                    )
    mark_optimizer_stepped(optimizer)
