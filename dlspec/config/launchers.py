"""Hydra's launchers and sweepers: the extras that install them, and those that dlspec replaces or wraps."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import BASIC_LAUNCHER, BASIC_SWEEPER, get_plain_value
from dlspec.config.hydra_node import set_hydra_value
from dlspec.errors import Code, Problem, SpecError, format_value

# The module under which Hydra and its configs find the classes; they are defined in dlspec.sweeps.hydra.
PLUGIN_MODULE = "hydra_plugins.dlspec"
# The extra of dlspec that installs each launcher and sweeper.
EXTRAS_BY_CHOICE: Mapping[str, Mapping[str, str]] = {
    "hydra/launcher": {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"},
    "hydra/sweeper": {"optuna": "optuna"},
}

# Hydra's own classes stop at the first failed job and drop all later batches.
_REPLACEMENTS = {
    BASIC_LAUNCHER: f"{PLUGIN_MODULE}.DlspecLauncher",
    BASIC_SWEEPER: f"{PLUGIN_MODULE}.DlspecSweeper",
}
_LAUNCHERS = {"dlspec": "DlspecLauncher", "pool": "PoolLauncher", "vectorized": "VectorizedLauncher"}


def register_plugin_names() -> None:
    """Register dlspec's launchers and sweeper as choices of Hydra's groups, by name only: no class is imported."""
    for name, cls in _LAUNCHERS.items():
        _store_plugin_choice("hydra/launcher", name, {"_target_": f"{PLUGIN_MODULE}.{cls}"})
    sweeper = {"_target_": f"{PLUGIN_MODULE}.DlspecSweeper", "max_batch_size": None, "params": None}
    _store_plugin_choice("hydra/sweeper", "dlspec", sweeper)


def _store_plugin_choice(group: str, name: str, node: Mapping[str, Any]) -> None:
    """Store a choice, unless it is already stored: storing it again would make Hydra's configs merge again."""
    store = ConfigStore.instance()
    stored = reduce(lambda choices, key: choices.get(key, {}), group.split("/"), store.repo).get(f"{name}.yaml")
    if stored is None or stored.node != node:  # `store.load` would copy it, which takes a millisecond
        store.store(group=group, name=name, node=node)


def wrap_launcher(config: DictConfig) -> None:
    """Wrap the launcher that a sweep's config names in dlspec's, so that every launcher returns results the same way.

    Hydra's basic launcher and sweeper are replaced by dlspec's.
    """
    for key in ("launcher", "sweeper"):
        node = _read_plugin_node(config, key)
        target = str(node["_target_"])
        if target in _REPLACEMENTS:
            set_hydra_value(config, key, {**node, "_target_": _REPLACEMENTS[target]})
        elif key == "launcher" and not target.startswith(PLUGIN_MODULE):
            wrapper = {"_target_": f"{PLUGIN_MODULE}.OtherLauncher", "_recursive_": False}
            set_hydra_value(config, key, {**wrapper, "launcher": node})


def _read_plugin_node(config: DictConfig, key: str) -> dict[str, Any]:
    """Return the settings of the launcher or sweeper as plain values; raise SpecError if they do not name a class."""
    node = get_plain_value(config.hydra, key)
    if isinstance(node, dict) and isinstance(node.get("_target_"), str):
        return {str(name): value for name, value in node.items()}
    found, fix = (
        f"expected the settings of a {key}, got {format_value(node)}",
        f"choose one by its name: hydra/{key}=NAME",
    )
    raise SpecError([Problem(Code.WRONG_TYPE, f"hydra.{key}", found, fix)])


def restore_wrapped_launcher(config: DictConfig) -> DictConfig:
    """Copy a sweep's config with the launcher that it named, without dlspec's wrapper."""
    copy = deepcopy(config)
    set_hydra_value(copy, "launcher", OmegaConf.to_container(copy.hydra.launcher.launcher, resolve=False))
    return copy
