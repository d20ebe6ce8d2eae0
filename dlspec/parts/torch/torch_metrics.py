"""Metrics by torchmetrics' own names, and those of tokens. The library is imported when a metric is first needed."""

from __future__ import annotations

import inspect
from functools import cache

from dlspec.compat.torchmetrics import import_torchmetrics
from dlspec.parts.derivation import Derivation, derive
from dlspec.parts.refinements import refine
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema

# Filled in from the target, or only for what a target here can't be; a metric gives one number.
FILLED = frozenset(
    {"task", "num_classes", "num_labels", "num_outputs", "validate_args", "multidim_average", "reduction", "dim"}
)

_NAMES = (
    "Accuracy AUROC AveragePrecision CohenKappa F1Score FBetaScore HammingDistance JaccardIndex MatthewsCorrCoef "
    "Precision Recall Specificity CalibrationError "
    "MeanSquaredError MeanAbsoluteError MeanAbsolutePercentageError R2Score ExplainedVariance PearsonCorrCoef "
    "SpearmanCorrCoef ConcordanceCorrCoef MeanSquaredLogError SymmetricMeanAbsolutePercentageError"
)
CLASSIFICATION = frozenset(_NAMES.split()[:13])
OF_TOKENS = ("Perplexity", "BitsPerCharacter")
_INSTEAD = "take one that gives a single number for classes or numbers, such as F1Score or R2Score"


@cache
def metrics() -> Registry[Schema]:
    """The registry of metrics; asking for it imports torchmetrics."""
    library = import_torchmetrics()
    from dlspec.parts import token_metrics

    classes = [getattr(library, name) for name in _NAMES.split()]
    classes += [library.image.PeakSignalNoiseRatio, *(getattr(token_metrics, name) for name in OF_TOKENS)]
    known = {each.__name__ for each in classes}
    not_yet = {name: _INSTEAD for name, each in vars(library).items() if inspect.isclass(each) and name not in known}
    return Registry("metric", classes, _derive, not_yet=not_yet)


def _derive(cls: type) -> Schema:
    # A classification metric's class is a factory: its settings are those of __new__.
    source = cls.__new__ if cls.__name__ in CLASSIFICATION else None
    return derive(cls, "metric", Derivation(refine, FILLED), source)
