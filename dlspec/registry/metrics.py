"""Metrics by torchmetrics' own names. The library is imported when a metric is first needed.

Its package imports scipy.signal for audio alone, 0.5 s that no metric here needs; a stand-in saves them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from dlspec.registry.refinements import refine
from dlspec.registry.registry import Registry
from dlspec.registry.schema import Schema, derive

# Filled in from the target, or only for what a target here can't be; a metric gives one number.
FILLED = frozenset({"task", "num_classes", "num_labels", "num_outputs", "validate_args", "multidim_average"})

_NAMES = (
    "Accuracy AUROC AveragePrecision CohenKappa F1Score FBetaScore HammingDistance JaccardIndex MatthewsCorrCoef "
    "Precision Recall Specificity CalibrationError "
    "MeanSquaredError MeanAbsoluteError MeanAbsolutePercentageError R2Score ExplainedVariance PearsonCorrCoef "
    "SpearmanCorrCoef ConcordanceCorrCoef MeanSquaredLogError SymmetricMeanAbsolutePercentageError"
)
CLASSIFICATION = frozenset(_NAMES.split()[:13])


@cache
def torchmetrics() -> Any:
    """The library, imported without the parts that only audio needs."""
    with _stand_in("scipy.signal", hamming=None):
        import torchmetrics as library
    return library


@contextmanager
def _stand_in(name: str, **attributes: Any) -> Iterator[None]:
    """An empty module under `name` while something is imported that would import the real one for nothing."""
    if name in sys.modules:
        yield
        return
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


@cache
def metrics() -> Registry:
    """The registry of metrics; asking for it imports torchmetrics."""
    library = torchmetrics()
    return Registry("metric", (getattr(library, name) for name in _NAMES.split()), _derive)


def _derive(cls: type) -> Schema:
    # A classification metric's class is a factory: its settings are those of __new__.
    source = cls.__new__ if cls.__name__ in CLASSIFICATION else None
    return derive(cls, "metric", dropped=FILLED, refine=refine, signature_of=source)
