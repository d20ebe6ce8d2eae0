"""Metrics of targets whose samples do not count equally: which there are, and their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dlspec.data.dataset import Target
from dlspec.errors import Code, Finding
from dlspec.parts.schema import Schema

_COUNT_SETTINGS = ("average", "threshold", "ignore_index")
# The metrics that can weight samples, with the settings that they can have.
WEIGHTED_METRICS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Accuracy", "Precision", "Recall", "Specificity", "HammingDistance", "JaccardIndex"),
                    _COUNT_SETTINGS),
    "F1Score": (*_COUNT_SETTINGS, "zero_division"),
    "FBetaScore": (*_COUNT_SETTINGS, "zero_division", "beta"),
    "CohenKappa": ("threshold", "weights", "ignore_index"),
    "MatthewsCorrCoef": ("threshold", "ignore_index"),
    "AUROC": ("average",),
    "AveragePrecision": ("average",),
    "CalibrationError": ("n_bins", "norm"),
    "MeanSquaredError": ("squared",),
    **dict.fromkeys(("MeanAbsoluteError", "MeanAbsolutePercentageError", "SymmetricMeanAbsolutePercentageError",
                     "MeanSquaredLogError", "R2Score", "ExplainedVariance", "PearsonCorrCoef", "SpearmanCorrCoef"), ()),
    **dict.fromkeys(("Perplexity", "BitsPerCharacter"), ("ignore_index",)),
}  # fmt: skip
_CURVES = ("AUROC", "AveragePrecision")
_MOMENTS = ("R2Score", "ExplainedVariance", "PearsonCorrCoef")
_CURVE_AVERAGES = ("macro", "weighted")


def find_unweighted(schema: Schema, settings: Mapping[str, Any], target: Target) -> Iterator[tuple[str, Finding]]:
    """Find why a metric can't count samples by their weights.

    Args:
        schema: the metric.
        settings: its settings, as written.
        target: a target with weights.

    Yields:
        The name of a setting, or '' for the metric itself, with what is wrong.
    """
    if schema.name not in WEIGHTED_METRICS:
        found = f"{schema.name} can't be weighted yet, but '{target.name}' has weights"
        yield "", Finding(Code.NOT_YET, found, "use metrics=auto, or data without weights")
        return
    fix = "remove it, or use data without weights"
    for name in settings.keys() - set(WEIGHTED_METRICS[schema.name]):
        if settings[name] == schema.settings[name].default:  # a saved spec contains the defaults too
            continue
        yield name, Finding(Code.NOT_YET, f"'{name}' is not supported yet for a weighted {schema.name}", fix)
    average = settings.get("average", "macro")
    if schema.name in _CURVES and average not in _CURVE_AVERAGES:
        found = f"average: {average} is not supported yet for a weighted {schema.name}"
        yield "average", Finding(Code.NOT_YET, found, "write average: macro, or use data without weights")


def make_weighted_metric(
    schema: Schema, settings: Mapping[str, Any], target: Target, make_metric: Callable[[], Any], *, measures_both: bool
) -> Any:
    """Make a metric whose `update` takes weights as a third tensor.

    Args:
        schema: the metric, one of `WEIGHTED_METRICS`.
        settings: its settings, as written.
        target: what it measures.
        make_metric: makes the metric without weights.
        measures_both: of two classes, whether both are measured.
    """
    if schema.name in ("Perplexity", "BitsPerCharacter"):
        return make_metric()
    if not (target.kind == "classes" or target.labels):
        return _make_number_metric(schema.name, settings, target)
    from dlspec.parts.weighted_metrics import WeightedCalibrationError, WeightedClassMetric, WeightedCurveMetric

    if schema.name in _CURVES:
        average, is_roc = settings.get("average", "macro"), schema.name == "AUROC"
        return WeightedCurveMetric(measures_roc=is_roc, average=average, measures_both=measures_both)
    if schema.name == "CalibrationError":
        return WeightedCalibrationError(**{key: settings[key] for key in ("n_bins", "norm") if key in settings})
    return WeightedClassMetric(
        make_metric, len(target.labels or target.classes), has_labels=bool(target.labels),
        threshold=settings.get("threshold", 0.5), ignore_index=settings.get("ignore_index"),
    )  # fmt: skip


def make_weighted_label_metric(
    schema: Schema, settings: Mapping[str, Any], make_metric: Callable[[], Any]
) -> tuple[type, dict[str, Any]]:
    """Choose the weighted metric of a single label: its class, and the arguments of that.

    Args:
        schema: the metric, one of `WEIGHTED_METRICS`.
        settings: its settings, as written.
        make_metric: makes the metric without weights, of two classes.
    """
    from dlspec.parts.weighted_metrics import WeightedClassMetric, WeightedCurveMetric

    if schema.name in _CURVES:
        return WeightedCurveMetric, {"measures_roc": schema.name == "AUROC"}
    chosen = {key: settings[key] for key in ("threshold", "ignore_index") if key in settings}
    return WeightedClassMetric, {"make_metric": make_metric, "num_classes": 2, **chosen}


def _make_number_metric(name: str, settings: Mapping[str, Any], target: Target) -> Any:
    from dlspec.parts.weighted_number_metrics import WeightedError, WeightedMomentMetric, WeightedSpearman

    if name in _MOMENTS:
        return WeightedMomentMetric(name, target.num_outputs if len(target.shape) == 1 else 1)
    if name == "SpearmanCorrCoef":
        return WeightedSpearman()
    return WeightedError(name, root=settings.get("squared") is False)
