"""Convert outputs to predictions: probabilities, or numbers in the target's unit. Metrics get no padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.layouts import TensorInfo
from dlspec.losses.loss_matching import LossMatch
from dlspec.losses.loss_rules import TensorFunction, clamp_to_unit, identity
from dlspec.losses.loss_shapes import PaddingMaskBuilder, TargetTensors, make_row_flattener

# Predictions and true values; and the weight of each, where samples do not count equally.
MetricTensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Prediction:
    """How to predict a target from an output of the network."""

    # The target with the shape that metrics see.
    target: Target
    # Makes probabilities (N, ..., K) for K classes, (N, ...) of the second class for two, or numbers.
    predict: TensorFunction
    # Makes predictions, true values and weights for metrics, one row per sample, step or pixel that is not padding.
    make_metric_pair: Callable[[Tensor, TargetTensors], MetricTensors]


def make_prediction(
    match: LossMatch,
    predict: TensorFunction | None,
    target_index: int,
    padding: PaddingMaskBuilder | None,
    weights_index: int = -1,
) -> Prediction | None:
    """Decide how a loss's first output becomes a prediction of its target.

    Args:
        match: The loss with its outputs and its target.
        predict: Makes probabilities or numbers from outputs (M, K) or (M,); None: the output is not a prediction.
        target_index: The position of the target among the batch's targets.
        padding: Which steps of the output are real; None if all are.
        weights_index: The position of the sample weights among the batch's targets; -1 without weights.

    Returns:
        The prediction, or None where the loss has a constant target or none, or `predict` is None.
    """
    if not isinstance(match.target, Target) or predict is None:
        return None
    make_for_kind = _make_class_prediction if match.target.kind == "classes" else _make_number_prediction
    found = make_for_kind(match.target, match.main.value, predict, target_index, padding)
    return found if weights_index < 0 else _add_weights(found, match, weights_index, target_index, padding)


def _add_weights(
    prediction: Prediction, match: LossMatch, weights_index: int, target_index: int, padding: PaddingMaskBuilder | None
) -> Prediction:
    """Add the weight of its sample to each row that metrics see."""
    make_pair = prediction.make_metric_pair
    is_row_per_sample = match.target is prediction.target  # its shape was kept: one number or vector a sample

    def make_metric_tensors(output: Tensor, targets: TargetTensors) -> MetricTensors:
        weights, target = targets[weights_index], targets[target_index]
        if not is_row_per_sample:
            weights = weights.reshape(-1, *(1,) * (target.dim() - 1)).expand_as(target)
            weights = weights.flatten() if padding is None else weights[padding.build_step_mask(output, targets)]
        return (*make_pair(output, targets), weights.flatten())

    return replace(prediction, make_metric_pair=make_metric_tensors)


def _make_class_prediction(
    target: Target,
    output_info: TensorInfo,
    predict: TensorFunction,
    target_index: int,
    padding: PaddingMaskBuilder | None,
) -> Prediction:
    probabilities, dim = _make_probability_function(target, output_info, predict), output_info.channels_dim

    def predict_targets(output: Tensor) -> Tensor:
        found = probabilities(output)
        return found.reshape(*output.movedim(dim, -1).shape[:-1], *found.shape[1:]) if target.shape else found

    def make_metric_pair(output: Tensor, targets: TargetTensors) -> MetricTensors:
        found, truth = probabilities(output), _choose_larger_share(targets[target_index]).flatten()
        if padding is None:
            return found, truth
        is_real = padding.build_step_mask(output, targets).flatten()
        return found[is_real], truth[is_real]

    return Prediction(replace(target, shape=()), predict_targets, make_metric_pair)


def _choose_larger_share(classes: Tensor) -> Tensor:
    """Choose one class for each mixed sample, (N, K), the one with the larger share; other classes stay."""
    return classes.argmax(dim=1) if classes.is_floating_point() else classes


def _make_probability_function(target: Target, output_info: TensorInfo, predict: TensorFunction) -> TensorFunction:
    """Make a function that returns probabilities as rows: (M, K), or (M,) of the second of two classes."""
    to_rows = make_row_flattener(output_info)
    if output_info.channels == 1:
        return lambda output: predict(to_rows(output)).squeeze(1)
    if len(target.classes) == 2:
        return lambda output: predict(to_rows(output))[:, 1]
    return lambda output: predict(to_rows(output))


def _make_number_prediction(
    target: Target,
    output_info: TensorInfo,
    predict: TensorFunction,
    target_index: int,
    padding: PaddingMaskBuilder | None,
) -> Prediction:
    """Predict numbers in the target's unit, with its scale undone; for labels the probability of each."""
    to_own_unit = identity if target.scale is None else target.scale.invert
    final_function = identity if predict is clamp_to_unit and not target.labels else predict
    is_squeezed = output_info.shape != target.shape
    is_row = padding is None and has_number_or_vector_per_sample(target, output_info)

    def predict_numbers(output: Tensor) -> Tensor:
        found = final_function(output.squeeze(output_info.channels_dim) if is_squeezed else output)
        return to_own_unit(found)

    def make_metric_pair(output: Tensor, targets: TargetTensors) -> MetricTensors:
        found, truth = predict_numbers(output), to_own_unit(targets[target_index])
        if padding is not None:
            time = 1 if is_squeezed else padding.time_dim
            is_real = padding.build_step_mask(output, targets)
            found, truth = found.movedim(time, 1)[is_real], truth.movedim(time, 1)[is_real]
        if target.labels:
            return found, truth.round().long()  # of mixed labels, those with the larger share
        return (found, truth) if is_row else (found.flatten(), truth.flatten())

    return Prediction(
        target if is_row else replace(target, shape=()),
        predict_numbers,
        make_metric_pair,
    )


def has_number_or_vector_per_sample(target: Target, output_info: TensorInfo) -> bool:
    """Whether a sample has one number, or one vector of numbers that metrics keep separate."""
    return not target.shape or (len(target.shape) == 1 and output_info.layout == "features")
