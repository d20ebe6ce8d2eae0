"""How fast a GPU could do a step at most, were each of its kernels as fast as the device's memory or arithmetic.

A kernel takes no less than its floating-point operations at the device's rate, and no less than reading its inputs and
writing its outputs once at the memory's: the larger of both counts, and kernels follow each other (Williams et al.,
"Roofline", CACM 2009). Both rates are measured here: a copy within the device, and products of large matrices.
What fuses kernels, a compiler for one, may be faster than that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

RECURRENT = ("_cudnn_rnn", "_cudnn_rnn_backward")
ROUNDED = ("convolution", "convolution_backward", *RECURRENT)
"""cuDNN rounds the factors of what it does in float32 (TF32), as PyTorch lets it."""


@cache
def bytes_a_second() -> float:
    """Read and written bytes together."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source))


@cache
def operations_a_second(is_rounded: bool) -> float:
    """Of products of float32 matrices; `is_rounded` those in TF32."""
    size, before = 8192, torch.backends.cuda.matmul.allow_tf32
    one, other = (torch.randn(size, size, device="cuda") for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = is_rounded
    try:
        return 2 * size**3 / _seconds(lambda: one @ other)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def floor(step: Callable[[], Any]) -> float:
    """The seconds that a step on the GPU takes at least; it is done twice, once to make what the first one makes."""
    step()
    with _Kernels() as kernels:
        step()
    return kernels.seconds


class _Kernels(TorchDispatchMode):
    """Adds up the least seconds of what is called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not _is_view(func):
            moved = {(each.data_ptr(), each.numel()): each.nbytes for each in _tensors((args, kwargs))}
            written = sum(each.nbytes for each in _tensors(given))
            rate = operations_a_second(func.overloadpacket.__name__ in ROUNDED)
            operations = _operations(func, args, kwargs, given) / rate
            self.seconds += max(operations, (sum(moved.values()) + written) / bytes_a_second())
        return given


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor) and each.is_cuda]


def _is_view(func: Any) -> bool:
    return any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)


def _operations(func: Any, args: Any, kwargs: Any, given: Any) -> float:
    packet = func.overloadpacket
    if packet.__name__ in RECURRENT:
        # Each step of each sample meets each weight: once on the way there, and twice on the way back.
        weights = sum(each.numel() for each in args[1])
        times = 1 if packet.__name__ == RECURRENT[0] else 2
        return float(2 * times * weights * args[0].shape[0] * args[0].shape[1])
    count = flop_registry.get(packet)
    return float(count(*args, **(kwargs or {}), out_val=given)) if count else 0.0


def _seconds(call: Callable[[], Any], times: int = 20) -> float:
    """The median of so many calls, by the device's own clock."""
    for _ in range(3):
        call()
    taken = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3)
    return sorted(taken)[times // 2]
