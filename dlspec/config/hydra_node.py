"""Changes of a config's `hydra` node, parts of which are read-only."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def set_hydra_value(config: DictConfig, key: str, value: Any) -> None:
    """Set a value in the `hydra` node.

    Args:
        config: the config that contains the node; it is changed in place.
        key: a dotted key below `hydra`.
        value: replaces the old value.
    """
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value, merge=False)
