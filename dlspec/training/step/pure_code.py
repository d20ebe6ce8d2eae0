"""Refuse to compile layers and losses whose Python code does more than compute with tensors.

Compiled code repeats the operations on tensors of one call. A number that Python drew or counted would stay the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

PLAIN_TYPES = (bool, int, float, str, type(None))


class ImpureCode(Exception):
    """A layer or a loss can't be compiled, because its code has effects beside its results."""


@contextmanager
def require_pure_code(*modules: Any) -> Iterator[None]:
    """Raise ImpureCode if Python's or NumPy's generator is used inside the context, or a module's numbers change.

    Both are restored.
    """
    python_state, numpy_state, numbers = random.getstate(), np.random.get_state(), _read_numbers(modules)
    yield
    if random.getstate() != python_state or not _are_equal(np.random.get_state(), numpy_state):
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        raise ImpureCode("it draws random numbers with Python or NumPy")
    for (module, values), (_, now) in zip(numbers, _read_numbers(modules), strict=True):
        if values != now:
            vars(module).update(values)
            raise ImpureCode(f"{type(module).__name__} changes its own attributes")


def _are_equal(state: Any, other: Any) -> bool:
    """Compare two states of NumPy's generator: its keys, and the position in them."""
    return bool(state[2] == other[2] and (state[1] == other[1]).all())


def _read_numbers(modules: tuple[Any, ...]) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Read the attributes of all modules that are plain numbers, strings or None."""
    each_module = (each for module in modules if isinstance(module, nn.Module) for each in module.modules())
    return [
        (each, {name: value for name, value in vars(each).items() if isinstance(value, PLAIN_TYPES)})
        for each in each_module
    ]
