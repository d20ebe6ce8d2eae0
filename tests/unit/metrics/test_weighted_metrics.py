"""Metrics of samples with weights: torchmetrics' metrics of repeated rows, and scikit-learn's with sample weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code, SpecError
from dlspec.jobs.python_spec import prepare_spec
from dlspec.metrics.selection import SelectedMetric, make_metrics
from dlspec.metrics.weighted import WEIGHTED_METRICS
from dlspec.parts.torch.torch_metrics import CLASSIFICATION_METRICS, metric_registry

ROWS = 80
GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = torch.randint(0, 4, (ROWS,), generator=GENERATOR).float()
TARGETS = {
    "two": Target("y", "classes", classes=("a", "b")),
    "many": Target("y", "classes", classes=("a", "b", "c", "d")),
    "labels": Target("y", "numbers", (3,), labels=("r", "s", "t")),
    "number": Target("y", "numbers"),
    "vector": Target("y", "numbers", (2,)),
}
CLASS_KINDS, NUMBER_KINDS = ("two", "many", "labels"), ("number", "vector")
AVERAGED = [{"average": each} for each in ("micro", "macro", "weighted")]
COUNTED = [{}, *AVERAGED, {"ignore_index": 1}]
# By metric: the settings to try; one that does not fit a kind of target is left out there.
CASES: dict[str, list[dict[str, Any]]] = {
    "Accuracy": [*COUNTED, {"threshold": 0.3}],
    "Precision": COUNTED,
    "Recall": COUNTED,
    "Specificity": COUNTED,
    "HammingDistance": COUNTED,
    "JaccardIndex": COUNTED,
    "F1Score": [*COUNTED, {"zero_division": 1}],
    "FBetaScore": [*COUNTED, {"beta": 2.0}],
    "CohenKappa": [{}, {"weights": "linear"}, {"weights": "quadratic"}, {"ignore_index": 1}],
    "MatthewsCorrCoef": [{}, {"threshold": 0.7}],
    "AUROC": [{}, {"average": "macro"}, {"average": "weighted"}],
    "AveragePrecision": [{}, {"average": "macro"}, {"average": "weighted"}],
    "CalibrationError": [{}, {"n_bins": 4}, {"norm": "l2"}, {"norm": "max"}],
    "MeanSquaredError": [{}, {"squared": False}],
    **{name: [{}] for name in WEIGHTED_METRICS
       if name not in CLASSIFICATION_METRICS and name not in ("MeanSquaredError", "Perplexity", "BitsPerCharacter")},
    "Perplexity": [{}, {"ignore_index": 2}],
    "BitsPerCharacter": [{}],
}  # fmt: skip


def draw(kind: str) -> tuple[Tensor, Tensor]:
    """Predictions, with some equal ones, and true values."""
    generator = torch.Generator().manual_seed(3)
    if kind == "labels":
        truth = torch.randint(2, (ROWS, 3), generator=generator)
        return (truth * 0.3 + 0.6 * torch.rand(ROWS, 3, generator=generator)).mul(20).round() / 20, truth
    if kind in CLASS_KINDS:
        count = len(TARGETS[kind].classes)
        truth = torch.randint(count, (ROWS,), generator=generator)
        scores = 2 * torch.nn.functional.one_hot(truth, count) + 3 * torch.rand(ROWS, count, generator=generator)
        probabilities = scores.softmax(1)
        return (probabilities[:, 1].mul(20).round() / 20 if count == 2 else probabilities), truth
    shape = (ROWS, *TARGETS[kind].shape)
    truth = torch.rand(shape, generator=generator) * 5 + 1
    return (truth + torch.rand(shape, generator=generator)).mul(4).round() / 4, truth


def measure(target: Target, name: str, settings: dict[str, Any], *tensors: Tensor) -> dict[str, float]:
    selected = SelectedMetric(metric_registry()[name], target, settings)
    (metrics,) = make_metrics([selected], [target])
    for metric in metrics.values():
        for rows in torch.arange(len(tensors[0])).split(29):
            metric.update(*(each[rows] for each in tensors))
    return {key: float(each.compute()) for key, each in metrics.items()}


def list_cases() -> list[tuple[str, str, dict[str, Any]]]:
    cases = []
    for name, tried in CASES.items():
        kinds = CLASS_KINDS if name in CLASSIFICATION_METRICS else NUMBER_KINDS
        kinds = ("many",) if name in ("Perplexity", "BitsPerCharacter") else kinds
        kinds = kinds[:2] if name in ("CohenKappa", "CalibrationError") else kinds
        cases += [(name, kind, each) for kind in kinds for each in tried
                  if not (kind != "two" and "threshold" in each and kind != "labels")]  # fmt: skip
    return cases


def test_every_weighted_metric_is_tried() -> None:
    assert CASES.keys() == WEIGHTED_METRICS.keys()


@pytest.mark.parametrize(("name", "kind", "settings"), list_cases(), ids=str)
def test_a_weight_of_two_is_the_row_twice(name: str, kind: str, settings: dict[str, Any]) -> None:
    target = TARGETS[kind]
    predicted, truth = draw(kind)
    repeated = [each.repeat_interleave(WEIGHTS.long(), 0) for each in (predicted, truth)]
    expected = measure(target, name, settings, *repeated)
    found = measure(replace(target, weights="y weights"), name, settings, predicted, truth, WEIGHTS)
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert len(found) == (4 if kind == "labels" else 1)
    unweighted = measure(target, name, settings, predicted, truth)
    assert found != pytest.approx(unweighted, rel=1e-4) or {"ignore_index", "norm"} & settings.keys()


SCORERS: dict[str, Any] = {
    "Accuracy": sklearn_metrics.accuracy_score, "F1Score": sklearn_metrics.f1_score,
    "Precision": sklearn_metrics.precision_score, "Recall": sklearn_metrics.recall_score,
    "JaccardIndex": sklearn_metrics.jaccard_score, "MatthewsCorrCoef": sklearn_metrics.matthews_corrcoef,
    "CohenKappa": sklearn_metrics.cohen_kappa_score, "AUROC": sklearn_metrics.roc_auc_score,
    "AveragePrecision": sklearn_metrics.average_precision_score,
    "MeanAbsoluteError": sklearn_metrics.mean_absolute_error, "R2Score": sklearn_metrics.r2_score,
    "MeanSquaredError": sklearn_metrics.mean_squared_error,
    "MeanAbsolutePercentageError": sklearn_metrics.mean_absolute_percentage_error,
    "MeanSquaredLogError": sklearn_metrics.mean_squared_log_error,
    "ExplainedVariance": sklearn_metrics.explained_variance_score,
}  # fmt: skip


@pytest.mark.parametrize("name", SCORERS)
def test_fractional_weights_are_those_of_scikit_learn(name: str) -> None:
    kind = "two" if name in CLASSIFICATION_METRICS else "vector"
    predicted, truth = draw(kind)
    weights = torch.rand(ROWS, generator=GENERATOR)
    (found,) = measure(replace(TARGETS[kind], weights="w"), name, {}, predicted, truth, weights).values()
    shown = (predicted > 0.5).long() if kind == "two" and name not in ("AUROC", "AveragePrecision") else predicted
    assert found == pytest.approx(SCORERS[name](truth, shown, sample_weight=weights), rel=1e-5)


# ---- in a spec -------------------------------------------------------------------------------------------------------


def make_data(kind: str) -> Dataset:
    truth = draw(kind)[1]
    target = truth.bool() if kind == "labels" else truth
    data = dataset_from_arrays({"x": torch.rand(ROWS, 3, generator=GENERATOR), "target": target})
    return replace(data, targets=tuple(replace(each, weights="y weights") for each in data.targets))


@pytest.mark.parametrize(
    ("kind", "metric", "key"),
    [
        ("number", "ConcordanceCorrCoef", ""),
        ("vector", {"PeakSignalNoiseRatio": {"data_range": 1.0}}, ""),
        ("two", {"AUROC": {"max_fpr": 0.5}}, "max_fpr"),
        ("many", {"AUROC": {"thresholds": 5}}, "thresholds"),
        ("many", {"Accuracy": {"top_k": 2}}, "top_k"),
        ("vector", {"R2Score": {"adjusted": 1}}, "adjusted"),
    ],
    ids=str,
)
def test_what_can_not_be_weighted_is_refused(kind: str, metric: Any, key: str) -> None:
    layers = [{"Linear": make_data(kind).target.num_outputs}]
    with pytest.raises(SpecError) as error:
        prepare_spec({"layers": layers, "metrics": [metric]}, make_data(kind)).prepare()
    problem = error.value.problems[0]
    assert problem.code is Code.NOT_YET and str(problem.path).endswith(key)


@pytest.mark.parametrize("name", [name for name in WEIGHTED_METRICS if name in CLASSIFICATION_METRICS])
def test_a_saved_spec_is_taken_again(name: str) -> None:
    """It contains the defaults of all settings."""
    spec = {"layers": [{"Linear": 4}], "metrics": [name]}
    saved = prepare_spec(spec, make_data("many")).prepare().resolved["metrics"]
    run = prepare_spec({**spec, "metrics": saved}, make_data("many")).prepare()
    (metrics,) = run.make_metrics()
    predicted, truth = draw("many")
    for metric in metrics.values():
        metric.update(predicted, truth, WEIGHTS)
        assert torch.isfinite(torch.as_tensor(metric.compute()))


def test_every_metric_counts_weights_or_is_refused() -> None:
    assert metric_registry().keys() - WEIGHTED_METRICS.keys() == {"ConcordanceCorrCoef", "PeakSignalNoiseRatio"}


def test_metrics_of_weighted_labels_are_chosen_as_without_weights() -> None:
    run = prepare_spec({"layers": [{"Linear": 3}]}, make_data("labels")).prepare()
    (metrics,) = run.make_metrics()
    assert {"accuracy", "f1_score"} <= metrics.keys()
