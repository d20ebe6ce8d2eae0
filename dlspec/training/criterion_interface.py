"""The interfaces of losses and metrics that the trainer needs. Any object that implements them can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Target

Targets = tuple[Tensor, ...]  # a batch's targets, in the order of the criterion's `target_names`


class CriterionProtocol(Protocol):
    """A loss that also names the tensors it needs, and converts the network's output to predictions."""

    @property
    def target_names(self) -> Sequence[str]:
        """The tensors of a split that the loss takes: targets, fields, lengths."""

    @property
    def term_names(self) -> Sequence[str]:
        """The names of the loss terms; empty for a single term."""

    @property
    def trims(self) -> Mapping[str, PaddingTrim]:
        """How padding is cut off targets, by target name, when inputs are cut to their batch's longest sample."""

    def __call__(self, output: Any, targets: Targets) -> Tensor:
        """Compute the batch's mean loss: a scalar tensor, or for multiple terms a vector [sum, term, ...]."""

    @property
    def factors(self) -> Sequence[float]:
        """What each loss term is multiplied by in the sum."""

    @property
    def only_loss(self) -> nn.Module | None:
        """The loss if the criterion is nothing else than `only_loss(output, targets[0])`; None for all others."""

    def weigh(self, targets: Targets) -> Tensor | None:
        """Compute how much each sample counts in the mean of each term, (N, terms); None if all count equally."""

    def accumulate(
        self, output: Any, targets: Targets, batch_weights: Tensor, update_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute a batch's part in the loss of an update of multiple batches, and the batch's mean loss, detached.

        Args:
            output: the network's output.
            targets: the batch's targets.
            batch_weights: the summed weights of the batch's samples, (terms,).
            update_weights: the summed weights of the samples of all of the update's batches, (terms,).
        """

    @property
    def predicted_targets(self) -> Sequence[Target]:
        """The targets that the network predicts."""

    def predict(self, output: Any) -> Any:
        """Convert the network's output to probabilities or numbers, with samples in the first dimension.

        Return a tensor for one target, a mapping from target names for multiple targets.
        """

    def make_metric_pairs(self, output: Any, targets: Targets) -> Sequence[tuple[Tensor, ...]]:
        """Make (predictions, truth) for each predicted target, or (predictions, truth, weights), as metrics take them.

        The first dimension contains samples, or time steps or pixels of all samples.
        """


class MetricProtocol(Protocol):
    """The interface of torchmetrics: `update` for each batch, then `compute` for the result."""

    def update(self, *tensors: Tensor) -> Any:
        """Take predictions and true values, and weights where samples do not count equally."""

    def compute(self) -> Tensor:
        """Compute the metric over all updates since the last reset, a scalar tensor."""

    def reset(self) -> None: ...

    def to(self, device: torch.device) -> Any: ...


# Metrics by the names of their results, for each target in the order of the criterion's `predicted_targets`.
MetricGroups = Sequence[Mapping[str, MetricProtocol]]


def total_loss(loss: Tensor) -> Tensor:
    """Select the loss to minimize: the sum of all terms, which comes first if there are multiple terms."""
    return loss[0] if loss.dim() else loss


def total_losses(losses: Tensor) -> Tensor:
    """Select the total loss of each step, (steps,), from (steps,) or (steps, 1 + terms)."""
    return losses[:, 0] if losses.dim() > 1 else losses
