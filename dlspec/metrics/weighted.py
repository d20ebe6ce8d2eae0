"""Metrics of targets whose samples do not count equally: which there are, and their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlspec.data.dataset import Target
from dlspec.errors import Code, Finding
from dlspec.parts.schema import Schema

_CLASS_SETTINGS = ("average", "threshold")
# The metrics that can weight samples, with the settings that they can have.
WEIGHTED_METRICS: Mapping[str, tuple[str, ...]] = {
    "Accuracy": _CLASS_SETTINGS, "Precision": _CLASS_SETTINGS, "Recall": _CLASS_SETTINGS, "F1Score": _CLASS_SETTINGS,
    "MeanAbsoluteError": (), "MeanSquaredError": ("squared",), "R2Score": (),
}  # fmt: skip


def find_unweighted(schema: Schema, settings: Mapping[str, Any], target: Target) -> Iterator[tuple[str, Finding]]:
    """Find why a metric can't count samples by their weights.

    Args:
        schema: the metric.
        settings: its settings, as written.
        target: a target with weights.

    Yields:
        The name of a setting, or '' for the metric itself, with what is wrong.
    """
    fix = f"use {', '.join(WEIGHTED_METRICS)}, or data without weights"
    if target.labels:
        yield (
            "",
            Finding(Code.NOT_YET, f"metrics of labels can't be weighted yet, but '{target.name}' has weights", fix),
        )
    elif schema.name not in WEIGHTED_METRICS:
        yield "", Finding(Code.NOT_YET, f"{schema.name} can't be weighted yet, but '{target.name}' has weights", fix)
    else:
        for name in settings.keys() - set(WEIGHTED_METRICS[schema.name]):
            if settings[name] == schema.settings[name].default:  # a saved spec contains the defaults too
                continue
            found = f"'{name}' is not supported yet for a weighted {schema.name}"
            yield name, Finding(Code.NOT_YET, found, "remove it, or use data without weights")


def make_weighted_metric(schema: Schema, settings: Mapping[str, Any], target: Target) -> Any:
    """Make a metric whose `update` takes weights as a third tensor.

    Args:
        schema: the metric, one of `WEIGHTED_METRICS`.
        settings: its settings, as written.
        target: what it measures.
    """
    from dlspec.parts.weighted_metrics import WeightedClassMetric, WeightedError, WeightedR2Score

    if target.kind == "classes":
        # Without `average`, accuracy counts rows, and the others are those of the second of two classes.
        is_binary = len(target.classes) == 2 and schema.name != "Accuracy"
        average = settings.get("average", None if is_binary else "micro")
        return WeightedClassMetric(schema.name, len(target.classes), average, settings.get("threshold", 0.5))
    if schema.name == "R2Score":
        return WeightedR2Score(target.num_outputs if len(target.shape) == 1 else 1)
    squared = schema.name == "MeanSquaredError"
    return WeightedError(2 if squared else 1, root=squared and settings.get("squared") is False)
