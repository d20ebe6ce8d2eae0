"""Lower bound for the time of a step on a GPU, if each kernel ran at the full speed of the memory or the arithmetic.

A kernel takes at least the time for its floating-point operations at the GPU's rate, and at least the time to read its
inputs and write its outputs once at the memory's rate. The larger of the two counts, and kernels run one after another
(Williams et al., "Roofline", CACM 2009). Both rates are measured here: with a copy on the GPU, and with products of
large matrices. A program that fuses kernels, such as a compiled one, can be faster than this bound.
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
"""Operations for which cuDNN rounds float32 factors to TF32, which PyTorch allows by default."""


@cache
def bytes_a_second() -> float:
    """Measure the memory rate: bytes read plus bytes written per second."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source))


@cache
def operations_a_second(is_rounded: bool) -> float:
    """Measure the rate of float32 matrix products, with `is_rounded` in TF32."""
    size, before = 8192, torch.backends.cuda.matmul.allow_tf32
    one, other = (torch.randn(size, size, device="cuda") for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = is_rounded
    try:
        return 2 * size**3 / _seconds(lambda: one @ other)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def floor(step: Callable[[], Any]) -> float:
    """Return the least seconds that a step on the GPU can take. It runs twice: first to create optimizer state."""
    step()
    with _Kernels() as kernels:
        step()
    return kernels.seconds


class _Kernels(TorchDispatchMode):
    """Adds up the least seconds of the operations that are called within it."""

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
        # Each step of each sample uses each weight once in the forward pass and twice in the backward pass.
        weights = sum(each.numel() for each in args[1])
        times = 1 if packet.__name__ == RECURRENT[0] else 2
        return float(2 * times * weights * args[0].shape[0] * args[0].shape[1])
    count = flop_registry.get(packet)
    return float(count(*args, **(kwargs or {}), out_val=given)) if count else 0.0


def _seconds(call: Callable[[], Any], times: int = 20) -> float:
    """Return the median seconds of `times` calls, measured with CUDA events."""
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
