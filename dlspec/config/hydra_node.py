"""The `hydra` node of a config, parts of which are read-only."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def set_hydra_value(config: DictConfig, key: str, value: Any) -> None:
    """Sets a key of it."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value, merge=False)
