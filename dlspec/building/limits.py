"""Refuses a layer that this machine's memory can't hold before PyTorch asks for it: an allocation may be granted,
and the process killed when it is filled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
# Where the machine does not say what it has.
FALLBACK = 64 * 2**30


class TooLarge(ValueError):
    """The tensors of a network are more than the memory holds."""


class SizeLimit(TorchFunctionMode):
    """Within it tensors of `limit` bytes in all can be made; the next one raises `TooLarge` before it is there."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.total = limit, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            self._count(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _count(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sizes = kwargs.get("size", args[0] if args and isinstance(args[0], list | tuple) else args)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        self.total += math.prod(each for each in sizes if isinstance(each, int)) * dtype.itemsize
        if self.total > self.limit:
            raise TooLarge(f"its weights would fill {in_words(self.total)}; this machine has {in_words(self.limit)}")


def memory() -> int:
    """The bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return FALLBACK


def in_words(count: int) -> str:
    """`3.1 TB`, `16 GB`."""
    power = min(6, max(0, (len(str(count)) - 1) // 3))
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"
