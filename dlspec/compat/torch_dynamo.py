"""PyTorch's compiler front end, `torch._dynamo`: done without as long as nothing is compiled.

Constructing any optimizer imports it, and so do the first `step` of most, the switch to deterministic algorithms and
the first operation below a dispatch mode: more than a short run trains, and none of them needs it. What is done here
in its place gives the same numbers to the last bit. Wherever PyTorch is not built as expected, or the compiler has
been imported already, PyTorch's own way is taken.
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

from dlspec.compat.torch_optim import mark_stepped

WRAPPED_METHODS = ("state_dict", "load_state_dict", "zero_grad", "add_param_group")
"""The methods that `torch._compile._disable_dynamo` wraps."""
CACHE_ATTRIBUTE = "__dynamo_disable"
"""The attribute in which it keeps its version of each."""


def is_dynamo_imported() -> bool:
    """Whether the compiler's front end has been imported in this process."""
    return "torch._dynamo" in sys.modules


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Within it an optimizer's constructor, `state_dict` and their like do not import `torch._dynamo`.

    Each wrapped method looks for its compiler-proof version on the raw function; within this block it finds the raw
    function itself, which is the same thing as long as nothing is being compiled.
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
    """The function inside the wrapper, if there is one that has not met the compiler yet."""
    raw = getattr(getattr(Optimizer, name, None), "__wrapped__", None)
    usable = getattr(raw, "__code__", None) is not None and not hasattr(raw, CACHE_ATTRIBUTE)
    return raw if usable else None


def make_step_function(optimizer: Optimizer) -> Callable[[], None]:
    """What to call for one step: `optimizer.step()` in effect, without importing `torch._dynamo`.

    Make it after the learning-rate schedulers, which put a wrapper of theirs around `step`.
    """
    raw = _find_raw_step(optimizer)
    if raw is None:
        return lambda: optimizer.step(None)

    def step() -> None:
        if _has_step_hooks(optimizer):
            optimizer.step()
            return
        with torch.no_grad():  # what PyTorch's wrapper does around it when `differentiable` is off
            raw(optimizer)
        mark_stepped(optimizer)

    return step


def _find_raw_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """The undecorated step, if it is exactly PyTorch's profiling wrapper around its gradient switch around it."""
    if is_dynamo_imported() or optimizer.defaults.get("differentiable", False) or not _has_known_hooks(optimizer):
        return None
    own_step = vars(optimizer).get("step")
    if own_step is not None and not hasattr(own_step, "_wrapped_by_lr_sched"):
        return None
    hooked = type(optimizer).step
    switch = getattr(hooked, "__wrapped__", None)
    raw: Callable[[Optimizer], Any] | None = getattr(switch, "__wrapped__", None)
    expected = ("Optimizer.profile_hook_step.<locals>.wrapper", "_use_grad_for_differentiable.<locals>._use_grad")
    if raw is None or (_defining_name(hooked), _defining_name(switch)) != expected or hasattr(raw, "__wrapped__"):
        return None
    return raw


def _defining_name(function: Any) -> str:
    """Qualified name of the code of a function of `torch.optim.optimizer`; `functools.wraps` does not change it."""
    code = getattr(function, "__code__", None)
    return code.co_qualname if code is not None and code.co_filename == optimizer_module.__file__ else ""


def _has_known_hooks(optimizer: Optimizer) -> bool:
    hook_names, shared = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"), optimizer_module
    return all(hasattr(optimizer, name) for name in hook_names) and hasattr(shared, "_global_optimizer_post_hooks")


def _has_step_hooks(optimizer: Optimizer) -> bool:
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or optimizer_module._global_optimizer_pre_hooks
        or optimizer_module._global_optimizer_post_hooks
    )


def use_deterministic_algorithms(is_on: bool, *, warn_only: bool) -> None:
    """Do what `torch.use_deterministic_algorithms` does, without importing the compiler for a switch of its own."""
    switch = getattr(torch._C, "_set_deterministic_algorithms", None)
    if switch is None or "torch._inductor.config" in sys.modules:
        switch = torch.use_deterministic_algorithms
    switch(is_on, warn_only=warn_only)


def silence_graph_breaks() -> None:
    """Keep the compiler from warning of what it leaves out of its graphs."""
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
