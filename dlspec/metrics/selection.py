"""Select metrics for the predicted targets: those of the spec, or with `metrics: auto` those that fit each target."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from dlspec.data.dataset import Dataset, Target
from dlspec.data.prepare.decoding import CHARACTERS, get_preprocessing_kind
from dlspec.errors import Code, suggest
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import AVERAGES_OF_TWO_CLASSES
from dlspec.metrics.classification import (
    MULTILABEL_METRICS,
    find_wrong_settings,
    make_classification_metric,
    make_label_metric,
    measures_both_classes,
)
from dlspec.metrics.weighted import find_unweighted, make_weighted_metric
from dlspec.parts.schema import Schema
from dlspec.parts.specs.metrics_spec import MetricTerm
from dlspec.parts.torch.torch_metrics import CLASSIFICATION_METRICS, TOKEN_METRICS, metric_registry

# The most classes for a metric that counts pairs of classes: a confusion matrix of 5,000 x 5,000 takes 200 MB.
MAX_PAIRED_CLASSES = 5_000
MAX_SINGLE_LABELS = 20  # more would fill the screen
_PAIR_METRICS = ("JaccardIndex", "CohenKappa", "MatthewsCorrCoef")
_CURVE_METRICS = ("AUROC", "AveragePrecision")


@dataclass(frozen=True)
class SelectedMetric:
    """A metric of one target's predictions."""

    schema: Schema
    target: Target
    settings: Mapping[str, Any] = field(default_factory=dict)


def choose_auto_metrics(target: Target, *, is_input: bool = False, is_character: bool = False) -> list[str]:
    """Choose the metrics that papers usually report for such a target.

    Args:
        target: The predicted target.
        is_input: Whether the network reconstructs its input, as an autoencoder does.
        is_character: Whether the tokens are single characters.

    Returns:
        The names of the metrics.
    """
    if target.labels:
        return ["Accuracy", "F1Score"]
    if target.kind == "numbers":
        return ["MeanSquaredError" if is_input else "MeanAbsoluteError", "R2Score"]
    if target.is_next_token:
        return ["BitsPerCharacter" if is_character else "Perplexity", "Accuracy"]
    if len(target.shape) > 1 and len(target.classes) <= MAX_PAIRED_CLASSES:  # one class per pixel
        return ["Accuracy", "JaccardIndex"]
    return ["Accuracy", "F1Score"] if len(target.classes) == 2 else ["Accuracy"]


def select_auto_metrics(predicted: Sequence[Target], data: Dataset) -> list[SelectedMetric]:
    """Select the metrics of `choose_auto_metrics` for each target."""
    return [
        SelectedMetric(metric_registry()[name], target)
        for target in predicted
        for name in _auto_metric_names(target, data)
    ]


def _auto_metric_names(predicted: Target, data: Dataset) -> list[str]:
    target = data.get_loss_target(predicted.name) or predicted
    is_input = any(each.name == target.name for each in data.fields)
    is_character = get_preprocessing_kind(data.get_preprocessing(target.next_of)) in CHARACTERS
    return choose_auto_metrics(target, is_input=is_input, is_character=is_character)


def select_metrics(
    terms: Sequence[MetricTerm] | None, predicted: Sequence[Target], data: Dataset, problems: Problems
) -> list[SelectedMetric]:
    """Match metrics with the predicted targets.

    Args:
        terms: The metrics as written; None stands for `auto`.
        predicted: The predicted targets, with the shapes that metrics see.
        data: The data with the targets.
        problems: Collects metrics that fit no target or are listed twice.

    Returns:
        The metrics in order, each with its target.
    """
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
            found = f"{each.schema.name} is listed twice, and both would report '{to_snake_case(each.schema.name)}'"
            problems.add(Code.NAME_TAKEN, each.part.path, found, "remove one: a metric can't be given another name")
        metrics_so_far += selected
    return metrics_so_far


def _find_fitting_targets(metric: MetricTerm, predicted: Sequence[Target], problems: Problems) -> list[Target]:
    """Find the targets of a metric: the one that it names, or each one that it fits."""
    named = [each for each in predicted if metric.target in (None, each.name)]
    fitting = [each for each in named if fits_target(metric.schema, each)]
    if not named:
        names = [each.name for each in predicted]
        found = (
            f"no target '{metric.target}' is predicted"
            if metric.target
            else "nothing is predicted: no loss has a target"
        )
        fix = suggest(metric.target or "", names) if names else "leave the metrics out: 'metrics=[]'"
        problems.add(Code.UNKNOWN_TARGET, metric.part.path_of("target"), found, fix, at_value=bool(metric.target))
    elif not fitting:
        kind = _describe_expected_kind(metric.schema)
        contents = " and ".join(f"'{each.name}' has {'labels' if each.labels else each.kind}" for each in named)
        found = f"{metric.schema.name} expects {kind}, but {contents}"
        problems.add(Code.WRONG_TARGET, metric.part.path, found, "use metrics=auto, which chooses by the target")
    for each in fitting:
        _check_class_pairs(metric, each, problems)
        if each.weights:
            for name, finding in find_unweighted(metric.schema, metric.settings, each):
                problems.add_finding(metric.part.path_of(name) if name else metric.part.path, finding)
        if metric.schema.name in CLASSIFICATION_METRICS:
            for name, finding in find_wrong_settings(metric.settings, each):
                problems.add_finding(metric.part.path_of(name), finding)
            if measures_both_classes(metric.schema, metric.settings, each):
                name = "average" if "average" in metric.settings else "top_k"
                problems.refuse_changed_rule(AVERAGES_OF_TWO_CLASSES, metric.part.path_of(name))
    return fitting


def _describe_expected_kind(schema: Schema) -> str:
    if schema.name in MULTILABEL_METRICS:
        return "classes or labels"
    return "classes" if schema.name in CLASSIFICATION_METRICS or schema.name in TOKEN_METRICS else "numbers"


def _check_class_pairs(metric: MetricTerm, target: Target, problems: Problems) -> None:
    """Report a metric that would keep a number for every pair of too many classes."""
    name, count = metric.schema.name, len(target.classes)
    averaging_key = (
        "average" if metric.settings.get("average") in ("macro", "weighted") and name not in _CURVE_METRICS else ""
    )
    if count <= MAX_PAIRED_CLASSES or not (averaging_key or name in _PAIR_METRICS):
        return
    found = (
        f"{name} counts pairs of classes, but '{target.name}' has {count:,} classes, more than {MAX_PAIRED_CLASSES:,}"
    )
    fix = (
        "use Accuracy or Perplexity"
        if name in _PAIR_METRICS
        else "leave average out: the default, micro, counts no pairs"
    )
    problems.add(
        Code.TOO_LARGE, metric.part.path if name in _PAIR_METRICS else metric.part.path_of(averaging_key), found, fix
    )


def make_metrics(selected: Sequence[SelectedMetric], targets: Sequence[Target]) -> tuple[dict[str, Any], ...]:
    """Make the torchmetrics objects of each target by the names of their results.

    A name is `f1_score`, or `label_f1_score` if there are multiple targets. A target of at most `MAX_SINGLE_LABELS`
    labels also has each label's own result, `f1_score_LABEL`.
    """
    with warnings.catch_warnings():
        # torchmetrics warns that some metrics keep every prediction; the spec asked for them.
        warnings.filterwarnings("ignore", message=".*will save all targets and predictions", category=UserWarning)
        return tuple(
            {
                name: metric
                for each in selected
                if each.target == target
                for name, metric in _make_named_metrics(each, targets)
            }
            for target in targets
        )


def make_result_name(metric: SelectedMetric, targets: Sequence[Target]) -> str:
    """Make the name of a metric's result: `mean_absolute_error`.

    The target's name comes first if there are multiple targets: `price_mean_absolute_error`.
    """
    name = to_snake_case(metric.schema.name)
    return name if len(targets) == 1 else f"{metric.target.name}_{name}"


def fits_target(schema: Schema, target: Target) -> bool:
    """Whether the metric is for this kind of target: classes, labels or numbers."""
    if target.labels:
        return schema.name in MULTILABEL_METRICS
    return (schema.name in CLASSIFICATION_METRICS or schema.name in TOKEN_METRICS) == (target.kind == "classes")


def _make_named_metrics(metric: SelectedMetric, targets: Sequence[Target]) -> Iterator[tuple[str, Any]]:
    name, labels = make_result_name(metric, targets), metric.target.labels
    yield name, _make_metric(metric)
    for index, label in enumerate(labels if len(labels) <= MAX_SINGLE_LABELS else ()):
        has_weights = bool(metric.target.weights)
        yield f"{name}_{label}", make_label_metric(metric.schema, metric.settings, index, has_weights=has_weights)


# These have one result per output, and expect the number of outputs.
_PER_OUTPUT_METRICS = ("PearsonCorrCoef", "SpearmanCorrCoef", "ConcordanceCorrCoef")


def _make_metric(metric: SelectedMetric) -> Any:
    if not metric.target.weights:
        return _make_unweighted_metric(metric)
    both = measures_both_classes(metric.schema, metric.settings, metric.target)
    make_metric = partial(_make_unweighted_metric, metric)
    return make_weighted_metric(metric.schema, metric.settings, metric.target, make_metric, measures_both=both)


def _make_unweighted_metric(metric: SelectedMetric) -> Any:
    schema, target, settings = metric.schema, metric.target, metric.settings
    if schema.name in CLASSIFICATION_METRICS:
        return make_classification_metric(schema, settings, target)
    if schema.name in _PER_OUTPUT_METRICS and target.num_outputs > 1 and len(target.shape) == 1:
        return _average_over_outputs(schema.build)(num_outputs=target.num_outputs, **settings)
    return schema.build(**settings)


@cache
def _average_over_outputs(metric: type) -> type:
    """Derive a class from a metric whose result is the mean over its outputs."""

    def compute(self: Any) -> Any:
        return metric.compute(self).mean()  # type: ignore[attr-defined]  # a torchmetrics class

    return type(metric.__name__, (metric,), {"compute": compute})


def to_snake_case(name: str) -> str:
    """Convert a class name: `MeanAbsoluteError` to `mean_absolute_error`, `R2Score` to `r2_score`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
