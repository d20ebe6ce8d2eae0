"""Importing torchmetrics without heavy libraries, and reading and restoring the state of its metrics.

torchmetrics imports scipy.signal for audio, matplotlib for plots, and transformers if that is installed. dlspec's
metrics need none of them. In a process of dlspec's command line, empty stand-in modules are used instead. In other
programs (a notebook) everything is imported, so that `metric.plot()` works.

Importing this file imports nothing heavy: a program calls `skip_plot_imports` before anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from types import ModuleType
from typing import Any

_TRANSFORMERS_NAMES = "AutoModel AutoTokenizer CLIPModel CLIPProcessor PreTrainedModel PreTrainedTokenizerBase".split()


class _PlotImportState:
    is_on = False


def skip_plot_imports() -> None:
    """Import torchmetrics without plots in this process. Call it only if no other code in the process needs plots."""
    _PlotImportState.is_on = True


def are_plot_imports_skipped() -> bool:
    """Whether `skip_plot_imports` was called in this process."""
    return _PlotImportState.is_on


@cache
def import_torchmetrics() -> Any:
    """Import and return torchmetrics; after `skip_plot_imports` without the libraries for audio and plots."""
    if are_plot_imports_skipped():
        return _import_without_plots()
    import torchmetrics

    return torchmetrics


def _import_without_plots() -> Any:
    axes, pyplot = (
        _make_module("matplotlib.axes", Axes=object),
        _make_module("matplotlib.pyplot", Figure=object, style=_FakePyplotStyle),
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


class _FakePyplotStyle:
    """Replaces `pyplot.style`: what torchmetrics' decorators use of it while torchmetrics is imported."""

    @staticmethod
    def context(*styles: Any) -> Callable[[Any], Any]:
        return lambda function: function


def _make_module(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@contextmanager
def _insert_stand_ins(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Insert stand-ins for modules into `sys.modules` within this context, unless one of them is already imported."""
    absent = {} if modules.keys() & sys.modules.keys() else modules
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def update_directly(metric: Any, *tensors: Any) -> None:
    """Do what `metric.update(*tensors)` does where gradients are off, without torchmetrics' wrapper of the method."""
    if not _is_torchmetric(metric):
        metric.update(*tensors)
        return
    values = vars(metric)
    values["_update_count"], values["_computed"] = values["_update_count"] + 1, None
    type(metric).update(metric, *tensors)


def compute_directly(metric: Any) -> Any:
    """Do what `metric.compute()` does, without torchmetrics' wrapper of the method if there is one process."""
    is_single = _is_torchmetric(metric) and not metric.distributed_available_fn()
    return type(metric).compute(metric) if is_single else metric.compute()


def reset_directly(metric: Any) -> None:
    """Do what `metric.reset()` does, without setting each state through `nn.Module`."""
    if not _is_torchmetric(metric) or type(metric).reset is not import_torchmetrics().Metric.reset:
        metric.reset()
        return
    values = vars(metric)
    values.update(_update_count=0, _forward_cache=None, _computed=None, _cache=None, _is_synced=False)
    for name, default in metric._defaults.items():
        values[name] = [] if isinstance(default, list) else default.to(values[name].device, copy=True)


def _is_torchmetric(metric: Any) -> bool:
    return hasattr(metric, "_defaults")  # another metric must not import torchmetrics


def get_metric_state(metric: Any) -> dict[str, Any]:
    """Return the state of a torchmetrics metric with its count of updates; empty for other metrics.

    The count has no public setter, and without it a restored metric warns that it was never updated.
    """
    names = getattr(metric, "_defaults", {})
    return {name: getattr(metric, name) for name in (*names, *(["_update_count"] if names else []))}


def restore_metric(metric: Any, state: Mapping[str, Any]) -> None:
    """Set the state of a metric to one that `get_metric_state` returned for a metric of the same kind."""
    for name in get_metric_state(metric):
        setattr(metric, name, state[name])


def merge_metric(metric: Any, state: Mapping[str, Any]) -> None:
    """Add a state that `get_metric_state` returned for a metric of the same kind, as of another process."""
    count = state.get("_update_count", 0)
    if not count:
        return
    if not metric.update_called:
        restore_metric(metric, state)
        return
    own = metric._update_count
    metric.merge_state({name: each for name, each in state.items() if name != "_update_count"})
    metric._update_count = own + count


def get_summed_state(metric: Any) -> dict[str, Any] | None:
    """Return the state of a metric if the states of two updates add up to that of both; else None.

    torchmetrics marks such states for distributed training, in which the states of all processes are summed.
    """
    reductions = getattr(metric, "_reductions", {})
    if not reductions or any(getattr(each, "__name__", "") != "dim_zero_sum" for each in reductions.values()):
        return None
    return {name: getattr(metric, name) for name in reductions}


def set_summed_state(metric: Any, state: Mapping[str, Any]) -> None:
    """Set the state of a metric to a sum of states that `get_summed_state` returned for a metric of the same kind."""
    metric.reset()
    restore_metric(metric, {**state, "_update_count": 1})
