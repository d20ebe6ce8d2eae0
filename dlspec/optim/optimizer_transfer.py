"""Give an optimizer the state of an earlier one of its class that had other settings or groups."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.optim.optimizer import needs_closure, restore_optimizer
from dlspec.optim.optimizer_memory import make_trial_state

# Settings that an optimizer reads only when it creates its state. If one of them changes, the state is created again.
_CREATION_SETTINGS: Mapping[type[Optimizer], Sequence[str]] = {
    torch.optim.Rprop: ("lr",),
    torch.optim.Adagrad: ("initial_accumulator_value",),
    torch.optim.LBFGS: ("history_size",),
}
# Written into the groups by schedulers; the rebuilt scheduler writes its own.
_SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")
# Groups of torch.optim may have these settings although the constructor does not.
_BUILT_IN_KEYS = ("foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay")


def transfer_state(
    optimizer: Optimizer, names: Sequence[str], saved: Mapping[str, Any], saved_names: Sequence[str]
) -> list[str]:
    """Load the state of an earlier optimizer of the same class. The optimizer keeps its own settings and groups.

    Args:
        optimizer: the optimizer, with the settings that it continues with.
        names: the names of its parameters, in the order of its groups.
        saved: the state dict of the earlier optimizer.
        saved_names: the names of its parameters, in the order of its groups.

    Returns:
        The names of the parameters that start without state: new ones, and those whose state the new settings can't
        use (Adam with `amsgrad` needs another moment).
    """
    with without_dynamo():
        own = optimizer.state_dict()
    if _must_start_anew(optimizer, own, names, saved, saved_names):
        return list(names)
    states = {name: saved["state"][index] for index, name in enumerate(saved_names) if index in saved["state"]}
    fitting = _find_fitting_states(optimizer, names, states)
    kept = {index: states[name] if name in fitting else own["state"].get(index) for index, name in enumerate(names)}
    groups = _copy_counters(optimizer, own["param_groups"], names, saved["param_groups"], saved_names)
    state = {index: each for index, each in kept.items() if each is not None}
    restore_optimizer(optimizer, {"state": state, "param_groups": groups})
    if needs_closure(optimizer):  # the state of all parameters lies in that of the first one
        return []
    return [name for name in names if name not in fitting]


def _must_start_anew(
    optimizer: Optimizer,
    own: Mapping[str, Any],
    names: Sequence[str],
    saved: Mapping[str, Any],
    saved_names: Sequence[str],
) -> bool:
    """Return whether nothing of the saved state can be used with the new settings."""
    if needs_closure(optimizer) and list(names) != list(saved_names):  # LBFGS joins all parameters to one vector
        return True
    settings = next((each for cls, each in _CREATION_SETTINGS.items() if isinstance(optimizer, cls)), ())
    before, now = (
        {
            parameters[index]: [group.get("initial_lr", group["lr"]) if key == "lr" else group[key] for key in settings]
            for group in groups
            for index in group["params"]
        }
        for groups, parameters in ((saved["param_groups"], saved_names), (own["param_groups"], names))
    )
    return any(before[name] != now[name] for name in now.keys() & before.keys())


def _find_fitting_states(
    optimizer: Optimizer, names: Sequence[str], states: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Find the parameters whose saved state has everything that the optimizer's settings need."""
    parameters = [(group, each) for group in optimizer.param_groups for each in group["params"]]
    required: dict[tuple[int, int], frozenset[str]] = {}  # by group and number of dimensions
    fitting = set()
    for name, (group, parameter) in zip(names, parameters, strict=True):
        if name not in states:
            continue
        key = (id(group), parameter.dim())
        if key not in required:
            required[key] = _find_required_keys(optimizer, group, parameter)
        if required[key] <= states[name].keys():
            fitting.add(name)
    return fitting


def _find_required_keys(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> frozenset[str]:
    if needs_closure(optimizer):
        return frozenset()
    try:
        return frozenset(make_trial_state(optimizer, group, (4,) * parameter.dim()))
    except Exception:  # a custom optimizer that fails on the tried parameter
        return frozenset()


def _copy_counters(
    optimizer: Optimizer,
    groups: Sequence[dict[str, Any]],
    names: Sequence[str],
    saved_groups: Sequence[Mapping[str, Any]],
    saved_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Copy what a custom optimizer counts in its groups, if the groups are still the same ones."""
    members, saved_members = (
        [[parameters[index] for index in group["params"]] for group in each]
        for each, parameters in ((groups, names), (saved_groups, saved_names))
    )
    if members != saved_members:
        return list(groups)
    settings = {*inspect.signature(type(optimizer)).parameters, *_SCHEDULER_KEYS, "params", *_BUILT_IN_KEYS}
    return [
        {**group, **{key: each for key, each in saved.items() if key in group and key not in settings}}
        for group, saved in zip(groups, saved_groups, strict=True)
    ]
