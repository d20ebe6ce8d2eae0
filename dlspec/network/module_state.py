"""The device of a module, and its buffers, which a trial must leave as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def find_device(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters; the CPU if it has none."""
    return next(module.parameters(), torch.empty(0)).device


@contextmanager
def preserve_buffers(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Restore buffers, such as the running statistics of batch normalization, after the `with` block."""
    saved = [(each, each.clone()) for each in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for each, before in saved:
                each.copy_(before)
