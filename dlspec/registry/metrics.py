"""Metrics by torchmetrics' own names, and those of tokens. The library is imported when a metric is first needed.

It imports scipy.signal for audio and matplotlib for its own plots, together most of a second, and transformers where
that is installed, three more, and no metric here needs any. In the command line's own process stand-ins save that;
elsewhere `metric.plot()` is the user's, and works.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from dlspec.registry.lean import is_lean
from dlspec.registry.refinements import refine
from dlspec.registry.registry import Registry
from dlspec.registry.schema import Schema, derive

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
_OF_TRANSFORMERS = "AutoModel AutoTokenizer CLIPModel CLIPProcessor PreTrainedModel PreTrainedTokenizerBase".split()
_INSTEAD = "take one that gives a single number for classes or numbers, such as F1Score or R2Score"


@cache
def torchmetrics() -> Any:
    """The library; in a process of dlspec's own without the parts that only audio and plots need."""
    if is_lean():
        return _without_plots()
    import torchmetrics

    return torchmetrics


def _without_plots() -> Any:
    axes, pyplot = _module("matplotlib.axes", Axes=object), _module("matplotlib.pyplot", Figure=object, style=_Style)
    colors = _module("matplotlib.colors", Colormap=object)
    plots = {"matplotlib": _module("matplotlib", axes=axes, pyplot=pyplot, colors=colors)}
    plots |= {each.__name__: each for each in (axes, pyplot, colors)}
    others = [_module("scipy.signal", hamming=None), _module("transformers", **dict.fromkeys(_OF_TRANSFORMERS, object))]
    with ExitStack() as stack:
        for each in (plots, *({other.__name__: other} for other in others)):
            stack.enter_context(_stand_ins(each))
        import torchmetrics
    return torchmetrics


class _Style:
    """`pyplot.style`, as far as torchmetrics' decorators ask for it when they are made."""

    @staticmethod
    def context(*styles: Any) -> Callable[[Any], Any]:
        return lambda function: function


def _module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@contextmanager
def _stand_ins(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Modules that stand for real ones while something is imported; where one is there already, nothing is done."""
    absent = {} if modules.keys() & sys.modules.keys() else modules
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@cache
def metrics() -> Registry:
    """The registry of metrics; asking for it imports torchmetrics."""
    library = torchmetrics()
    from dlspec.registry import token_metrics

    classes = [getattr(library, name) for name in _NAMES.split()]
    classes += [library.image.PeakSignalNoiseRatio, *(getattr(token_metrics, name) for name in OF_TOKENS)]
    known = {each.__name__ for each in classes}
    not_yet = {name: _INSTEAD for name, each in vars(library).items() if inspect.isclass(each) and name not in known}
    return Registry("metric", classes, _derive, not_yet=not_yet)


def _derive(cls: type) -> Schema:
    # A classification metric's class is a factory: its settings are those of __new__.
    source = cls.__new__ if cls.__name__ in CLASSIFICATION else None
    return derive(cls, "metric", dropped=FILLED, refine=refine, signature_of=source)
