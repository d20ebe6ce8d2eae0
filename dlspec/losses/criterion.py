"""Combine a network's outputs, the losses and the targets into one criterion.

How each output and target is passed to its loss is decided once, when the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.language.problems import Problems
from dlspec.layouts import Lengths, TensorInfo
from dlspec.losses.balanced_weights import balance_losses
from dlspec.losses.loss_call import LossCall, LossSetup, OutputSelector, make_loss_call
from dlspec.losses.loss_checks import check_match
from dlspec.losses.loss_matching import LossMatch, match_losses
from dlspec.losses.loss_rules import identity
from dlspec.losses.loss_shapes import (
    KnownPixelMaskBuilder,
    PaddingMaskBuilder,
    TargetTensors,
    make_shape_converters,
)
from dlspec.losses.loss_weights import WeightFunction, make_weight_function
from dlspec.losses.predictions import MetricTensors, Prediction, make_prediction
from dlspec.losses.sample_weights import make_weighted_call
from dlspec.network.builder import Network
from dlspec.network.random_state import preserve_random_state
from dlspec.parts.specs.loss_spec import LossTerms

NOTHING_BALANCED: Mapping[str, str] = {}


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


def make_criterion(
    network: Network,
    data: Dataset,
    terms: LossTerms | None,
    problems: Problems,
    balanced: Mapping[str, str] = NOTHING_BALANCED,
) -> Criterion | None:
    """Make the criterion of a spec. Not every output needs a loss.

    Args:
        network: The network.
        data: The data with the targets.
        terms: The losses as written; None stands for `auto`.
        problems: Collects what does not fit together.
        balanced: The settings that are `balanced`, `weight` or `pos_weight`, by the loss's name; '' for every loss.

    Returns:
        The criterion, or None where a problem was found.
    """
    problem_count = len(problems)
    matches = [each for each in match_losses(network, data, terms, problems) if check_match(each, data, problems)]
    if len(problems) > problem_count:
        return None
    if balanced:
        matches = balance_losses(matches, data, balanced, problems)
        if len(problems) > problem_count:
            return None
    names = _list_target_names(matches)
    built = [_build_and_try_term(each, network, names, problems) for each in matches]
    terms_built = [each for each in built if each is not None]
    if len(terms_built) < len(built):
        return None
    return Criterion(terms_built, names, augments_targets=data.augmentation is not None)


def _list_target_names(matches: Sequence[LossMatch]) -> list[str]:
    """List the names of a split's tensors that the terms use, each once: targets, fields, and lengths."""
    names: dict[str, None] = {}
    for each in matches:
        if isinstance(each.target, Target):
            names[each.target.name] = None
            names |= {each.target.weights: None} if each.target.weights else {}
        found = (_find_output_lengths(each), _find_target_lengths(each))
        names |= dict.fromkeys(f"{lengths.field}_lengths" for lengths in found if lengths is not None)
    return list(names)


def _find_output_lengths(match: LossMatch) -> Lengths | None:
    """Find the lengths of the output's steps: the target's own, or those of a field after the network's layers.

    None where the target has one value per sample and therefore no steps.
    """
    target, value = match.target, match.main.value
    if _find_step_dim(match) is None or (isinstance(target, Target) and not target.shape):
        return None
    own = None if match.term.type == "CTCLoss" else _find_target_lengths(match)
    return own or value.lengths


def _find_step_dim(match: LossMatch) -> int | None:
    """Find the dimension of the output's steps; also for an output (N, T), one number for each step of its target."""
    target, value = match.target, match.main.value
    is_per_step = _find_target_lengths(match) is not None and isinstance(target, Target) and len(target.shape) == 1
    return 1 if is_per_step and len(value.shape) == 1 else value.time_dim


def _find_target_lengths(match: LossMatch) -> Lengths | None:
    target = match.target
    return Lengths(target.lengths) if isinstance(target, Target) and target.shape and target.lengths else None


def _make_padding_mask_builder(
    lengths: Lengths | None, time_dim: int | None, names: Sequence[str]
) -> PaddingMaskBuilder | None:
    if lengths is None or time_dim is None:
        return None
    return PaddingMaskBuilder(names.index(f"{lengths.field}_lengths"), lengths.changes, time_dim)


def _make_pixel_mask_builder(match: LossMatch, index: int) -> KnownPixelMaskBuilder | None:
    """Mask the pixels without a class; None where all pixels have one."""
    is_needed = isinstance(match.target, Target) and match.target.has_ignored
    return KnownPixelMaskBuilder(index, (), 1) if is_needed else None


def _build_and_try_term(
    match: LossMatch, network: Network, names: Sequence[str], problems: Problems
) -> CriterionTerm | None:
    """Build a term and run it on artificial batches; report an exception as a problem of the loss."""
    try:
        term = CriterionTerm(_make_loss_setup(match, network, names))
        with preserve_random_state():
            _try_term(term, network, names)
    except Exception as error:
        source = "PyTorch" if hasattr(nn, match.term.type) else "its own code"
        reason = first_line(error, 200)
        with_target = f" with '{match.target.name}'" if isinstance(match.target, Target) else ""
        found = f"{match.term.type} can't compare {match.main.value}{with_target}"
        problems.add(Code.SHAPE_MISMATCH, match.term.path, found, f"{source} says: {reason}")
        return None
    return term


def _make_loss_setup(match: LossMatch, network: Network, names: Sequence[str]) -> LossSetup:
    is_only = len(network.outputs) == 1
    output_selectors: dict[str, OutputSelector] = {
        key: identity if is_only else itemgetter(name) for key, name in match.names.items()
    }
    index = names.index(match.target.name) if isinstance(match.target, Target) else -1
    make_padding = partial(_make_padding_mask_builder, names=names)
    padding = make_padding(_find_output_lengths(match), _find_step_dim(match))
    return LossSetup(
        match, output_selectors, make_shape_converters(match, index), index,
        _make_pixel_mask_builder(match, index) if padding is None else padding,
        make_padding(_find_target_lengths(match), 1), match.term.settings,
        names.index(match.target.weights) if isinstance(match.target, Target) and match.target.weights else -1,
    )  # fmt: skip


TRIAL_BATCH_SIZES = (2, 3)  # two sizes: one could equal another dimension by chance
MAX_TRIAL_STEPS = 3  # steps, and pixels per side: the outputs of a language model are large


def _try_term(term: CriterionTerm, network: Network, names: Sequence[str]) -> None:
    """Compute the loss of artificial batches, to find class weights of a wrong length before the training starts."""
    for batch_size in TRIAL_BATCH_SIZES:
        outputs = {
            name: torch.full(_make_trial_shape(batch_size, each.value), 0.5) for name, each in network.outputs.items()
        }
        output = outputs if len(outputs) > 1 else next(iter(outputs.values()))
        loss = term.compare(output, tuple(_make_trial_target(name, batch_size, term.match) for name in names))
        if loss.dim():
            raise ValueError(f"the loss has shape {tuple(loss.shape)}, expected a scalar: the mean over the batch")


def _make_trial_shape(batch_size: int, value: TensorInfo) -> tuple[int, ...]:
    shape = tuple(
        size if dim == value.channels_dim else min(size, MAX_TRIAL_STEPS)
        for dim, size in enumerate(value.shape, start=1)
    )
    return (batch_size, *shape) if value.has_batch else shape


def _make_trial_target(name: str, batch_size: int, match: LossMatch) -> Tensor:
    target = match.target
    if isinstance(target, Target) and name == target.weights:
        return torch.ones(batch_size)
    if not isinstance(target, Target) or name != target.name:
        return torch.full((batch_size,), 10**6)  # lengths, for which every step is real; or another term's target
    value = match.main.value
    shape = _make_trial_shape(batch_size, value)[1:] if target.shape else ()
    if len(shape) > len(target.shape):
        shape = tuple(size for dim, size in enumerate(shape, start=1) if dim != value.channels_dim)
    if match.term.type == "CTCLoss":
        shape = (1,)
    return (
        torch.zeros(batch_size, *shape, dtype=torch.int64)
        if target.kind == "classes"
        else torch.ones(batch_size, *shape)
    )
