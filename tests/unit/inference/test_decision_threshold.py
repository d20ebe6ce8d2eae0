"""The best threshold, compared with scikit-learn's precision-recall curve; calibration with its curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_recall_curve

from dlspec.inference.evaluation.calibration import CalibrationBins
from dlspec.inference.evaluation.decision_threshold import Positives, choose_threshold


def make_positives(seed: int, count: int = 500, weighted: bool = False) -> Positives:
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.2
    probabilities = np.round(np.clip(truth * 0.2 + generator.random(count) * 0.6, 0, 1), 2)  # with ties
    return Positives(probabilities, truth, generator.random(count) if weighted else np.ones(count))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_reaches_the_best_f1_of_the_curve(seed: int, weighted: bool) -> None:
    positives = make_positives(seed, weighted=weighted)
    precision, recall, _ = precision_recall_curve(
        positives.truth, positives.probabilities, sample_weight=positives.weights
    )
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    found = choose_threshold(positives)
    assert found is not None
    assert found.score == pytest.approx(best)
    predicted = positives.probabilities > found.value
    assert found.score == pytest.approx(f1_score(positives.truth, predicted, sample_weight=positives.weights))
    half = f1_score(positives.truth, positives.probabilities > 0.5, sample_weight=positives.weights)
    assert found.default_score == pytest.approx(half)


def test_a_threshold_has_few_digits_where_that_changes_no_row() -> None:
    found = choose_threshold(Positives(np.array([0.1, 0.301234, 0.4, 0.45]), np.array([0, 0, 1, 1]) > 0, np.ones(4)))
    assert found is not None and (found.value, found.score) == (0.35, 1.0)
    close = choose_threshold(Positives(np.array([0.3001, 0.3002]), np.array([0, 1]) > 0, np.ones(2)))
    assert close is not None and 0.3001 <= close.value < 0.3002


def test_the_default_stays_where_nothing_is_better() -> None:
    found = choose_threshold(Positives(np.array([0.2, 0.8]), np.array([0, 1]) > 0, np.ones(2)))
    assert found is not None and found.value == 0.5


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], []])
def test_rows_of_one_class_have_no_threshold(truth: list[int]) -> None:
    count = len(truth)
    assert choose_threshold(Positives(np.full(count, 0.5), np.array(truth) > 0, np.ones(count))) is None


def test_calibration_is_that_of_scikit_learn() -> None:
    positives = make_positives(7, 2000)
    probabilities = positives.probabilities * 0.98 + 0.0071  # no value on the edge of a bin
    bins = CalibrationBins()
    for part in (slice(0, 700), slice(700, None)):
        bins.add(probabilities[part], positives.truth[part])
    accuracy, confidence = calibration_curve(positives.truth, probabilities, n_bins=10)
    found = bins.to_json()
    assert [each["accuracy"] for each in found] == pytest.approx(list(accuracy))
    assert [each["confidence"] for each in found] == pytest.approx(list(confidence))
    assert sum(each["rows"] for each in found) == 2000
