"""How much each sample counts in the mean that a loss computes: its real steps, class weights and ignored classes.

With these weights, the means of batches can be combined to the mean over a split or an update, whatever their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.sequence_lengths import change_lengths
from dlspec.data.dataset import Target
from dlspec.losses.loss_call import LossSetup
from dlspec.losses.loss_shapes import KnownPixelMaskBuilder, PaddingMaskBuilder, TargetTensors
from dlspec.parts.layers.padding import make_step_mask

WeightFunction = Callable[[TargetTensors], Tensor]
"""Computes the weight of each sample, (N,), from a batch's targets."""


def make_weight_function(setup: LossSetup, loss: nn.Module) -> WeightFunction | None:
    """Choose how samples are weighted; None if all count equally.

    Args:
        setup: How the loss is called.
        loss: The loss's module, with its class weights.
    """
    match = setup.match
    if match.term.type == "CTCLoss" or (len(match.arguments.outputs) > 1 and not setup.has_reduction):
        return None
    if match.rule.is_cross_entropy and isinstance(match.target, Target) and _has_unequal_class_weights(loss):
        return _make_class_weighting(setup, loss)
    if isinstance(setup.padding, KnownPixelMaskBuilder):
        return _make_known_pixel_weighting(setup.index)
    if setup.padding is None:
        return None
    steps = match.main.value.shape[setup.padding.time_dim - 1]
    return _make_real_step_weighting(setup.padding, steps, _find_weight_of_constant_target(setup, loss))


def _make_known_pixel_weighting(index: int) -> WeightFunction:
    def count_pixels(targets: TargetTensors) -> Tensor:
        known = targets[index] >= 0
        return known.to(_choose_dtype(known)).reshape(len(known), -1).sum(1)

    return count_pixels


def _find_weight_of_constant_target(setup: LossSetup, loss: nn.Module) -> float:
    """Find the weight of each step where the target is the same class at every step."""
    class_weights, number = getattr(loss, "weight", None), setup.match.target
    if not setup.match.rule.is_cross_entropy or class_weights is None or not isinstance(number, int | float):
        return 1.0
    return float(class_weights[int(number)])


def _make_real_step_weighting(padding: PaddingMaskBuilder, steps: int, step_weight: float) -> WeightFunction:
    def count_steps(targets: TargetTensors) -> Tensor:
        lengths = change_lengths(targets[padding.index], padding.changes).clamp(max=steps)
        return lengths.to(_choose_dtype(lengths)) * step_weight

    return count_steps


def _has_unequal_class_weights(loss: Any) -> bool:
    """Whether a cross-entropy has class weights or ignores one of the data's classes, which are never negative."""
    return loss.weight is not None or loss.ignore_index >= 0


def _make_class_weighting(setup: LossSetup, loss: Any) -> WeightFunction:
    """Weight classes as cross-entropy does: by `weight`, and those equal to `ignore_index` not at all."""
    padding, index, ignored_class = setup.padding, setup.index, int(loss.ignore_index)

    def weigh(targets: TargetTensors) -> Tensor:
        classes = targets[index]  # (N,), (N, T) or (N, H, W)
        if classes.is_floating_point():  # mixed classes (N, K): the loss averages over the samples
            return torch.ones(len(classes), dtype=_choose_dtype(classes), device=classes.device)
        weights = classes != ignored_class
        if isinstance(padding, KnownPixelMaskBuilder):
            weights = weights & (classes >= 0)
        elif padding is not None:
            weights = weights & make_step_mask(
                change_lengths(targets[padding.index], padding.changes), classes.shape[1]
            )
        class_weights: Tensor | None = loss.weight  # read now: it may have been moved to a device
        if class_weights is not None:
            weights = class_weights[classes.clamp(min=0)] * weights
        return weights.to(_choose_dtype(weights)).reshape(len(weights), -1).sum(1)

    return weigh


def _choose_dtype(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64  # MPS has no float64
