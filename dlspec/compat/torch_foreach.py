"""PyTorch's operations on lists of tensors: one kernel, where a loop would start one kernel per tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def copy_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into the target with the same index. If PyTorch removes the operation, a loop is used."""
    copy = getattr(torch, "_foreach_copy_", None)
    if copy is not None:
        copy(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
