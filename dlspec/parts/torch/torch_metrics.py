"""The metrics of torchmetrics under their own names, and the token metrics.

torchmetrics is imported when a metric is first needed, as importing it is slow.
"""

from __future__ import annotations

import inspect
from functools import cache

from dlspec.compat.torchmetrics import import_torchmetrics
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.schema_derivation import SchemaOptions, derive_schema
from dlspec.parts.setting_constraints import find_constraint
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES

# Arguments of metrics that a spec can't set: they are filled in from the target, do not apply to dlspec's targets, or
# make a metric return more than one number.
IGNORED_ARGUMENTS = frozenset(
    {"task", "num_classes", "num_labels", "num_outputs", "validate_args", "multidim_average", "reduction", "dim"}
)

_METRIC_NAMES = (
    "Accuracy AUROC AveragePrecision CohenKappa F1Score FBetaScore HammingDistance JaccardIndex MatthewsCorrCoef "
    "Precision Recall Specificity CalibrationError "
    "MeanSquaredError MeanAbsoluteError MeanAbsolutePercentageError R2Score ExplainedVariance PearsonCorrCoef "
    "SpearmanCorrCoef ConcordanceCorrCoef MeanSquaredLogError SymmetricMeanAbsolutePercentageError"
)
CLASSIFICATION_METRICS = frozenset(_METRIC_NAMES.split()[:13])
TOKEN_METRICS = ("Perplexity", "BitsPerCharacter")
_SINGLE_NUMBER_FIX = "use a metric that returns a single number for classes or numbers, such as F1Score or R2Score"


@cache
def metric_registry() -> Registry[Schema]:
    """Return the registry of metrics. The first call imports torchmetrics."""
    library = import_torchmetrics()
    from dlspec.parts import token_metrics

    classes = [getattr(library, name) for name in _METRIC_NAMES.split()]
    classes += [library.image.PeakSignalNoiseRatio, *(getattr(token_metrics, name) for name in TOKEN_METRICS)]
    supported = {each.__name__ for each in classes}
    unsupported = {
        name: _SINGLE_NUMBER_FIX
        for name, each in vars(library).items()
        if inspect.isclass(each) and name not in supported
    }
    registry = Registry("metric", classes, _derive_metric, unsupported=unsupported)
    registry.set_other_kinds(LOSSES, LAYERS)
    return registry


def _derive_metric(cls: type) -> Schema:
    # A classification metric's class is a factory: its settings are the arguments of __new__.
    source = cls.__new__ if cls.__name__ in CLASSIFICATION_METRICS else None
    return derive_schema(cls, "metric", SchemaOptions(find_constraint, IGNORED_ARGUMENTS), source)
