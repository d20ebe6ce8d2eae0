"""Avoiding the import of `torch._dynamo`, the front end of PyTorch's compiler, if nothing is compiled.

Creating any optimizer imports it, and so do the first `step` of most optimizers, the switch to deterministic algorithms
and the first operation under a dispatch mode. None of them needs it, and the import takes longer than a short run
trains. The replacements here give bit-identical results. If PyTorch's code is not as expected, or the compiler has
already been imported, PyTorch's own functions are called.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_module

from dlspec.compat.torch_optim import has_step_hooks, mark_optimizer_stepped

# The methods that `torch._compile._disable_dynamo` wraps.
WRAPPED_METHODS = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
# The attribute in which `_disable_dynamo` caches the wrapped version of each method.
CACHE_ATTRIBUTE = "__dynamo_disable"


def is_dynamo_imported() -> bool:
    """Whether the compiler's front end has been imported in this process."""
    return "torch._dynamo" in sys.modules


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Keep an optimizer's constructor and its `WRAPPED_METHODS` from importing `torch._dynamo` within this context.

    Each wrapped method looks up the version that the compiler must not trace as an attribute of the raw function.
    Within this context it finds the raw function itself, which does the same if nothing is being compiled.
    """
    raws = [] if is_dynamo_imported() else [raw for name in WRAPPED_METHODS if (raw := _find_raw_method(name))]
    for raw in raws:
        setattr(raw, CACHE_ATTRIBUTE, raw)
    try:
        yield
    finally:
        for raw in raws:
            delattr(raw, CACHE_ATTRIBUTE)


def _find_raw_method(name: str) -> Callable[..., Any] | None:
    """Return the function inside the wrapper of a method, or None if the wrapper has already been called."""
    raw = getattr(getattr(Optimizer, name, None), "__wrapped__", None)
    usable = getattr(raw, "__code__", None) is not None and not hasattr(raw, CACHE_ATTRIBUTE)
    return raw if usable else None


def make_step_function(optimizer: Optimizer) -> Callable[[], None]:
    """Return a function that does what `optimizer.step()` does, without importing `torch._dynamo`.

    Call this after creating the learning-rate schedulers, because they wrap `step`.
    """
    raw = _find_undecorated_step(optimizer)
    if raw is None:
        return lambda: optimizer.step(None)

    def step() -> None:
        if has_step_hooks(optimizer):
            optimizer.step()
            return
        with torch.no_grad():  # as PyTorch's wrapper does if `differentiable` is off
            raw(optimizer)
        mark_optimizer_stepped(optimizer)

    return step


def _find_undecorated_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """Return the undecorated `step`, or None if its wrappers are not exactly PyTorch's two.

    These are the profiling wrapper and, inside it, the wrapper that switches gradients off.
    """
    if is_dynamo_imported() or optimizer.defaults.get("differentiable", False) or not _has_known_hooks(optimizer):
        return None
    own_step = vars(optimizer).get("step")
    if own_step is not None and not hasattr(own_step, "_wrapped_by_lr_sched"):
        return None
    hooked = type(optimizer).step
    switch = getattr(hooked, "__wrapped__", None)
    raw: Callable[[Optimizer], Any] | None = getattr(switch, "__wrapped__", None)
    expected = ("Optimizer.profile_hook_step.<locals>.wrapper", "_use_grad_for_differentiable.<locals>._use_grad")
    if raw is None or (_get_code_name(hooked), _get_code_name(switch)) != expected or hasattr(raw, "__wrapped__"):
        return None
    return raw


def _get_code_name(function: Any) -> str:
    """Return the qualified name of a function's code if it is in `torch.optim.optimizer`, else ''.

    `functools.wraps` does not change the code's name.
    """
    code = getattr(function, "__code__", None)
    return code.co_qualname if code is not None and code.co_filename == optimizer_module.__file__ else ""


def _has_known_hooks(optimizer: Optimizer) -> bool:
    hook_names, shared = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"), optimizer_module
    return all(hasattr(optimizer, name) for name in hook_names) and hasattr(shared, "_global_optimizer_post_hooks")


def use_deterministic_algorithms(is_on: bool, *, warn_only: bool) -> None:
    """Do what `torch.use_deterministic_algorithms` does, without importing the compiler to set its own switch."""
    switch = getattr(torch._C, "_set_deterministic_algorithms", None)
    if switch is None or "torch._inductor.config" in sys.modules:
        switch = torch.use_deterministic_algorithms
    switch(is_on, warn_only=warn_only)


def silence_graph_breaks() -> None:
    """Silence the compiler's warnings about code that it can't include in its graphs."""
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
