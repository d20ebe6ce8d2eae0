"""What an output says in the target's own terms, and how metrics see it: rows without padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.layouts import Value
from dlspec.losses.matching import Match
from dlspec.losses.rules import TensorFunction, clamp, identity
from dlspec.losses.shapes import Padding, Targets, rows

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Prediction:
    """`predict(output)` are probabilities or numbers; `judge(output, targets)` is what metrics compare: of `target`.

    Probabilities are (N, ..., K) for K classes and (N, ...) of the second class for two; metrics are given a row a
    sample, step or pixel that is not padding.
    """

    target: Target
    predict: TensorFunction
    judge: Callable[[Tensor, Targets], Pair]


def prediction_of(
    match: Match, predict: TensorFunction | None, index: int, padding: Padding | None
) -> Prediction | None:
    """None where nothing is predicted: an output that is only judged, or a constant target."""
    if not isinstance(match.target, Target) or predict is None:
        return None
    make = _classes if match.target.kind == "classes" else _numbers
    return make(match.target, match.main.value, predict, index, padding)


def _classes(target: Target, value: Value, predict: TensorFunction, index: int, padding: Padding | None) -> Prediction:
    told, dim = _told(target, value, predict), value.channels_dim

    def whole(output: Tensor) -> Tensor:
        found = told(output)
        return found.reshape(*output.movedim(dim, -1).shape[:-1], *found.shape[1:]) if target.shape else found

    def judge(output: Tensor, targets: Targets) -> Pair:
        found, truth = told(output), targets[index].flatten()
        if padding is None:
            return found, truth
        real = padding.real(output, targets).flatten()
        return found[real], truth[real]

    return Prediction(replace(target, shape=()), whole, judge)


def _told(target: Target, value: Value, predict: TensorFunction) -> TensorFunction:
    """Probabilities by rows: (M, K), or (M,) of the second of two classes."""
    by_rows = rows(value)
    if value.channels == 1:
        return lambda output: predict(by_rows(output)).squeeze(1)
    if len(target.classes) == 2:
        return lambda output: predict(by_rows(output))[:, 1]
    return lambda output: predict(by_rows(output))


def _numbers(target: Target, value: Value, predict: TensorFunction, index: int, padding: Padding | None) -> Prediction:
    """Numbers in the target's own unit, whatever scale the network learns them on."""
    mean, deviation = target.scale or (0.0, 1.0)
    end = identity if predict is clamp else predict
    squeezed = value.shape != target.shape

    def whole(output: Tensor) -> Tensor:
        found = end(output.squeeze(value.channels_dim) if squeezed else output)
        return found * deviation + mean

    def judge(output: Tensor, targets: Targets) -> Pair:
        found, truth = whole(output), targets[index] * deviation + mean
        if padding is not None:
            time = 1 if squeezed else padding.time_dim
            real = padding.real(output, targets)
            found, truth = found.movedim(time, 1)[real], truth.movedim(time, 1)[real]
        return (found, truth) if is_row(target, value) else (found.flatten(), truth.flatten())

    return Prediction(target if is_row(target, value) else replace(target, shape=()), whole, judge)


def is_row(target: Target, value: Value) -> bool:
    """Whether a sample's numbers are a row, of which metrics keep each apart."""
    return not target.shape or (len(target.shape) == 1 and value.layout == "features")
