"""Make the criterion of a spec: match its losses with outputs and targets, check them and try them on a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.language.problems import Problems
from dlspec.layouts import Lengths, TensorInfo
from dlspec.losses.balanced_weights import balance_losses
from dlspec.losses.criterion import Criterion, CriterionTerm
from dlspec.losses.loss_call import LossSetup, OutputSelector
from dlspec.losses.loss_checks import check_match
from dlspec.losses.loss_matching import LossMatch, match_losses
from dlspec.losses.loss_rules import identity
from dlspec.losses.loss_shapes import (
    KnownPixelMaskBuilder,
    PaddingMaskBuilder,
    make_shape_converters,
)
from dlspec.network.builder import Network
from dlspec.network.random_state import preserve_random_state
from dlspec.parts.specs.loss_spec import LossTerms

NOTHING_BALANCED: Mapping[str, str] = {}


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
