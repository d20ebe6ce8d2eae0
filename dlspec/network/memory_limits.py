"""Reject a layer that does not fit into memory before it is allocated.

The operating system may grant an allocation that is too large, and kill the process when the memory is used.
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
DEFAULT_MEMORY_BYTES = 64 * 2**30  # where the system does not report its memory


class NetworkTooLarge(ValueError):
    """The tensors of a network do not fit into memory."""


def _make_memory_error(total: int, max_bytes: int) -> Exception:
    return NetworkTooLarge(f"its weights would need {format_bytes(total)}; this machine has {format_bytes(max_bytes)}")


class SizeLimit(TorchFunctionMode):
    """Context that limits the total size of new tensors; a tensor that exceeds it is rejected before it is allocated.

    Args:
        limit: The limit in bytes. It applies to all uses of the context together.
        make_error: Makes the exception to raise from the total size and the limit, by default a `NetworkTooLarge`.
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
"""The limit is one of the whole process: a second thread would restore the temporary limit of the first."""


@contextmanager
def limit_memory_growth() -> Iterator[None]:
    """Return a context in which the process may use only `sample_bytes` more memory.

    It is for passing samples: even a layer without weights may return an output of any size.

    Raises:
        NetworkTooLarge: If more memory is needed.
    """
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
            found = f"the output for a few samples would need more than {format_bytes(get_limit('sample_bytes'))}"
            raise NetworkTooLarge(f"{found} ({explain_raising_limit('sample_bytes')})") from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_failed_allocation(error: Exception) -> bool:
    """Whether memory ran out. PyTorch then raises a RuntimeError, which only its text distinguishes from others."""
    return isinstance(error, MemoryError) or "allocate" in str(error)


def _read_memory_limits() -> tuple[int, int, int] | None:
    """Return the soft and hard limit of this process's memory and its current use in bytes; None if unknown."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # a few microseconds
            pages = int(file.read().split()[5])
        return (*resource.getrlimit(resource.RLIMIT_DATA), pages * resource.getpagesize())
    except (ImportError, OSError, ValueError, IndexError):
        return None


def get_memory_bytes() -> int:
    """Return the size of this machine's memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return DEFAULT_MEMORY_BYTES
