"""Private parts of Hydra (1.3.8 to below 1.4) and OmegaConf (2.3), for which there is no public way."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

# Hydra's program: it composes, shows, completes and sweeps. `hydra.main` alone makes one, with a loader of its own.
HydraApp = Hydra
# A config's callbacks, which Hydra calls around a run; public functions make them only within `hydra.main`.
RunCallbacks = Callbacks


def make_hydra(loader: HookedLoader) -> HydraApp:
    """Make Hydra's program with a loader of ours; Hydra's global state is left alone."""
    return Hydra(task_name="dlspec", config_loader=loader)


def search_path(entries: Sequence[tuple[str, str]]) -> ConfigSearchPath:
    """Make a search path of providers and their paths."""
    path = ConfigSearchPathImpl()
    for provider, place in entries:
        path.append(provider, place)
    return path


def flags() -> ArgumentParser:
    """Make the parser of Hydra's own flags."""
    parser: ArgumentParser = get_args_parser()
    return parser


class SharedRepository(ConfigRepository):
    """The files of a search path. Each composing would copy them, all structured configs included, to change the path
    in the copy: dlspec refuses to change it.
    """

    def __deepcopy__(self, memo: Any) -> SharedRepository:
        return self


class HookedLoader(ConfigLoaderImpl):
    """Hydra's loader with hooks: its own methods of these steps are private."""

    def __getstate__(self) -> dict[str, Any]:
        """For another process, where the sources of `repository` are registered first."""
        return {"config_search_path": self.config_search_path}

    @cached_property
    def repository(self) -> ConfigRepository:  # type: ignore[override]  # Hydra sets it where a loader is made
        """The files, in a process that was given the loader."""
        self.register_sources()
        return SharedRepository(config_search_path=self.config_search_path)

    def register_sources(self) -> None:
        """Make known to Hydra what the search path names."""

    def check_search_path(self, overrides: Sequence[Override]) -> None:
        """Refuse what may not stand in `hydra.searchpath`."""

    def merge_files(
        self,
        defaults: Sequence[ResultDefault],
        load: Callable[[ResultDefault], DictConfig],
        merge: Callable[[], DictConfig],
    ) -> DictConfig:
        """Merge the files of a defaults list; `load` reads one of them, `merge` is Hydra's way."""
        return merge()

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        """Hydra would read the files of its search path itself, and run what stands in them."""
        self.check_search_path(parsed_overrides)

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        compose = super()._compose_config_from_defaults_list

        def load(default: ResultDefault) -> DictConfig:
            config = self._load_single_config(default=default, repo=repo).config
            assert isinstance(config, DictConfig)
            return config

        return self.merge_files(defaults, load, lambda: compose(defaults, repo))


def split_into_jobs(overrides: list[Override]) -> list[list[str]]:
    """List every combination of the overrides' values, a job each."""
    # Imported here: Hydra's scan for plugins runs that module anew, and a class taken before it would be a twin.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return [list(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def has_failed(returned: JobReturn) -> bool:
    """Whether the task raised an error."""
    return returned.status == JobStatus.FAILED


def returned_value(returned: JobReturn) -> Any:
    """What the task gave, or the error that it raised. (The public property prints to stderr, and raises.)"""
    return returned._return_value


def completed_return(value: Any, overrides: Sequence[str] | None = None) -> JobReturn:
    """What a launcher gives of a job that came to its end."""
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)


def failed_return(error: BaseException, overrides: Sequence[str] | None = None) -> JobReturn:
    """What a launcher gives of a job that raised an error."""
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)


def plain_value(config: DictConfig, key: str) -> Any:
    """What stands under a key, as plain values, its `${...}` as written."""
    node: Any = config._get_node(key)  # getting the value would look up its '${...}'
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node._value()


def register_module(name: str, module: ModuleType) -> None:
    """Let a module be imported under a second name, in a package that exists only where a plugin is installed.

    Hydra takes as plugins what lies in `hydra_plugins`; configs name their classes by that.
    """
    package, _, last = name.partition(".")
    try:
        parent = import_module(package)
    except ModuleNotFoundError:
        parent = sys.modules[package] = ModuleType(package)
        parent.__path__ = []  # Hydra looks through it
    sys.modules[name] = module
    setattr(parent, last, module)
