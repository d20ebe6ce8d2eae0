"""How Hydra's own settings list overrides and choices: dlspec applies values after Hydra has composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dlspec.config.overrides import parse_overrides


def read_dirname_settings(config: DictConfig) -> Mapping[str, Any]:
    """Read how Hydra writes overrides in the name of a folder."""
    settings: Any = OmegaConf.to_container(config.hydra.job.config.override_dirname, resolve=True)
    return cast("Mapping[str, Any]", settings)


def describe_overrides(overrides: Sequence[str], dirname_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of Hydra that list the overrides: it has only seen the choices, as dlspec applies values."""
    task = [each for each in parse_overrides(overrides) if not each.is_hydra_override()]
    lines = [str(each.input_line) for each in task]
    excluded, keys = dirname_settings["exclude_keys"], [each.key_or_group for each in task]
    named = sorted(line for key, line in zip(keys, lines, strict=True) if key not in excluded)
    dirname = dirname_settings["item_sep"].join(named).replace("=", dirname_settings["kv_sep"])
    return {"overrides.task": lines, "job.override_dirname": dirname}


def find_unnamed_groups(config: DictConfig) -> dict[str, str]:
    """Return the groups of which no file was chosen, each as its own name."""
    return {group: group for group in ("model", "data") if group not in config.hydra.runtime.choices}


def describe_choices(names: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of Hydra that list the choices of these groups."""
    return {f"runtime.choices.{group}": name for group, name in names.items()}
