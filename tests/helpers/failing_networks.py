"""Networks whose numbers go wrong, and the message of the run that failed by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlspec.errors import TrainingFailed
from dlspec.training.trainer import Trainer


class FunctionLayer(nn.Module):
    """A layer that is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def make_stack(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), *layers, nn.Linear(16, 3))


class RareDivisionByZero(nn.Module):
    """Divides by 0 in one of twenty batches of training."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (torch.rand(()) > 0.05) if self.training else x


def sqrt_of_positive(x: Tensor) -> Tensor:
    """Its slope at 0 is infinite, and what flows back there is inf * 0, nan."""
    return (x * (x > 0)).sqrt()


def get_failure_message(training: Trainer) -> str:
    with pytest.raises(TrainingFailed) as failed:
        training.fit()
    assert failed.value.__cause__ is None
    return str(failed.value)
