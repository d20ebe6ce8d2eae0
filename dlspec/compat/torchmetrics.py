"""torchmetrics: imported without what only audio and plots need, and what a metric has gathered.

It imports scipy.signal for audio and matplotlib for its own plots, and transformers where that is installed, and no
metric of dlspec's needs any. In the command line's own process stand-ins are imported instead; elsewhere
`metric.plot()` is the user's, and works.

Importing this file imports nothing heavy: a program calls `leave_out_plots` first of all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import Any

_TRANSFORMERS_NAMES = "AutoModel AutoTokenizer CLIPModel CLIPProcessor PreTrainedModel PreTrainedTokenizerBase".split()


class _PlotsSwitch:
    is_on = False


def leave_out_plots() -> None:
    """State that the process is dlspec's alone: no code of a notebook or another program misses what is left out."""
    _PlotsSwitch.is_on = True


def are_plots_left_out() -> bool:
    """Whether `leave_out_plots` was called in this process."""
    return _PlotsSwitch.is_on


@cache
def import_torchmetrics() -> Any:
    """The library; in a process of dlspec's own without the parts that only audio and plots need."""
    if are_plots_left_out():
        return _import_without_plots()
    import torchmetrics

    return torchmetrics


def _import_without_plots() -> Any:
    axes, pyplot = (
        _make_module("matplotlib.axes", Axes=object),
        _make_module("matplotlib.pyplot", Figure=object, style=_StandInStyle),
    )
    colors = _make_module("matplotlib.colors", Colormap=object)
    plots = {"matplotlib": _make_module("matplotlib", axes=axes, pyplot=pyplot, colors=colors)}
    plots |= {each.__name__: each for each in (axes, pyplot, colors)}
    others = [
        _make_module("scipy.signal", hamming=None),
        _make_module("transformers", **dict.fromkeys(_TRANSFORMERS_NAMES, object)),
    ]
    with ExitStack() as stack:
        for each in (plots, *({other.__name__: other} for other in others)):
            stack.enter_context(_insert_stand_ins(each))
        import torchmetrics
    return torchmetrics


class _StandInStyle:
    """`pyplot.style`, as far as torchmetrics' decorators ask for it when they are made."""

    @staticmethod
    def context(*styles: Any) -> Callable[[Any], Any]:
        return lambda function: function


def _make_module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@contextmanager
def _insert_stand_ins(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Modules that stand for real ones while something is imported; if one is there already, nothing is done."""
    absent = {} if modules.keys() & sys.modules.keys() else modules
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def get_metric_state(metric: Any) -> dict[str, Any]:
    """What a torchmetrics metric has gathered, its count of updates with it; empty for a metric of another kind.

    The count has no public setter, and without it a restored metric warns that it was never updated.
    """
    names = getattr(metric, "_defaults", {})
    return {name: getattr(metric, name) for name in (*names, *(["_update_count"] if names else []))}


def restore_metric(metric: Any, state: Mapping[str, Any]) -> None:
    """Give a metric what `get_metric_state` gave of one like it."""
    for name in get_metric_state(metric):
        setattr(metric, name, state[name])
