"""What the trainer asks of a loss and of a metric. Both are built elsewhere; any object that fits will do."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Criterion(Protocol):
    """A loss that also knows how the network's output is to be read."""

    def __call__(self, output: Any, target: Tensor) -> Tensor:
        """The batch's mean loss, a scalar tensor that gradients flow from."""

    def predict(self, output: Any) -> Tensor:
        """Probabilities, (N, K) or (N,), for classes; numbers in the target's own units for numbers."""

    def truth(self, target: Tensor) -> Tensor:
        """The target in the form and the units that metrics compare predictions with."""


class Metric(Protocol):
    """torchmetrics' own interface: fed in pieces, then asked for one number."""

    def update(self, preds: Tensor, target: Tensor) -> Any: ...

    def compute(self) -> Tensor:
        """The metric over everything since the last reset, a scalar tensor."""

    def reset(self) -> None: ...

    def to(self, device: torch.device) -> Any: ...
