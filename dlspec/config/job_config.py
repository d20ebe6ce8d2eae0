"""The config of a sweep's job: what it has in common with the other jobs, and its own values.

OmegaConf is slow. Making, copying and reading the whole config of each job took as long as training a small network for
some epochs, so that is done once for all jobs with the same choices.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from dlspec.config.hydra_node import set_hydra_value, set_hydra_values

MAX_SHARED = 64  # configs that many jobs share, kept in memory as plain values; one takes 15 KB


@dataclass(frozen=True)
class JobConfig:
    """A config with its `hydra` node, which can be pickled."""

    shared: bytes  # a pickled config
    overrides: tuple[str, ...]  # of the job, without those of Hydra's settings
    # What differs from the shared config: plain values of sections, and values of the `hydra` node by dotted keys.
    sections: Mapping[str, Any] = field(default_factory=dict)
    removed: Sequence[str] = ()  # sections that it does not have
    hydra_values: Mapping[str, Any] = field(default_factory=dict)

    def with_hydra_values(self, values: Mapping[str, Any]) -> JobConfig:
        """Return a copy with these values of the `hydra` node, by their dotted keys."""
        return replace(self, hydra_values={**self.hydra_values, **values})

    @property
    def tree(self) -> dict[str, Any]:
        """The config without the `hydra` node, as plain values; `${...}` stays as written. Not to be changed."""
        tree = {**_read_plain(self.shared), **self.sections}
        return {key: value for key, value in tree.items() if key != "hydra" and key not in self.removed}

    @property
    def hydra_tree(self) -> dict[str, Any]:
        """The `hydra` node as plain values. Not to be changed."""
        tree = dict(_read_plain(self.shared)["hydra"])
        for key, value in self.hydra_values.items():
            *parents, last = key.split(".")
            node = tree
            for parent in parents:
                node[parent] = node = dict(node[parent])
            node[last] = value
        return tree

    def make(self) -> DictConfig:
        """Make the config itself."""
        config: DictConfig = pickle.loads(self.shared)
        change_config(config, self.sections, self.removed)
        set_hydra_values(config, self.hydra_values)
        return config


def change_config(config: DictConfig, sections: Mapping[str, Any], removed: Sequence[str]) -> None:
    """Set whole sections of a config, or remove them.

    Args:
        config: the config; it is changed in place.
        sections: the plain values of the sections.
        removed: the names of sections to remove.
    """
    with open_dict(config):
        for name, value in sections.items():
            config[name] = value
        for name in removed:
            config.pop(name, None)


def pickle_config(config: DictConfig) -> bytes:
    """Pickle a config for other processes."""
    for key in ("launcher", "sweeper"):
        node = config.hydra[key]
        if OmegaConf.get_type(node) is not dict:  # a plugin's config class can't be pickled: Hydra imports it again
            set_hydra_value(config, key, OmegaConf.to_container(node, resolve=False))
    return pickle.dumps(config, pickle.HIGHEST_PROTOCOL)


@lru_cache(maxsize=MAX_SHARED)
def _read_plain(shared: bytes) -> dict[str, Any]:
    """Return the plain values of a pickled config; they must not be changed."""
    tree = OmegaConf.to_container(pickle.loads(shared), resolve=False, enum_to_str=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}
