"""Changes of a config's `hydra` node, parts of which are read-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def set_hydra_value(config: DictConfig, key: str, value: Any) -> None:
    """Set a value in the `hydra` node.

    Args:
        config: the config that contains the node; it is changed in place.
        key: a dotted key below `hydra`.
        value: replaces the old value.
    """
    set_hydra_values(config, {key: value})


def set_hydra_values(config: DictConfig, values: Mapping[str, Any]) -> None:
    """Set values in the `hydra` node by their dotted keys; together, as making it writable takes longer than a value.

    Args:
        config: the config that contains the node; it is changed in place.
        values: the new values by their dotted keys below `hydra`.
    """
    hydra = config.hydra
    with read_write(hydra), open_dict(hydra):
        for key, value in values.items():
            OmegaConf.update(hydra, key, value, merge=False)
