"""Decide how a loss is called: with one output or more, with or without a target, padding or lengths (CTC)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import change_lengths, masked_mean, masked_sum
from dlspec.losses.loss_matching import LossMatch
from dlspec.losses.loss_rules import identity
from dlspec.losses.loss_shapes import PaddingMaskBuilder, ShapeConverters, TargetTensors

OutputSelector = Callable[[Any], Tensor]
CompareFunction = Callable[[Any, TargetTensors], Tensor]


@dataclass(frozen=True)
class LossCall:
    """A loss, and how it is computed from the network's output and the batch's targets."""

    loss: nn.Module
    # Computes the mean over a batch.
    compare: CompareFunction
    # Computes the mean times the batch's weight, which is 0 and not nan for a batch without weight. None for a loss
    # whose batches weigh as much as they have samples.
    add_up: CompareFunction | None = None
    # Whether `compare` is nothing else than `loss(output, targets[0])`, for classes as integers.
    takes_tensors_as_they_are: bool = False


@dataclass(frozen=True)
class LossSetup:
    """Everything needed to call a loss."""

    match: LossMatch
    # Functions that select the loss's inputs from the network's output, by the loss's argument names.
    output_selectors: Mapping[str, OutputSelector]
    shapes: ShapeConverters
    # The position of the target among the batch's targets; -1 without a target.
    index: int = -1
    # Which steps of the output are real; None if all are.
    padding: PaddingMaskBuilder | None = None
    # Which steps of the target are real, for CTC.
    target_padding: PaddingMaskBuilder | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    # The position of the sample weights among the batch's targets; -1 if all samples count equally.
    weights_index: int = -1

    @property
    def select_output(self) -> OutputSelector:
        """The function that selects the first output, which is compared with the target."""
        return next(iter(self.output_selectors.values()))

    def make_loss(self, **more: Any) -> nn.Module:
        """Make the loss. Class weights are lists in YAML and become tensors."""
        settings = {
            name: torch.tensor(each) if isinstance(each, list) else each for name, each in self.settings.items()
        }
        loss: nn.Module = self.match.term.schema.build(**{**settings, **more})
        return loss

    @property
    def has_reduction(self) -> bool:
        """Whether the loss is one of PyTorch's, which have `reduction="none"`."""
        return hasattr(nn, self.match.term.type)


def make_loss_call(setup: LossSetup) -> LossCall:
    """Make the loss and choose how it is called."""
    loss_arguments = setup.match.arguments
    if setup.match.term.type == "CTCLoss":
        return _make_ctc_call(setup)
    if len(loss_arguments.outputs) > 1:
        return _make_multi_output_call(setup)
    if setup.padding is None:
        return _make_call_without_padding(setup)
    if setup.match.rule.is_cross_entropy:
        return _make_call_with_ignored_padding(setup, setup.padding)
    return (
        _make_masked_mean_call(setup, setup.padding)
        if setup.has_reduction or setup.match.term.type == "Mean"
        else _make_call_on_real_steps(setup, setup.padding)
    )


def _make_call_without_padding(setup: LossSetup) -> LossCall:
    loss = setup.make_loss()
    compare = _make_compare_without_padding(setup, loss)
    if not setup.match.rule.is_cross_entropy:
        return LossCall(loss, compare)
    is_direct = setup.select_output is identity and setup.shapes.output is identity and setup.index == 0
    summed = _copy_with_sum_reduction(loss)
    return LossCall(loss, compare, _make_compare_without_padding(setup, summed), is_direct)


def _make_compare_without_padding(setup: LossSetup, loss: nn.Module) -> CompareFunction:
    select_output, shape_output, shape_target = setup.select_output, setup.shapes.output, setup.shapes.target
    if not setup.match.arguments.target:
        return lambda output, targets: loss(select_output(output))

    def compare(output: Any, targets: TargetTensors) -> Tensor:
        given = shape_output(select_output(output))
        value: Tensor = loss(given, shape_target(given, targets))
        return value

    return compare


def _copy_with_sum_reduction(loss: nn.Module) -> nn.Module:
    """Copy a loss so that it returns the sum instead of the mean, with the same class weights, on any device."""
    summed = copy.copy(loss)  # shares the dict of buffers: `to(device)` on the original changes those of the copy, too
    vars(summed)["reduction"] = "sum"
    return summed


def _make_call_with_ignored_padding(setup: LossSetup, padding: PaddingMaskBuilder) -> LossCall:
    """Set the target of padding to the class that the loss ignores."""
    loss = setup.make_loss()
    return LossCall(
        loss,
        _make_compare_with_ignored_padding(setup, padding, loss),
        _make_compare_with_ignored_padding(setup, padding, _copy_with_sum_reduction(loss)),
    )


def _make_compare_with_ignored_padding(
    setup: LossSetup, padding: PaddingMaskBuilder, loss: nn.Module
) -> CompareFunction:
    shapes, select_output = setup.shapes, setup.select_output
    ignored_class = int(getattr(loss, "ignore_index", -100))

    def compare(output: Any, targets: TargetTensors) -> Tensor:
        selected = select_output(output)
        given, is_real = shapes.output(selected), shapes.mask(padding.build_step_mask(selected, targets))
        value: Tensor = loss(given, shapes.target(given, targets).masked_fill(~is_real, ignored_class))
        return value

    return compare


def _make_masked_mean_call(setup: LossSetup, padding: PaddingMaskBuilder) -> LossCall:
    """Average the loss over the real steps only."""
    has_target = bool(setup.match.arguments.target)
    loss = setup.make_loss(reduction="none") if has_target else setup.make_loss()
    is_batchmean = setup.settings.get("reduction") == "batchmean"
    shapes, select_output = setup.shapes, setup.select_output

    def make_compare(reduce: Callable[[Tensor, Tensor], Tensor]) -> CompareFunction:
        def compare(output: Any, targets: TargetTensors) -> Tensor:
            selected = select_output(output)
            given, is_real = shapes.output(selected), shapes.mask(padding.build_step_mask(selected, targets))
            values: Tensor = loss(given, shapes.target(given, targets)) if has_target else given
            reduced = reduce(values, is_real)
            return reduced * (values.numel() // is_real.numel()) if is_batchmean else reduced

        return compare

    return LossCall(loss, make_compare(masked_mean), make_compare(masked_sum))


def _make_call_on_real_steps(setup: LossSetup, padding: PaddingMaskBuilder) -> LossCall:
    """Pass only the real steps to a user's loss, (M, ...). Selecting them synchronizes with the device."""
    loss, shapes, select_output = setup.make_loss(), setup.shapes, setup.select_output
    has_target = bool(setup.match.arguments.target)

    def select_real_steps(output: Any, targets: TargetTensors) -> tuple[Tensor, ...]:
        selected = select_output(output)
        given, is_real = shapes.output(selected), padding.build_step_mask(selected, targets)
        target = shapes.target(given, targets)
        if given.shape[: is_real.dim()] != is_real.shape:  # flattened to rows, or channels first
            is_real = is_real.flatten() if shapes.mask is torch.flatten else is_real
            time = padding.time_dim if is_real.dim() > 1 else 0
            given, target = given.movedim(time, is_real.dim() - 1), target.movedim(time, is_real.dim() - 1)
        return (given[is_real], target[is_real]) if has_target else (given[is_real],)

    def compare(output: Any, targets: TargetTensors) -> Tensor:
        value: Tensor = loss(*select_real_steps(output, targets))
        return value

    def add_up(output: Any, targets: TargetTensors) -> Tensor:
        steps = select_real_steps(output, targets)
        value: Tensor = loss(*steps) * len(steps[0]) if len(steps[0]) else steps[0].sum()
        return value

    return LossCall(loss, compare, add_up)


def _make_multi_output_call(setup: LossSetup) -> LossCall:
    """Pass multiple outputs to a loss, in the order of its arguments."""
    padding, shapes, loss_arguments = setup.padding, setup.shapes, setup.match.arguments
    is_averaged = padding is not None and setup.has_reduction
    loss = setup.make_loss(reduction="none") if is_averaged else setup.make_loss()

    def make_compare(reduce: Callable[[Tensor, Tensor], Tensor]) -> CompareFunction:
        def compare(output: Any, targets: TargetTensors) -> Tensor:
            given = {
                name: shapes.output(select_output(output)) for name, select_output in setup.output_selectors.items()
            }
            if loss_arguments.target:
                given[loss_arguments.target] = shapes.target(given[loss_arguments.outputs[0]], targets)
            values: Tensor = loss(*(given[name] for name in loss_arguments.names))
            if padding is None or not is_averaged:
                return values
            return reduce(values, shapes.mask(padding.build_step_mask(setup.select_output(output), targets)))

        return compare

    return LossCall(loss, make_compare(masked_mean), make_compare(masked_sum) if is_averaged else None)


def _make_ctc_call(setup: LossSetup) -> LossCall:
    """Call CTC with log-probabilities (T, N, K), targets (N, S) and both lengths; by default all steps are real."""
    loss, select_output, index = setup.make_loss(), setup.select_output, setup.index

    def compare(output: Any, targets: TargetTensors) -> Tensor:
        selected, tokens = select_output(output), targets[index]
        lengths = [_count_real_steps(each, given, targets) for each, given in
                   ((setup.padding, selected), (setup.target_padding, tokens))]  # fmt: skip
        value: Tensor = loss(selected.transpose(0, 1), tokens, *lengths)
        return value

    return LossCall(loss, compare)


def _count_real_steps(padding: PaddingMaskBuilder | None, given: Tensor, targets: TargetTensors) -> Tensor:
    steps = given.shape[1]
    if padding is None:
        return torch.full(given.shape[:1], steps, dtype=torch.int64, device=given.device)
    return change_lengths(targets[padding.index], padding.changes).clamp(max=steps)
