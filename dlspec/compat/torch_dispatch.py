"""Observing PyTorch's operations one by one, below all layers, and operations that have only private names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# The operation behind `nn.Bilinear`; None if PyTorch has removed it, and then its products are not counted.
BILINEAR: Any = getattr(torch.ops.aten, "_trilinear", None)
# The operation behind `scaled_dot_product_attention` on a CPU; None if PyTorch has removed it.
FUSED_ATTENTION: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


# Called with an operation (an overload of `torch.ops.aten`), its output and its arguments.
OperationObserver = Callable[[Any, Any, tuple[Any, ...]], None]


def observe_operations(observe: OperationObserver) -> AbstractContextManager[object]:
    """Return a context manager within which `observe` is called after every operation of PyTorch."""
    return _ObserverMode(observe)


class _ObserverMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, observe: OperationObserver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observe = observe

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, because otherwise the first operation imports the compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._observe(func, output, args)
        return output


_ORIGINAL_ATTENTION = nn.functional.scaled_dot_product_attention


@contextmanager
def use_cpu_kernels_on_meta() -> Iterator[None]:
    """Make the meta device use the operations of a CPU within this context: fused attention, and nothing of oneDNN.

    The attention function is replaced in `nn.functional`, where PyTorch's own layers look it up.
    """
    module, name = nn.functional, "scaled_dot_product_attention"
    try:
        setattr(module, name, _attend_fused_on_meta)
        with torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        setattr(module, name, _ORIGINAL_ATTENTION)


def _attend_fused_on_meta(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> Tensor:
    """Compute attention in one fused operation on the meta device.

    PyTorch's own function would compute all attention weights there, and keep them for the backward pass.
    """
    is_fused = FUSED_ATTENTION is not None and query.is_meta and not dropout_p and query.shape[-1] == value.shape[-1]
    if not is_fused or (attn_mask is not None and attn_mask.requires_grad):
        return _ORIGINAL_ATTENTION(query, key, value, attn_mask, dropout_p, is_causal, **others)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(attn_mask, 0.0)
    output: Tensor = FUSED_ATTENTION(query, key, value, 0.0, is_causal, attn_mask=attn_mask)[0]
    return output
