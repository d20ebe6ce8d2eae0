"""What the trainer asks of a loss and of a metric. Both are built elsewhere; any object that fits will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Target

Targets = tuple[Tensor, ...]
"""What a batch is compared with, in the order of the criterion's `target_names`."""


class CriterionProtocol(Protocol):
    """A loss that also knows what it compares with and how the network's output is to be read."""

    @property
    def target_names(self) -> Sequence[str]:
        """The tensors of a split that it compares with: targets, fields, lengths."""

    @property
    def term_names(self) -> Sequence[str]:
        """The names of its terms where it has several; empty for one."""

    @property
    def trims(self) -> Mapping[str, PaddingTrim]:
        """Which targets end with their batch's longest sample where an input does."""

    def __call__(self, output: Any, targets: Targets) -> Tensor:
        """The batch's mean loss, a scalar tensor that gradients flow from; of several terms [their sum, term, ...]."""

    @property
    def predicted_targets(self) -> Sequence[Target]:
        """The targets that are predicted."""

    def predict(self, output: Any) -> Any:
        """Probabilities or numbers, a row a sample: of one target, or of several by their names."""

    def make_metric_pairs(self, output: Any, targets: Targets) -> Sequence[tuple[Tensor, Tensor]]:
        """For each target that is predicted what metrics compare: predictions and truth, a row a sample or step."""


class MetricProtocol(Protocol):
    """torchmetrics' own interface: fed in pieces, then asked for one number."""

    def update(self, preds: Tensor, target: Tensor) -> Any: ...

    def compute(self) -> Tensor:
        """The metric over everything since the last reset, a scalar tensor."""

    def reset(self) -> None: ...

    def to(self, device: torch.device) -> Any: ...


MetricGroups = Sequence[Mapping[str, MetricProtocol]]
"""For each target that the criterion judges, in its order, metrics by their results' names."""


def total_loss(loss: Tensor) -> Tensor:
    """What is trained on: of several terms their sum, which comes first."""
    return loss[0] if loss.dim() else loss
