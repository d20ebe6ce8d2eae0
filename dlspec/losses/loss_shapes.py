"""Convert an output and a target to the shapes that a loss expects, and find which steps are padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from dlspec.data.batches.sequence_lengths import change_lengths
from dlspec.data.dataset import Target
from dlspec.layouts import LengthChange, TensorInfo
from dlspec.losses.loss_matching import LossMatch
from dlspec.losses.loss_rules import LossRule, TensorFunction, identity
from dlspec.parts.layers.padding import make_step_mask

TargetTensors = tuple[Tensor, ...]
TargetFunction = Callable[[Tensor, TargetTensors], Tensor]
"""Makes the loss's target from the output, as passed to the loss, and the batch's targets."""


@dataclass(frozen=True)
class ShapeConverters:
    """Functions that convert tensors to the shapes that a loss expects."""

    output: TensorFunction
    target: TargetFunction
    # Reshapes a padding mask (N, T) so that it fits the loss's values.
    mask: TensorFunction = identity


@dataclass(frozen=True)
class PaddingMaskBuilder:
    """Which steps of an output are real and which are padding."""

    # The position of the lengths among the batch's targets.
    index: int
    # How the network's layers change these lengths.
    changes: Sequence[LengthChange]
    # The output's time dimension, with the batch as dimension 0.
    time_dim: int

    def build_step_mask(self, output: Tensor, targets: TargetTensors) -> Tensor:
        """Make a mask (N, T) that is false for padding; `output` is as the network returns it."""
        return make_step_mask(change_lengths(targets[self.index], self.changes), output.shape[self.time_dim])


@dataclass(frozen=True)
class KnownPixelMaskBuilder(PaddingMaskBuilder):
    """Which pixels of a target have a class; the others, of class -100, are treated as padding.

    `index` is the position of the target itself among the batch's targets.
    """

    def build_step_mask(self, output: Tensor, targets: TargetTensors) -> Tensor:
        """Make a mask (N, H, W) that is false for ignored pixels."""
        return targets[self.index] >= 0


def make_shape_converters(match: LossMatch, target_index: int) -> ShapeConverters:
    """Choose the conversions for a loss; `target_index` is the position of its target among the batch's targets."""
    value, target, rule = match.main.value, match.target, match.rule
    if target is None:
        return ShapeConverters(identity, lambda output, targets: output, _make_mask_reshaper(value))
    if not isinstance(target, Target):
        return _make_converters_for_constant_target(float(target), value, rule)
    if target.kind == "numbers":
        is_squeezed = value.shape != target.shape
        output = _make_squeeze(value.channels_dim) if is_squeezed else identity
        return ShapeConverters(
            output, lambda _, targets: targets[target_index], identity if is_squeezed else _make_mask_reshaper(value)
        )
    if not target.shape:
        return _make_converters_for_class_per_sample(value, rule, target_index)
    converters = _make_converters_for_class_per_step(value, rule, target_index)
    return (
        replace(converters, target=_clamp_classes(converters.target, target_index))
        if target.has_ignored
        else converters
    )


def _clamp_classes(convert: TargetFunction, target_index: int) -> TargetFunction:
    """Give ignored pixels the class 0, which every loss accepts. Their losses are masked."""

    def convert_known_classes(output: Tensor, targets: TargetTensors) -> Tensor:
        classes = targets[target_index].clamp(min=0)
        return convert(output, (*targets[:target_index], classes, *targets[target_index + 1 :]))

    return convert_known_classes


def _make_converters_for_class_per_sample(
    output_info: TensorInfo, loss_rule: LossRule, target_index: int
) -> ShapeConverters:
    if loss_rule.size == "any":
        return ShapeConverters(identity, _make_target_function(_to_signs, target_index))
    if output_info.channels == 1 and not loss_rule.takes_class_numbers:
        return ShapeConverters(
            _make_squeeze(1), _make_target_function(_to_signs if loss_rule.uses_signs else to_float, target_index)
        )
    return ShapeConverters(
        identity, _make_target_function(_make_class_encoder(loss_rule, output_info.channels), target_index)
    )


def _make_converters_for_class_per_step(
    output_info: TensorInfo, loss_rule: LossRule, target_index: int
) -> ShapeConverters:
    """Handle a target with one class per step or pixel.

    Steps become rows, unless the loss accepts channels first or there is only one output per step.
    """
    if output_info.channels == 1 and not loss_rule.takes_class_numbers:
        return ShapeConverters(
            _make_squeeze(output_info.channels_dim),
            _make_target_function(_to_signs if loss_rule.uses_signs else to_float, target_index),
        )
    if loss_rule.is_cross_entropy and output_info.layout == "channels-first":
        return ShapeConverters(identity, lambda _, targets: targets[target_index])
    encode_classes = _make_class_encoder(loss_rule, output_info.channels)
    return ShapeConverters(
        make_row_flattener(output_info),
        _make_target_function(encode_classes, target_index, flattens=True),
        torch.flatten,
    )


def _make_converters_for_constant_target(
    target_number: float, output_info: TensorInfo, loss_rule: LossRule
) -> ShapeConverters:
    """Handle a constant target: the same number for every sample and step."""
    if loss_rule.takes_class_numbers:
        class_index = int(target_number)
        return ShapeConverters(
            make_row_flattener(output_info),
            lambda output, _: output.new_full(output.shape[:1], class_index, dtype=torch.int64),
            torch.flatten,
        )
    if loss_rule.numbers == "signs":
        shape = _make_squeeze(1) if loss_rule.size == "one" else identity
        return ShapeConverters(shape, lambda output, _: output.new_full(output.shape[:1], target_number))
    return ShapeConverters(
        identity, lambda output, _: torch.full_like(output, target_number), _make_mask_reshaper(output_info)
    )


def make_row_flattener(output_info: TensorInfo) -> TensorFunction:
    """Make a function that flattens an output to (M, K), one row per sample, step or pixel."""
    if len(output_info.shape) == 1:
        return identity
    if output_info.channels_dim == len(output_info.shape):
        return lambda output: output.flatten(0, -2)
    return lambda output: output.movedim(1, -1).flatten(0, -2)


def _make_mask_reshaper(output_info: TensorInfo) -> TensorFunction:
    """Make a function that changes a mask (N, T) to (N, 1, T) for channels-first values, and keeps it for others."""
    return (lambda mask: mask.unsqueeze(1)) if output_info.layout == "channels-first" else identity


def _make_target_function(transform: TensorFunction, target_index: int, *, flattens: bool = False) -> TargetFunction:
    if transform is identity and flattens:
        return lambda _, targets: targets[target_index].flatten()
    if transform is identity:
        return lambda output, targets: _match_type(targets[target_index], output)

    def convert_target(output: Tensor, targets: TargetTensors) -> Tensor:
        target = targets[target_index].flatten() if flattens else targets[target_index]
        return transform(target).to(output.dtype)  # BCELoss refuses another type: float64 with `precision: 64`

    return convert_target


def _match_type(target: Tensor, output: Tensor) -> Tensor:
    """Convert probabilities of classes to the output's type; numbers of classes stay integers."""
    return target.to(output.dtype) if target.is_floating_point() else target


def _make_class_encoder(rule: LossRule, count: int) -> TensorFunction:
    if rule.takes_class_numbers:
        return identity
    return (
        (lambda classes: _one_hot(classes, count) * 2 - 1)
        if rule.uses_signs
        else lambda classes: _one_hot(classes, count)
    )


def _make_squeeze(dim: int) -> TensorFunction:
    return lambda output: output.squeeze(dim)


def to_float(classes: Tensor) -> Tensor:
    """Convert classes 0 and 1 to the default float type; of mixed classes (N, 2), take the probability of class 1."""
    if classes.is_floating_point() and classes.dim() == 2:
        return classes[:, 1]
    return classes.to(torch.get_default_dtype())


def _to_signs(classes: Tensor) -> Tensor:
    """Convert classes 0 and 1 to -1 and 1; floats already have these values."""
    return classes if classes.is_floating_point() else to_float(classes) * 2 - 1


def _one_hot(classes: Tensor, count: int) -> Tensor:
    if classes.is_floating_point():  # mixed classes, (N, K) already
        return classes
    return functional.one_hot(classes, count).to(torch.get_default_dtype())
