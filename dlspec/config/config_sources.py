"""The sources that Hydra loads configs from: YAML files in a folder, and the names of parts."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlspec.compat.hydra import VersionedSource
from dlspec.config.conf_files import BASE_PREFIX, PART_GROUPS, find_packaged_conf, read_conf_file
from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file
from dlspec.limits import DEFAULT_LIMITS, get_limit


class ConfFiles(VersionedSource):
    """YAML files in a folder.

    dlspec's own files are also available under `base/`, so that a user's file can extend the one with the same name.
    """

    @staticmethod
    def scheme() -> str:
        return "dlspec"

    def locate(self, config_path: str) -> Path | None:
        """Return the file of a config's name, or None if there is none."""
        name = config_path.removesuffix(".yaml").lstrip("/")
        if name.startswith(BASE_PREFIX) and Path(self.path) == find_packaged_conf():
            name = name.removeprefix(BASE_PREFIX)
        path = Path(self.path) / f"{name}.yaml"
        return path if path.is_file() else None

    def version(self, config_path: str) -> Hashable | None:
        """Return the file's content and the limits it was checked against, or None if it can't be read."""
        path = self.locate(config_path)
        try:
            return None if path is None else (path.read_bytes(), *map(get_limit, DEFAULT_LIMITS))
        except OSError:
            return None

    def load_config(self, config_path: str) -> ConfigResult:
        path = self.locate(config_path)
        if path is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        name = str(path.relative_to(self.path).with_suffix(""))
        tree, header = read_conf_file(Path(self.path), name)
        return ConfigResult(self.provider, self.full_path(), _to_omegaconf(tree, path), header)

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return (Path(self.path) / config_path.lstrip("/").removeprefix(BASE_PREFIX)).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self.locate(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = Path(self.path) / config_path
        groups = [each.name for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []
        configs = [each.stem for each in folder.glob("*.yaml")]
        names_by_kind = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs}
        return sorted(groups + configs if results_filter is None else names_by_kind[results_filter])


class PartNames(VersionedSource):
    """Makes every name a choice in a group of parts: `optimizer=AdamW` becomes `optimizer: {type: AdamW}`.

    Whether there is a part with that name is checked later, with the rest of the spec.
    """

    @staticmethod
    def scheme() -> str:
        return "dlspec-parts"

    def version(self, config_path: str) -> Hashable | None:
        return "by its name"

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        group, name = config_path.removesuffix(".yaml").lstrip("/").split("/")
        tree = {name: None} if group == "metrics" else {"type": name}
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(tree), {"package": None})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in PART_GROUPS

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").lstrip("/").partition("/")
        return group in PART_GROUPS and name.isidentifier()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []


def _to_omegaconf(tree: dict[str, Any], path: Path) -> DictConfig:
    try:
        return OmegaConf.create(tree)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "").replace("[", ".").replace("]", "")
        keys: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split(".") if part)
        document = load_yaml_file(path)
        location = document.values.get(keys) or document.keys.get(keys) or SourceLocation(format_file_path(path))
        raise SpecError(
            [Problem(Code.REFERENCE_SYNTAX, key, "a '${...}' is not closed or not valid", "write ${KEY}", location)]
        ) from None
