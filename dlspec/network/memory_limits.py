"""Refuses a layer that this machine's memory can't hold before PyTorch asks for it: an allocation may be granted,
and the process killed when it is filled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from dlspec.formatting import format_bytes
from dlspec.limits import explain_raising_limit, get_limit

_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
# Where the machine does not say what it has.
DEFAULT_MEMORY_BYTES = 64 * 2**30


class NetworkTooLarge(ValueError):
    """The tensors of a network are more than the memory holds."""


def _make_memory_error(total: int, max_bytes: int) -> Exception:
    return NetworkTooLarge(f"its weights would fill {format_bytes(total)}; this machine has {format_bytes(max_bytes)}")


class SizeLimit(TorchFunctionMode):
    """Within it tensors of `limit` bytes in all can be made; the next one is refused before it is there.

    What is raised `refuse` makes, of what all would take and the limit: `NetworkTooLarge`, where nothing else is said.
    """

    def __init__(self, limit: int, make_error: Callable[[int, int], Exception] = _make_memory_error) -> None:
        super().__init__()
        self.limit, self.make_error, self.total = limit, make_error, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            self._count_bytes(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _count_bytes(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sizes = kwargs.get("size", args[0] if args and isinstance(args[0], list | tuple) else args)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        self.total += math.prod(each for each in sizes if isinstance(each, int)) * dtype.itemsize
        if self.total > self.limit:
            raise self.make_error(self.total, self.limit)


_LIMIT_LOCK = RLock()
"""The limit is the process's: two threads would take each other's for what was there before."""


@contextmanager
def limit_memory_growth() -> Iterator[None]:
    """Within it the process may take `sample_bytes` more memory: an output without weights may be of any size."""
    with _LIMIT_LOCK:
        memory_limits = _read_memory_limits()
        if memory_limits is None:
            yield
        else:
            yield from _limit_data_memory(*memory_limits)


def _limit_data_memory(soft: int, hard: int, used: int) -> Iterator[None]:
    import resource

    max_bytes = used + get_limit("sample_bytes")
    resource.setrlimit(
        resource.RLIMIT_DATA, (max_bytes if soft == resource.RLIM_INFINITY else min(max_bytes, soft), hard)
    )
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_failed_allocation(error):
            found = f"an output of a few samples would fill more than {format_bytes(get_limit('sample_bytes'))}"
            raise NetworkTooLarge(f"{found} ({explain_raising_limit('sample_bytes')})") from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_failed_allocation(error: Exception) -> bool:
    """Whether memory was refused. PyTorch raises a plain RuntimeError for it, which only its text tells apart."""
    return isinstance(error, MemoryError) or "allocate" in str(error)


def _read_memory_limits() -> tuple[int, int, int] | None:
    """The limits of this process's data and how much it has; None where the system tells no such thing."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # a few microseconds
            pages = int(file.read().split()[5])
        return (*resource.getrlimit(resource.RLIMIT_DATA), pages * resource.getpagesize())
    except (ImportError, OSError, ValueError, IndexError):
        return None


def get_memory_bytes() -> int:
    """The bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return DEFAULT_MEMORY_BYTES
