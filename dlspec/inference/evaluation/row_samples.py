"""Which sample each row of the tensors that metrics take belongs to: samples have rows for steps or pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.inference.evaluation.bootstrap import Indices
from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.training.criterion_interface import CriterionProtocol


def has_row_per_sample(predicted: Target, target: Target) -> bool:
    """Whether each sample has one row: one class, number or vector, not one for each step or pixel.

    Args:
        predicted: the target with the shape that metrics see
        target: the target with the shape that the data have
    """
    return predicted.shape == target.shape


def count_rows(criterion: CriterionProtocol, batch: EvaluatedBatch, predicted: Target) -> Indices:
    """Count the rows of each sample in the tensors that metrics take; padding has none.

    Args:
        criterion: all loss terms
        batch: the batch
        predicted: the target whose rows are counted

    Returns:
        The number of rows of each sample (N,).
    """
    numbered = tuple(
        _number_samples(each, predicted) if name == predicted.name else each
        for name, each in zip(criterion.target_names, batch.targets, strict=True)
    )
    position = [each.name for each in criterion.predicted_targets].index(predicted.name)
    rows = criterion.make_metric_pairs(batch.output, numbered)[position][1].double()
    samples = rows.reshape(len(rows), -1)[:, 0].round().long()
    return np.bincount(samples.cpu().numpy(), minlength=batch.count)


def _number_samples(target: Tensor, predicted: Target) -> Tensor:
    """Make a target of the same shape that contains at each place the number of its sample."""
    dtype = torch.int64 if predicted.kind == "classes" else torch.float64
    numbers = torch.arange(len(target), dtype=dtype, device=target.device)
    numbers = numbers.reshape(-1, *(1,) * (target.dim() - 1)).expand_as(target)
    if predicted.has_ignored:
        return numbers.where(target >= 0, target)  # ignored pixels stay so: they have no row
    return numbers if predicted.scale is None else predicted.scale.apply(numbers)  # metrics see the target's unit
