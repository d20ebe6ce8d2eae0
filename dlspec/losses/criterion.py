"""Combine a network's outputs, the losses and the targets into one criterion.

How each output and target is passed to its loss is decided once, when the network is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Target
from dlspec.losses.loss_call import LossCall, LossSetup, OutputSelector, make_loss_call
from dlspec.losses.loss_shapes import (
    TargetTensors,
)
from dlspec.losses.loss_weights import WeightFunction, make_weight_function
from dlspec.losses.predictions import MetricTensors, Prediction, make_prediction
from dlspec.losses.sample_weights import make_weighted_call


class CriterionTerm(nn.Module):
    """One loss term. `compare(output, targets)` returns its mean over a batch, a scalar.

    `output` is what the network returns, a tensor or a dict of tensors; `targets` are the batch's targets. Where
    samples do not count equally, `weigh(targets)` returns the weight of each, and `add_up(output, targets)` the mean
    times the batch's weight; else both are None.
    """

    def __init__(self, setup: LossSetup) -> None:
        super().__init__()
        self.match, self.select_output = setup.match, setup.select_output
        call, self.weigh = _make_call_and_weights(setup)
        self.loss, self.compare = call.loss, call.compare
        self.add_up = call.add_up if self.weigh is not None else None
        self.takes_tensors_as_they_are = call.takes_tensors_as_they_are
        predict = self.match.rule.predict
        predict = None if predict is None else getattr(self.loss, "predict", predict)
        self.prediction = make_prediction(self.match, predict, setup.index, setup.padding, setup.weights_index)
        # The user's own loss returns one number for a batch, and does not say what it averages over.
        self.is_own = not setup.has_reduction and self.match.term.type != "Mean"


def _make_call_and_weights(setup: LossSetup) -> tuple[LossCall, WeightFunction | None]:
    """Make the loss, and the function that computes how much each sample counts in its mean."""
    if setup.weights_index >= 0:
        return make_weighted_call(setup)
    call = make_loss_call(setup)
    return call, make_weight_function(setup, call.loss)


class Criterion(nn.Module):
    """All loss terms of a spec together: `criterion(output, targets)` returns the loss of a batch.

    The loss is a scalar. With multiple terms it is a tensor [total, term, term, ...] instead: the total is the sum of
    each term times its factor, the terms are without factors and without gradients.

    Args:
        terms: The loss terms. If more than one predicts the same target, metrics use the output of the first.
        target_names: The names of a split's tensors that `targets` contains, in order.
        augments_targets: Whether training batches have other targets than the split, which may weigh less or more.
    """

    def __init__(
        self, terms: Sequence[CriterionTerm], target_names: Sequence[str], *, augments_targets: bool = False
    ) -> None:
        super().__init__()
        self._augments_targets = augments_targets
        self.terms: Sequence[CriterionTerm] = nn.ModuleList(terms)  # type: ignore[assignment]  # moves their class weights
        self.target_names = tuple(target_names)
        # The names of the terms if there are multiple, else empty.
        self.term_names = tuple(each.match.term.name for each in terms) if len(terms) > 1 else ()
        # How to cut targets to their batch's longest sample, by name, where the inputs are cut.
        self.trims = _collect_trims(terms)
        self.factors = [each.match.term.factor for each in terms]
        self._single_compare = terms[0].compare if self.factors == [1.0] else None
        self._has_weights = any(each.weigh is not None for each in terms)
        self._predictions = _collect_predictions(terms)

    @property
    def predicted_targets(self) -> tuple[Target, ...]:
        """The targets that the network predicts, with the shapes that metrics see."""
        return tuple(each.target for _, each in self._predictions)

    def forward(self, output: Any, targets: TargetTensors) -> Tensor:
        """Compute the loss of a batch from the network's output and the batch's targets."""
        if self._single_compare is not None:
            return self._single_compare(output, targets)
        values = [each.compare(output, targets) for each in self.terms]
        total = torch.stack([factor * value for factor, value in zip(self.factors, values, strict=True)]).sum()
        return torch.stack([total, *(each.detach() for each in values)]) if self.term_names else total

    @property
    def only_loss(self) -> nn.Module | None:
        """The loss if the criterion is nothing else than `only_loss(output, targets[0])`; None for all others."""
        first = self.terms[0]
        return first.loss if self._single_compare is not None and first.takes_tensors_as_they_are else None

    def weigh(self, targets: TargetTensors) -> Tensor | None:
        """Compute how much each sample counts in the mean of each term.

        Args:
            targets: The targets of a batch, or of a whole split.

        Returns:
            The weights, (N, terms); None if every sample counts equally in every term.
        """
        if not self._has_weights:
            return None
        found = [None if each.weigh is None else each.weigh(targets) for each in self.terms]
        first = next(each for each in found if each is not None)
        return torch.stack([torch.ones_like(first) if each is None else each for each in found], dim=1)

    def accumulate(
        self, output: Any, targets: TargetTensors, batch_weights: Tensor, update_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute a batch's part in the loss of an update of multiple batches.

        Args:
            output: The network's output.
            targets: The batch's targets.
            batch_weights: The weight of the batch in each term, (terms,).
            update_weights: The weight of all of the update's batches in each term, (terms,).

        Returns:
            The part, a scalar: the parts of all batches add up to the loss of one large batch. And the loss of the
            batch as `forward` returns it, without gradients.
        """
        values = [
            self._add_up(each, output, targets, weight) for each, weight in zip(self.terms, batch_weights, strict=True)
        ]
        sums = torch.stack([each.to(update_weights.dtype) for each in values])
        factors = sums.new_tensor(self.factors)
        means = sums.detach() / batch_weights
        total = (factors * means).sum()
        loss = torch.stack([total, *means]) if self.term_names else total
        return (factors * sums / update_weights).sum(), loss

    def _add_up(self, term: CriterionTerm, output: Any, targets: TargetTensors, weight: Tensor) -> Tensor:
        """Compute the mean of a term over a batch times the batch's weight."""
        if term.add_up is None or term.weigh is None:
            return term.compare(output, targets) * weight
        summed = term.add_up(output, targets)
        if not self._augments_targets:
            return summed
        # The weights of an update's batches are summed up before these are augmented.
        own_weight = term.weigh(targets).sum()
        return summed * (weight / own_weight.clamp(min=torch.finfo(own_weight.dtype).tiny))

    def describe_own_losses(self) -> tuple[str, ...]:
        """Describe for each of the user's own losses how its numbers for batches are combined, a line each."""
        own = {
            each.match.term.type: "samples" if each.weigh is None else "real steps"
            for each in self.terms
            if each.is_own
        }
        return tuple(
            f"{loss} returns one number for each batch: it counts as the mean over the batch's {counted}"
            for loss, counted in own.items()
        )

    def predict(self, output: Any) -> Any:
        """Convert the network's output to probabilities or numbers: one tensor, or a dict by target's name."""
        found = self.predict_targets(output)
        return next(iter(found.values())) if len(found) == 1 else found

    def predict_targets(self, output: Any) -> dict[str, Tensor]:
        """Convert the network's output to probabilities or numbers, by target's name."""
        return {each.target.name: each.predict(pick(output)) for pick, each in self._predictions}

    def make_metric_pairs(self, output: Any, targets: TargetTensors) -> tuple[MetricTensors, ...]:
        """Return predictions, true values and where they have them weights, for each predicted target."""
        return tuple(each.make_metric_pair(pick(output), targets) for pick, each in self._predictions)


def _collect_predictions(terms: Sequence[CriterionTerm]) -> list[tuple[OutputSelector, Prediction]]:
    found: dict[str, tuple[OutputSelector, Prediction]] = {}
    for each in terms:
        if each.prediction is not None:
            found.setdefault(each.prediction.target.name, (each.select_output, each.prediction))
    return list(found.values())


def _collect_trims(terms: Sequence[CriterionTerm]) -> dict[str, PaddingTrim]:
    """Find the lengths of the output that each target is compared with, by the target's name."""
    trims: dict[str, PaddingTrim] = {}
    for match in (each.match for each in terms):
        target, value = match.target, match.main.value
        if not isinstance(target, Target) or not target.shape or value.lengths is None or value.time_dim is None:
            continue
        if match.term.type != "CTCLoss":
            dim = value.time_dim if target.shape == value.shape else 1
            trims.setdefault(target.name, PaddingTrim(value.lengths, dim))
    return trims
