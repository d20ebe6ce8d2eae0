"""What a pass says about one target beyond its metrics: confusion, calibration, a scatter, and the worst errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.inference.evaluation.bootstrap import Indices, choose_samples
from dlspec.inference.evaluation.calibration import CalibrationBins
from dlspec.inference.evaluation.evaluated_batch import EvaluatedBatch
from dlspec.inference.evaluation.evaluation_pass import Evaluator
from dlspec.inference.evaluation.row_samples import count_rows, has_row_per_sample
from dlspec.inference.evaluation.sample_pictures import is_picture, make_class_picture, make_picture
from dlspec.inference.evaluation.worst_errors import SampleError, WorstErrors

MAX_CLASSES = 100  # more are too many for a matrix that a reader can look at
MAX_POINTS = 1000  # of a scatter of true and predicted numbers
MAX_SHOWN_STEPS = 50  # of a sequence, in an error
MAX_SHOWN_NUMBERS = 8  # of a vector, in an error


@dataclass(frozen=True)
class TargetRows:
    """What a batch says about one target."""

    tensors: Sequence[Tensor]  # predictions, true values and, where samples do not count equally, weights
    rows: Indices | None  # how many rows of the tensors each sample has; None if each has one
    start: int  # position of the batch's first sample in the split


class TargetResults(Protocol):
    """Collects the results of one target."""

    errors: WorstErrors

    def add(self, batch: TargetRows) -> None:
        """Add a batch."""

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values, without the errors."""


class ResultsCollector:
    """Collects the results of all targets from the batches of a pass."""

    def __init__(self, evaluator: Evaluator, count: int) -> None:
        self._criterion = evaluator.criterion
        self._targets = evaluator.targets
        self.results = {predicted.name: _make_results(predicted, target, count) for predicted, target in self._targets}
        self._seen = 0

    def add(self, batch: EvaluatedBatch) -> None:
        """Add a batch."""
        pairs = self._criterion.make_metric_pairs(batch.output, batch.targets)
        for (predicted, target), tensors in zip(self._targets, pairs, strict=True):
            has_one = has_row_per_sample(predicted, target)
            rows = None if has_one else count_rows(self._criterion, batch, predicted)
            self.results[predicted.name].add(TargetRows([each.cpu() for each in tensors], rows, self._seen))
        self._seen += batch.count


def _make_results(predicted: Target, target: Target, count: int) -> TargetResults:
    if target.labels:
        return LabelResults(target)
    return ClassResults(target) if predicted.kind == "classes" else NumberResults(target, count)


class ClassResults:
    """Results of a target with a class for each sample, step or pixel."""

    def __init__(self, target: Target) -> None:
        self.target, self.errors, self.calibration = target, WorstErrors(), CalibrationBins()
        count = len(target.classes)
        self._confusion = np.zeros((count, count), np.int64) if count <= MAX_CLASSES else None

    def add(self, batch: TargetRows) -> None:
        tensors, rows, start = batch.tensors, batch.rows, batch.start
        probabilities, truth = tensors[0].float().numpy(), tensors[1].numpy()
        predicted, confidence = choose_classes(probabilities)
        counted = find_counted(tensors)
        is_binary = probabilities.ndim == 1
        right = truth == 1 if is_binary else predicted == truth
        self.calibration.add((probabilities if is_binary else confidence)[counted], right[counted])
        if self._confusion is not None:
            np.add.at(self._confusion, (truth[counted], predicted[counted]), 1)
        is_wrong = counted & (predicted != truth)
        if rows is None:
            self._add_samples(predicted, np.where(is_wrong, confidence, 0), truth, start)
        elif not self.target.is_next_token:
            self._add_steps(predicted, truth, rows, start, is_wrong)

    def _add_samples(self, predicted: NDArray[Any], badness: NDArray[Any], truth: NDArray[Any], start: int) -> None:
        names = self.target.classes
        self.errors.add(
            badness.tolist(),
            start,
            lambda index: {
                "truth": names[truth[index]],
                "prediction": names[predicted[index]],
                "probability": float(badness[index]),
            },
        )

    def _add_steps(
        self, predicted: NDArray[Any], truth: NDArray[Any], rows: Indices, start: int, is_wrong: NDArray[np.bool_]
    ) -> None:
        ends = np.cumsum(rows)
        wrong = np.concatenate([[0], np.cumsum(is_wrong)])
        shares = (wrong[ends] - wrong[ends - rows]) / np.maximum(rows, 1)

        def describe(index: int) -> dict[str, Any]:
            steps = slice(ends[index] - rows[index], ends[index])
            error = {"error": float(shares[index])}
            if len(self.target.shape) > 1:  # a class for each pixel
                return {**self._draw_maps(truth[steps], predicted[steps]), **error}
            return {"truth": self._join(truth[steps]), "prediction": self._join(predicted[steps]), **error}

        self.errors.add(shares.tolist(), start, describe)

    def _draw_maps(self, truth: NDArray[Any], predicted: NDArray[Any]) -> dict[str, Any]:
        """Draw the classes of a sample's pixels; {} where they are not a picture."""
        shape, count = self.target.shape, len(self.target.classes)
        if len(shape) != 2 or len(truth) != prod(shape):
            return {}
        return {
            "truth": make_class_picture(truth.reshape(shape), count),
            "prediction": make_class_picture(predicted.reshape(shape), count),
        }

    def _join(self, classes: NDArray[Any]) -> str:
        names = [self.target.classes[each] for each in classes[:MAX_SHOWN_STEPS]]
        return " ".join(names) + (" …" if len(classes) > MAX_SHOWN_STEPS else "")

    def to_json(self) -> dict[str, Any]:
        is_small = len(self.target.classes) <= MAX_CLASSES
        return {
            "kind": "classes",
            "classes": list(self.target.classes) if is_small else [],
            "confusion": None if self._confusion is None else self._confusion.tolist(),
            "calibration": self.calibration.to_json(),
            "threshold": None,
        }


class LabelResults:
    """Results of a target of which each sample has any number of labels."""

    def __init__(self, target: Target) -> None:
        self.target, self.errors, self.calibration = target, WorstErrors(), CalibrationBins()
        self._counts = np.zeros((len(target.labels), 4), np.int64)

    def add(self, batch: TargetRows) -> None:
        tensors, start = batch.tensors, batch.start
        probabilities, truth = tensors[0].float().numpy(), tensors[1].numpy() > 0
        predicted = probabilities > 0.5
        self.calibration.add(probabilities.ravel(), truth.ravel())
        pairs = [(truth, predicted), (~truth, predicted), (truth, ~predicted), (~truth, ~predicted)]
        self._counts += np.stack([(one & other).sum(0) for one, other in pairs], 1)
        differences = np.abs(probabilities - truth)
        is_wrong = (predicted != truth).any(1)
        self.errors.add(
            np.where(is_wrong, differences.max(1), 0).tolist(),
            start,
            lambda index: {
                "truth": self._join(truth[index]),
                "prediction": self._join(predicted[index]),
                "error": float(differences[index].max()),
            },
        )

    def _join(self, present: NDArray[Any]) -> str:
        return "|".join(name for name, has in zip(self.target.labels, present, strict=True) if has)

    def to_json(self) -> dict[str, Any]:
        names = ("true_positive", "false_positive", "false_negative", "true_negative")
        return {
            "kind": "labels",
            "labels": list(self.target.labels),
            "counts": [dict(zip(names, row, strict=True)) for row in self._counts.tolist()],
            "confusion": None,
            "calibration": self.calibration.to_json(),
            "threshold": None,
        }


class NumberResults:
    """Results of a target of numbers: one a sample, a vector, a sequence or an image."""

    def __init__(self, target: Target, count: int) -> None:
        self.target, self.errors = target, WorstErrors()
        self._chosen = set(choose_samples(count, MAX_POINTS, 0).tolist())
        self._points: list[list[float]] = []

    def add(self, batch: TargetRows) -> None:
        tensors, rows, start = batch.tensors, batch.rows, batch.start
        predictions, truth = (each.double().numpy() for each in tensors[:2])
        samples = len(truth) if rows is None else len(rows)
        counts = np.ones(samples, np.int64) if rows is None else rows
        ends = np.cumsum(counts)
        numbers_by_row = np.abs(predictions - truth).reshape(len(truth), -1).mean(1) * find_counted(tensors)
        sums = np.concatenate([[0.0], np.cumsum(numbers_by_row)])
        errors = (sums[ends] - sums[ends - counts]) / np.maximum(counts, 1)
        errors = numbers_by_row if rows is None else errors

        def describe(index: int) -> dict[str, Any]:
            part = slice(ends[index] - counts[index], ends[index])
            return {**self._describe(truth[part], predictions[part]), "error": float(errors[index])}

        self.errors.add(errors.tolist(), start, describe)
        self._add_points(predictions, truth, ends, start)

    def _describe(self, truth: NDArray[Any], predictions: NDArray[Any]) -> dict[str, Any]:
        """Describe true and predicted numbers of a sample: as pictures, or as text if there are few."""
        shape = self.target.shape
        if not is_picture(shape) or truth.size != prod(shape):
            return _describe_numbers(truth, predictions)
        pictures = {"truth": truth, "prediction": predictions}
        return {name: make_picture(torch.from_numpy(each.reshape(shape))) for name, each in pictures.items()}

    def _add_points(self, predictions: NDArray[Any], truth: NDArray[Any], ends: Indices, start: int) -> None:
        """Keep one number of each chosen sample: its last, which is its only one if it has one."""
        for index in range(len(ends)):
            if start + index in self._chosen and ends[index]:
                row = ends[index] - 1
                self._points.append([float(np.ravel(truth[row])[-1]), float(np.ravel(predictions[row])[-1])])

    def to_json(self) -> dict[str, Any]:
        return {"kind": "numbers", "scatter": self._points}


def find_counted(tensors: Sequence[Tensor]) -> NDArray[np.bool_]:
    """Find the rows that count: those without a weight of 0."""
    if len(tensors) < 3:
        return np.ones(len(tensors[1]), np.bool_)
    counted: NDArray[np.bool_] = tensors[2].numpy() > 0
    return counted


def choose_classes(probabilities: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Choose the most probable class of each row, of two classes the second above 0.5; and return its probability."""
    if probabilities.ndim == 1:
        predicted = (probabilities > 0.5).astype(np.int64)
        return predicted, np.where(predicted == 1, probabilities, 1 - probabilities)
    predicted = probabilities.argmax(1)
    return predicted, np.take_along_axis(probabilities, predicted[:, None], 1)[:, 0]


def _describe_numbers(truth: NDArray[Any], predictions: NDArray[Any]) -> dict[str, Any]:
    """Describe true and predicted numbers of a sample if there are few."""
    if truth.size == 1:
        return {"truth": float(np.ravel(truth)[0]), "prediction": float(np.ravel(predictions)[0])}
    if truth.size > MAX_SHOWN_NUMBERS:
        return {}
    return {"truth": _join_numbers(truth), "prediction": _join_numbers(predictions)}


def _join_numbers(values: NDArray[Any]) -> str:
    return ", ".join(f"{each:.4g}" for each in np.ravel(values))


def list_errors(found: WorstErrors, describe_input: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe the worst errors with their inputs, as JSON values, the worst first."""
    return [_describe_error(each, describe_input) for each in found.list()]


def _describe_error(error: SampleError, describe_input: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    described = describe_input(error.position)
    return {"row": described["row"], "id": described["id"], **error.details, "input": described["input"]}
