"""Metrics for the targets that are predicted: the ones that were asked for, or those that fit them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dlspec.data.dataset import Dataset, Target
from dlspec.data.prepare.decoding import CHARACTERS, find_kind
from dlspec.errors import Code, suggest
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema
from dlspec.parts.specs.metrics_spec import MetricTerm
from dlspec.parts.torch.torch_metrics import CLASSIFICATION_METRICS, TOKEN_METRICS, metric_registry

MAX_PAIRED_CLASSES = 5_000
"""Of more classes nothing is counted by pairs: 5,000 x 5,000 numbers are 200 MB."""
_PAIR_METRICS = ("JaccardIndex", "CohenKappa", "MatthewsCorrCoef")
_CURVE_METRICS = ("AUROC", "AveragePrecision")


@dataclass(frozen=True)
class SelectedMetric:
    """A metric of one target's predictions."""

    schema: Schema
    target: Target
    settings: Mapping[str, Any] = field(default_factory=dict)


def choose_auto_metrics(target: Target, *, is_input: bool = False, is_character: bool = False) -> list[str]:
    """What papers tell of such a target.

    `is_input` says that a network is to give its input again, `is_character` that each of the tokens is one.
    """
    if target.kind == "numbers":
        return ["MeanSquaredError" if is_input else "MeanAbsoluteError", "R2Score"]
    if target.is_next:
        return ["BitsPerCharacter" if is_character else "Perplexity", "Accuracy"]
    if len(target.shape) > 1 and len(target.classes) <= MAX_PAIRED_CLASSES:  # a class a pixel
        return ["Accuracy", "JaccardIndex"]
    return ["Accuracy", "F1Score"] if len(target.classes) == 2 else ["Accuracy"]


def select_auto_metrics(predicted: Sequence[Target], data: Dataset) -> list[SelectedMetric]:
    """`choose_auto_metrics` of each target, as parts."""
    return [
        SelectedMetric(metric_registry()[name], target)
        for target in predicted
        for name in _auto_metric_names(target, data)
    ]


def _auto_metric_names(predicted: Target, data: Dataset) -> list[str]:
    target = data.get_loss_target(predicted.name) or predicted
    is_input = any(each.name == target.name for each in data.fields)
    is_character = find_kind(data.preprocessing.get(target.next_of)) in CHARACTERS
    return choose_auto_metrics(target, is_input=is_input, is_character=is_character)


def select_metrics(
    terms: Sequence[MetricTerm] | None, predicted: Sequence[Target], data: Dataset, problems: Problems
) -> list[SelectedMetric]:
    """What each metric is of; None are those that fit the targets. `predicted` are of the shape that metrics see."""
    if terms is None:
        return select_auto_metrics(predicted, data)
    metrics_so_far: list[SelectedMetric] = []
    for each in terms:
        selected = [
            SelectedMetric(each.schema, target, each.settings)
            for target in _find_fitting_targets(each, predicted, problems)
        ]
        if any(
            (one.schema.name, one.target) == (other.schema.name, other.target)
            for one in selected
            for other in metrics_so_far
        ):
            found = f"{each.schema.name} stands twice, and both would report '{to_snake_case(each.schema.name)}'"
            problems.add(Code.NAME_TAKEN, each.part.path, found, "keep one: names of one's own are not there yet")
        metrics_so_far += selected
    return metrics_so_far


def _find_fitting_targets(metric: MetricTerm, predicted: Sequence[Target], problems: Problems) -> list[Target]:
    """The targets that a metric is of: the named one, or each that it fits."""
    named = [each for each in predicted if metric.target in (None, each.name)]
    fitting = [each for each in named if fits_target(metric.schema, each)]
    if not named:
        names = [each.name for each in predicted]
        found = f"no '{metric.target}' is predicted" if metric.target else "nothing is predicted: no loss has a target"
        fix = suggest(metric.target or "", names) if names else "leave the metrics out: metrics=[]"
        problems.add(Code.UNKNOWN_TARGET, metric.part.path_of("target"), found, fix, at_value=bool(metric.target))
    elif not fitting:
        kind = "classes" if named[0].kind == "numbers" else "numbers"
        contents = " and ".join(f"'{each.name}' holds {each.kind}" for each in named)
        found = f"{metric.schema.name} compares {kind}, and {contents}"
        problems.add(Code.WRONG_TARGET, metric.part.path, found, "metrics=auto chooses by the target")
    for each in fitting:
        _check_class_pairs(metric, each, problems)
    return fitting


def _check_class_pairs(metric: MetricTerm, target: Target, problems: Problems) -> None:
    """A metric may not keep a number for every pair of very many classes."""
    name, count = metric.schema.name, len(target.classes)
    averaging_key = (
        "average" if metric.settings.get("average") in ("macro", "weighted") and name not in _CURVE_METRICS else ""
    )
    if count <= MAX_PAIRED_CLASSES or not (averaging_key or name in _PAIR_METRICS):
        return
    found = f"{name} counts pairs of classes, and '{target.name}' has {count:,}, more than {MAX_PAIRED_CLASSES:,}"
    fix = "take Accuracy or Perplexity" if name in _PAIR_METRICS else "leave average out: micro counts no pairs"
    problems.add(
        Code.TOO_LARGE, metric.part.path if name in _PAIR_METRICS else metric.part.path_of(averaging_key), found, fix
    )


def make_metrics(selected: Sequence[SelectedMetric], targets: Sequence[Target]) -> tuple[dict[str, Any], ...]:
    """For each target its metrics by their results' names: `f1_score`, of several targets `label_f1_score`."""
    with warnings.catch_warnings():
        # Those that keep every prediction say so; it is what was asked for.
        warnings.filterwarnings("ignore", message=".*will save all targets and predictions", category=UserWarning)
        return tuple(
            {make_result_name(each, targets): _make_metric(each) for each in selected if each.target == target}
            for target in targets
        )


def make_result_name(metric: SelectedMetric, targets: Sequence[Target]) -> str:
    """`MeanAbsoluteError` as `mean_absolute_error`, behind its target's name where there are several."""
    name = to_snake_case(metric.schema.name)
    return name if len(targets) == 1 else f"{metric.target.name}_{name}"


def fits_target(schema: Schema, target: Target) -> bool:
    """Whether the metric compares what this target is: classes or numbers."""
    return (schema.name in CLASSIFICATION_METRICS or schema.name in TOKEN_METRICS) == (target.kind == "classes")


# They keep one result an output, and want to know how many there are.
_PER_OUTPUT_METRICS = ("PearsonCorrCoef", "SpearmanCorrCoef", "ConcordanceCorrCoef")


def _make_metric(metric: SelectedMetric) -> Any:
    schema, target, settings = metric.schema, metric.target, metric.settings
    if schema.name in CLASSIFICATION_METRICS:
        task = "binary" if len(target.classes) == 2 else "multiclass"
        # Checking every batch's values would wait for the device; the criterion gives what is wanted.
        filled = {"task": task, "num_classes": len(target.classes), "validate_args": False}
        return schema.build(**{**filled, **settings})
    if schema.name in _PER_OUTPUT_METRICS and target.num_outputs > 1 and len(target.shape) == 1:
        return _average_over_outputs(schema.build)(num_outputs=target.num_outputs, **settings)
    return schema.build(**settings)


@cache
def _average_over_outputs(metric: type) -> type:
    """The metric with one result, the mean of its outputs'."""

    def compute(self: Any) -> Any:
        return metric.compute(self).mean()  # type: ignore[attr-defined]  # a torchmetrics class

    return type(metric.__name__, (metric,), {"compute": compute})


def to_snake_case(name: str) -> str:
    """`MeanAbsoluteError` as `mean_absolute_error`, `R2Score` as `r2_score`, `AUROC` as `auroc`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
