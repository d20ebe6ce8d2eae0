"""Declarative deep learning: turn a page of YAML into a trained PyTorch network.

    import dlspec
    network = dlspec.build({"model": "cnn"}, data={"shape": [3, 32, 32], "num_classes": 10})
    result = dlspec.train({"model": "cnn", "trainer": {"epochs": 3}})

Importing dlspec is fast: a name is only imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlspec.api import Result, build, inspect, load, resume, sweep, train
    from dlspec.data.prepare.kinds.user_kinds import column
    from dlspec.data.sources.source import data_source
    from dlspec.data.sources.user_rows import rows
    from dlspec.errors import DataError, SpecError, TrainingFailed, UserError
    from dlspec.inference.predictor import Predictor, predictor
    from dlspec.parts.decorators import layer, loss, optimizer, scheduler
    from dlspec.report.results import Results, results

__all__ = [
    "DataError",
    "Predictor",
    "Result",
    "Results",
    "SpecError",
    "TrainingFailed",
    "UserError",
    "build",
    "column",
    "data_source",
    "inspect",
    "layer",
    "load",
    "loss",
    "optimizer",
    "predictor",
    "results",
    "resume",
    "rows",
    "scheduler",
    "sweep",
    "train",
]

# Where each public name is defined.
_MODULE_OF_NAME = {
    **dict.fromkeys(("Result", "build", "inspect", "load", "resume", "sweep", "train"), "dlspec.api"),
    **dict.fromkeys(("DataError", "SpecError", "TrainingFailed", "UserError"), "dlspec.errors"),
    **dict.fromkeys(("layer", "loss", "optimizer", "scheduler"), "dlspec.parts.decorators"),
    **dict.fromkeys(("Predictor", "predictor"), "dlspec.inference.predictor"),
    **dict.fromkeys(("Results", "results"), "dlspec.report.results"),
    "column": "dlspec.data.prepare.kinds.user_kinds",
    "data_source": "dlspec.data.sources.source",
    "rows": "dlspec.data.sources.user_rows",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'dlspec' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
