"""The backward pass without what PyTorch does in Python before it, which takes a tenth of a small network's step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable

_ENGINE: Any = getattr(Variable, "_execution_engine", None)


def run_backward(loss: Tensor) -> None:
    """Do what `loss.backward()` does. A loss that is not a plain scalar with a gradient is left to PyTorch."""
    if _ENGINE is None or type(loss) is not Tensor or loss.dim() or not loss.requires_grad or loss.is_complex():
        loss.backward()  # type: ignore[no-untyped-call]
        return
    _ENGINE.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
