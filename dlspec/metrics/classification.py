"""Classification metrics with the settings as written: torchmetrics ignores those that its task does not have.

For two classes, torchmetrics' metrics are those of the second class alone, and `average` and `top_k` have no effect. If
one of them is written, the metric is that of both classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torchmetrics import import_torchmetrics
from dlspec.data.dataset import Target
from dlspec.errors import Code, Finding
from dlspec.metrics.weighted import make_weighted_label_metric
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_metrics import CLASSIFICATION_METRICS

# Settings that have an effect for some targets only, or for two classes only if they are written. A saved spec contains
# them only where they were written.
TARGET_DEPENDENT_SETTINGS = ("average", "top_k", "threshold", "max_fpr")
_NO_LABELS_SETTINGS = {"top_k", "max_fpr"}
MULTILABEL_METRICS = CLASSIFICATION_METRICS - {"CohenKappa", "CalibrationError"}
_TWO_CLASSES_SETTINGS = ("threshold", "max_fpr")
# The defaults of Accuracy for more than two classes: the share of all samples that are predicted right.
_MICRO: Mapping[str, Any] = {"average": "micro", "top_k": 1, "ignore_index": None}
# Averages over two classes that equal the metric of the second class.
_EQUAL_AVERAGES: Mapping[str, Sequence[str]] = {
    "AUROC": ("macro", "weighted"),
    "Accuracy": ("micro", "weighted"),
    "HammingDistance": ("micro", "weighted"),
}


def find_wrong_settings(settings: Mapping[str, Any], target: Target) -> Iterator[tuple[str, Finding]]:
    """Find settings that would have no effect for a target, or that it does not allow.

    Args:
        settings: the settings of a classification metric, as written.
        target: a target of classes or labels.

    Yields:
        The name of a setting with what is wrong.
    """
    if target.labels:
        for name in settings.keys() & _NO_LABELS_SETTINGS:
            found = f"'{name}' has no effect for labels, but '{target.name}' has {len(target.labels):,}"
            yield name, Finding(Code.WRONG_TARGET, found, "remove it")
        return
    count = len(target.classes)
    for name in _TWO_CLASSES_SETTINGS if count > 2 else ():
        if name in settings:
            found = f"'{name}' has an effect only for two classes, but '{target.name}' has {count:,}"
            yield name, Finding(Code.WRONG_TARGET, found, "remove it, or name a target with two classes: target: NAME")
    conflicts = {"max_fpr": ("average", "average" in settings), "threshold": ("top_k", _uses_top_k(settings))}
    for name, (other, is_used) in conflicts.items():
        if count == 2 and name in settings and is_used:
            found = f"'{name}' can't be combined with '{other}'"
            yield name, Finding(Code.CONFLICT, found, "remove one of them")
    top_k = settings.get("top_k")
    if isinstance(top_k, int) and top_k > count:
        found = f"top_k must be at most {count:,}, the number of classes of '{target.name}', got {top_k:,}"
        yield "top_k", Finding(Code.WRONG_VALUE, found)


def measures_both_classes(schema: Schema, settings: Mapping[str, Any], target: Target) -> bool:
    """Return whether a metric of two classes differs from that of the second class alone.

    Args:
        schema: the metric.
        settings: its settings, as written.
        target: what it measures.
    """
    is_averaged = "average" in settings and settings["average"] not in _EQUAL_AVERAGES.get(schema.name, ())
    return len(target.classes) == 2 and (is_averaged or _uses_top_k(settings))


def make_classification_metric(schema: Schema, settings: Mapping[str, Any], target: Target) -> Any:
    """Make the torchmetrics object of a classification metric.

    Args:
        schema: the metric.
        settings: its settings, as written.
        target: what it measures.

    Returns:
        A metric that takes probabilities (N, K) of K classes or labels, or (N,) of the second of two classes.
    """
    # validate_args would check the values of every batch, which synchronizes with the device. The criterion passes
    # valid ones.
    if target.labels:
        return schema.build(task="multilabel", num_labels=len(target.labels), validate_args=False, **settings)
    if len(target.classes) != 2:
        if schema.name == "Accuracy" and all(settings.get(name, each) == each for name, each in _MICRO.items()):
            return _derive_micro_accuracy()(num_classes=len(target.classes), validate_args=False, average="micro")
        return schema.build(task="multiclass", num_classes=len(target.classes), validate_args=False, **settings)
    if "average" not in settings and not _uses_top_k(settings):
        return schema.build(task="binary", validate_args=False, **settings)
    metric_class = getattr(import_torchmetrics().classification, f"Multiclass{schema.name}")
    uses_threshold = "threshold" in schema.settings and not _uses_top_k(settings)
    threshold = settings.get("threshold", 0.5) if uses_threshold else None
    others = {"average": schema.settings["average"].default, **_get_beta(schema), **settings}
    others.pop("threshold", None)
    return _derive_metric_from_second_class(metric_class, threshold)(num_classes=2, validate_args=False, **others)


@cache
def _derive_micro_accuracy() -> type:
    """Derive the accuracy over all samples from torchmetrics' class: the same states and results in half the time."""
    metric: Any = import_torchmetrics().classification.MulticlassAccuracy

    def update(self: Any, preds: Tensor, target: Tensor) -> None:
        right = (preds.argmax(1) == target).sum(0, keepdim=True)
        wrong = target.numel() - right
        counts = {"tp": right, "fp": wrong, "tn": (self.num_classes - 1) * target.numel() - wrong, "fn": wrong}
        states = vars(self)  # setting attributes of an `nn.Module` takes longer than counting
        is_first = self.update_count == 1
        states.update(counts if is_first else {name: states[name] + count for name, count in counts.items()})

    def compute(self: Any) -> Tensor:
        share: Tensor = self.tp.float() / (self.tp + self.fn).clamp(min=1)  # 0 without samples
        return share.squeeze(0)

    return type(metric.__name__, (metric,), {"update": update, "compute": compute})


def _get_beta(schema: Schema) -> dict[str, Any]:
    """Return the default of `beta`, which torchmetrics' own classes of FBetaScore lack; {} for other metrics."""
    return {"beta": schema.settings["beta"].default} if "beta" in schema.settings else {}


def _uses_top_k(settings: Mapping[str, Any]) -> bool:
    """Whether more than the most probable class counts as predicted."""
    return bool(settings.get("top_k", 1) != 1)


def make_label_metric(schema: Schema, settings: Mapping[str, Any], label_index: int, *, has_weights: bool) -> Any:
    """Make the torchmetrics object of a metric of one label.

    Args:
        schema: the metric.
        settings: its settings, as written.
        label_index: the label's position among the labels.
        has_weights: whether it takes weights too.

    Returns:
        A metric that takes the probabilities (N, L) of all labels.
    """
    metric_class = getattr(import_torchmetrics().classification, f"Binary{schema.name}")
    single_settings = {name: value for name, value in settings.items() if name != "average"}
    arguments: dict[str, Any] = {"validate_args": False, **_get_beta(schema), **single_settings}
    if has_weights:
        metric_class, arguments = make_weighted_label_metric(schema, settings, partial(metric_class, **arguments))
    return _derive_single_label_metric(metric_class, label_index)(**arguments)


@cache
def _derive_single_label_metric(metric: type, label_index: int) -> type:
    """Derive a class from a metric of two classes that takes one column of predictions and targets (N, L)."""

    def update(self: Any, preds: Tensor, target: Tensor, *weights: Tensor) -> None:
        metric.update(self, preds[:, label_index], target[:, label_index], *weights)  # type: ignore[attr-defined]  # a torchmetrics class

    return type(metric.__name__, (metric,), {"update": update})


@cache
def _derive_metric_from_second_class(metric: type, threshold: float | None) -> type:
    """Derive a class from a multiclass metric that takes the probability of the second of two classes.

    Args:
        metric: a multiclass metric of torchmetrics.
        threshold: the probability above which the second class is predicted; None: the metric needs probabilities.
    """

    def update(self: Any, preds: Tensor, target: Tensor) -> None:
        both = torch.stack([1 - preds, preds], 1) if threshold is None else (preds > threshold).long()
        metric.update(self, both, target)  # type: ignore[attr-defined]  # a torchmetrics class

    return type(metric.__name__, (metric,), {"update": update})
