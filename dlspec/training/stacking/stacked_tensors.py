"""One tensor for all members of a stack, of which the members' own tensors are views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stack_in_place(tensors: Sequence[Tensor]) -> Tensor:
    """Return a tensor (members, ...) that shares its memory with these tensors.

    They are moved, unless they already follow each other in memory. So networks and optimizers keep their tensors.

    Args:
        tensors: one of each member, of equal shape and type.
    """
    first = tensors[0].detach()
    if _follow_each_other(tensors):
        size = first.numel()
        return first.as_strided((len(tensors), *first.shape), (size, *first.stride()))
    with torch.no_grad():
        stacked = torch.stack([each.detach() for each in tensors])
    for each, own in zip(tensors, stacked.unbind(), strict=True):
        each.data = own
    return stacked


def _follow_each_other(tensors: Sequence[Tensor]) -> bool:
    first = tensors[0]
    start, size = first.data_ptr(), first.numel() * first.element_size()
    storage = first.untyped_storage().data_ptr()
    return all(
        each.data_ptr() == start + index * size
        and each.is_contiguous()
        and each.untyped_storage().data_ptr() == storage
        for index, each in enumerate(tensors)
    )


def give_own_memory(tensor: Tensor) -> None:
    """Give a tensor memory of its own again."""
    tensor.data = tensor.data.clone()
