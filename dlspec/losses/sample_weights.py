"""Losses of samples that do not count equally, because the data have a weight for each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlspec.losses.loss_call import CompareFunction, LossCall, LossSetup
from dlspec.losses.loss_matching import LossMatch
from dlspec.losses.loss_shapes import TargetTensors
from dlspec.losses.loss_weights import WeightFunction, make_weight_function


def explain_unweighted(match: LossMatch) -> str:
    """Explain why a loss can't weight samples; '' if it can."""
    loss = match.term.type
    if loss == "CTCLoss" or not hasattr(torch.nn, loss):
        return f"{loss} returns one number for a batch, so its samples can't be weighted"
    if len(match.arguments.outputs) > 1:
        return f"{loss} compares several outputs, whose samples can't be weighted yet"
    if match.term.settings.get("reduction") not in (None, "mean"):
        return f"{loss} has its own reduction, which does not take weights"
    return ""


def make_weighted_call(setup: LossSetup) -> tuple[LossCall, WeightFunction]:
    """Make a loss whose mean counts each sample by its weight, and the function that computes how much it counts.

    A sample of a sequence counts by its weight times its real steps, and one of a class with a class weight by the
    product of both, as PyTorch's mean does without sample weights.
    """
    loss = setup.make_loss(reduction="none")
    count_unweighted = make_weight_function(replace(setup, weights_index=-1), loss)
    index = setup.weights_index

    def weigh(targets: TargetTensors) -> Tensor:
        weights = targets[index]
        return weights.double() if count_unweighted is None else count_unweighted(targets) * weights

    add_up = _make_weighted_sum(setup, loss, has_counts=count_unweighted is not None)

    def compare(output: Any, targets: TargetTensors) -> Tensor:
        total = weigh(targets).sum()
        summed = add_up(output, targets)
        return summed / total.to(summed.dtype).clamp(min=torch.finfo(summed.dtype).tiny)  # 0 without any weight

    return LossCall(loss, compare, add_up), weigh


def _make_weighted_sum(setup: LossSetup, loss: torch.nn.Module, *, has_counts: bool) -> CompareFunction:
    """Make the sum over a batch of each sample's weight times its loss.

    Args:
        setup: How the loss is called.
        loss: The loss, without a reduction.
        has_counts: Whether a sample's loss is the sum over its steps; else it is their mean.
    """
    shapes, select_output, padding, index = setup.shapes, setup.select_output, setup.padding, setup.weights_index

    def add_up(output: Any, targets: TargetTensors) -> Tensor:
        selected, weights = select_output(output), targets[index]
        given = shapes.output(selected)
        values: Tensor = loss(given, shapes.target(given, targets))
        numbers_per_step = 1
        if padding is not None:
            mask = shapes.mask(padding.build_step_mask(selected, targets))
            numbers_per_step = values.numel() // max(mask.numel(), 1)
            mask = mask.reshape(*mask.shape, *(1,) * (values.dim() - mask.dim())).expand_as(values)
            values = values.masked_fill(~mask, 0)
        by_sample = values.reshape(len(weights), -1)
        losses = by_sample.sum(1) / numbers_per_step if has_counts else by_sample.mean(1)
        return (losses * weights.to(losses.dtype)).sum()

    return add_up
