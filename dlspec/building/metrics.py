"""Metrics for a target: the ones that were asked for, or those that fit it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dlspec.data.dataset import Target
from dlspec.registry.metrics import CLASSIFICATION, metrics
from dlspec.registry.schema import Schema


def auto_metrics(target: Target) -> list[str]:
    """Accuracy for classes, with F1 of the second of two; absolute error and R2 for numbers."""
    if target.kind == "numbers":
        return ["MeanAbsoluteError", "R2Score"]
    return ["Accuracy", "F1Score"] if len(target.classes) == 2 else ["Accuracy"]


def make_metrics(chosen: Sequence[tuple[Schema, Mapping[str, Any]]], target: Target) -> dict[str, Any]:
    """The metrics by their results' names: `F1Score` reports `f1_score`."""
    with warnings.catch_warnings():
        # Those that keep every prediction say so; it is what was asked for.
        warnings.filterwarnings("ignore", message=".*will save all targets and predictions", category=UserWarning)
        return {result_name(schema.name): _make(schema, settings, target) for schema, settings in chosen}


def chosen_metrics(target: Target) -> list[tuple[Schema, Mapping[str, Any]]]:
    """`auto_metrics` as parts."""
    registry = metrics()
    return [(registry[name], {}) for name in auto_metrics(target)]


def fits(schema: Schema, target: Target) -> bool:
    """Whether the metric compares what this target is: classes or numbers."""
    return (schema.name in CLASSIFICATION) == (target.kind == "classes")


# They keep one result an output, and want to know how many there are.
_BY_OUTPUT = ("PearsonCorrCoef", "SpearmanCorrCoef", "ConcordanceCorrCoef")


def _make(schema: Schema, settings: Mapping[str, Any], target: Target) -> Any:
    if schema.name in CLASSIFICATION:
        task = "binary" if len(target.classes) == 2 else "multiclass"
        # Checking every batch's values would wait for the device; the criterion gives what is wanted.
        filled = {"task": task, "num_classes": len(target.classes), "validate_args": False}
        return schema.build(**{**filled, **settings})
    if schema.name in _BY_OUTPUT and target.num_outputs > 1:
        return _mean_over_outputs(schema.build)(num_outputs=target.num_outputs, **settings)
    return schema.build(**settings)


@cache
def _mean_over_outputs(metric: type) -> type:
    """The metric with one result, the mean of its outputs'."""

    def compute(self: Any) -> Any:
        return metric.compute(self).mean()  # type: ignore[attr-defined]  # a torchmetrics class

    return type(metric.__name__, (metric,), {"compute": compute})


def result_name(name: str) -> str:
    """`MeanAbsoluteError` as `mean_absolute_error`, `R2Score` as `r2_score`, `AUROC` as `auroc`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
