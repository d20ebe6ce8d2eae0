"""Optimizers, made and stepped without the second that `torch.optim` takes to import `torch._dynamo`.

Constructing any optimizer imports the compiler's front end, and so does the first `step` of most: measured 0.8 to
1.1 s, more than a short run trains. Neither needs it. What is done here in its place gives the same weights to the
last bit, and wherever PyTorch is not built as expected, or the compiler is there already, PyTorch's own way is taken.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_module

# The methods that `torch._compile._disable_dynamo` wraps, and the attribute in which it keeps what it made of each.
WRAPPED = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
CACHE = "__dynamo_disable"
OWN_CHOICE = ("fused", "foreach")
UNFUSED = ("capturable", "differentiable")
FUSED_ON_CPU = (torch.optim.Adagrad,)
"""Those that have a fused kernel there alone."""
FUSED_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Within it an optimizer's constructor, `state_dict` and their like do not import `torch._dynamo`.

    Each wrapped method looks for its compiler-proof version on the raw function; for this while it finds the raw
    function itself, which is the same thing as long as nothing is being compiled.
    """
    raws = [] if "torch._dynamo" in sys.modules else [raw for name in WRAPPED if (raw := _raw_method(name))]
    for raw in raws:
        setattr(raw, CACHE, raw)
    try:
        yield
    finally:
        for raw in raws:
            delattr(raw, CACHE)


def _raw_method(name: str) -> Callable[..., Any] | None:
    """The function inside the wrapper, where there is one that has not met the compiler yet."""
    raw = getattr(getattr(Optimizer, name, None), "__wrapped__", None)
    usable = getattr(raw, "__code__", None) is not None and not hasattr(raw, CACHE)
    return raw if usable else None


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
    parameters = [each for group in groups for each in _parameters(group)]
    with without_dynamo():
        if fuse and can_fuse(optimizer_class, parameters, settings):
            return optimizer_class(groups, **{**settings, "fused": True})
        return optimizer_class(groups, **settings)


def can_fuse(optimizer_class: type[Optimizer], parameters: list[Tensor], settings: Mapping[str, Any]) -> bool:
    """Whether PyTorch has a kernel that steps all of these parameters at once, and the settings leave the choice."""
    if any(settings.get(name) is not None for name in OWN_CHOICE) or any(settings.get(name) for name in UNFUSED):
        return False
    if "fused" not in inspect.signature(optimizer_class).parameters:
        return False
    devices = ("cpu",) if issubclass(optimizer_class, FUSED_ON_CPU) else ("cpu", "cuda")
    return all(each.device.type in devices and each.dtype in FUSED_DTYPES for each in parameters)


def has_sparse_gradients(network: nn.Module) -> bool:
    """Whether an embedding in it was built with `sparse=True`."""
    return any(isinstance(each, nn.Embedding | nn.EmbeddingBag) and each.sparse for each in network.modules())


def _parameters(group: Any) -> list[Tensor]:
    if isinstance(group, Tensor):
        return [group]
    if isinstance(group, Mapping):
        params = group["params"]
        return [params] if isinstance(params, Tensor) else [each for one in params for each in _parameters(one)]
    return [each for each in group if isinstance(each, Tensor)]  # (name, parameter)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether a step evaluates the loss again and again, as LBFGS's does."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def step_function(optimizer: Optimizer) -> Callable[[], None]:
    """What to call for one step: `optimizer.step()` in effect, without importing `torch._dynamo`.

    Make it after the learning-rate schedulers, which put a wrapper of theirs around `step`.
    """
    raw = _raw_step(optimizer)
    if raw is None:
        return lambda: optimizer.step(None)

    def step() -> None:
        if _has_step_hooks(optimizer):
            optimizer.step()
            return
        with torch.no_grad():  # what PyTorch's wrapper does around it when `differentiable` is off
            raw(optimizer)
        optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers warn where a step did not happen

    return step


def _raw_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """The undecorated step, if it is exactly PyTorch's profiling wrapper around its gradient switch around it."""
    if "torch._dynamo" in sys.modules or optimizer.defaults.get("differentiable", False):
        return None
    own = vars(optimizer).get("step")
    if own is not None and not hasattr(own, "_wrapped_by_lr_sched"):
        return None
    hooked = type(optimizer).step
    switch = getattr(hooked, "__wrapped__", None)
    raw: Callable[[Optimizer], Any] | None = getattr(switch, "__wrapped__", None)
    expected = ("Optimizer.profile_hook_step.<locals>.wrapper", "_use_grad_for_differentiable.<locals>._use_grad")
    if raw is None or (_made_by(hooked), _made_by(switch)) != expected or hasattr(raw, "__wrapped__"):
        return None
    return raw


def _made_by(function: Any) -> str:
    """Where a function's code was written; `functools.wraps` changes its name, but not this."""
    code = getattr(function, "__code__", None)
    return code.co_qualname if code is not None and code.co_filename == optimizer_module.__file__ else ""


def _has_step_hooks(optimizer: Optimizer) -> bool:
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or optimizer_module._global_optimizer_pre_hooks
        or optimizer_module._global_optimizer_post_hooks
    )


def restore_optimizer(optimizer: Optimizer, own: dict[str, Any]) -> None:
    """Gives it a state that `state_dict` gave, whose tensors it takes as they are; raises ValueError for another's.

    A fused kernel asks nothing, and would read behind the end of what is too small for its parameter.
    """
    with without_dynamo():
        optimizer.load_state_dict(own)
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, each in optimizer.state.get(parameter, {}).items():
                wanted = () if name == "step" else parameter.shape
                if isinstance(each, Tensor) and each.shape != wanted:
                    raise ValueError(f"the optimizer's {name} is {tuple(each.shape)} for a {tuple(parameter.shape)}")
    optimizer._opt_called = True  # type: ignore[attr-defined]  # schedulers ask whether it has stepped
