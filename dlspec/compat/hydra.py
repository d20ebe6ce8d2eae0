"""Private parts of Hydra (1.3.8 to below 1.4) and OmegaConf (2.3) that have no public counterpart."""

from __future__ import annotations

import math
import pickle
import sys
from abc import abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import yaml
from hydra._internal import defaults_list as hydra_defaults
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core import utils as hydra_utils
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import OmegaConfDumper

from dlspec.compat.pyyaml import SectionDumper

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

# Hydra's application class: it composes and prints configs, completes shell commands and runs sweeps. The public
# `hydra.main` creates one, but only with Hydra's own loader.
HydraApp = Hydra
# A config's callbacks, which Hydra calls around a run; publicly only `hydra.main` creates them.
RunCallbacks = Callbacks


def make_hydra(loader: HookedLoader) -> HydraApp:
    """Create Hydra's application with dlspec's loader, without changing Hydra's global state."""
    return Hydra(task_name="dlspec", config_loader=loader)


def make_search_path(entries: Sequence[tuple[str, str]]) -> ConfigSearchPath:
    """Make a search path from pairs of provider and folder."""
    path = ConfigSearchPathImpl()
    for provider, folder in entries:
        path.append(provider, folder)
    return path


def make_flags_parser() -> ArgumentParser:
    """Make the parser of Hydra's own flags."""
    parser: ArgumentParser = get_args_parser()
    return parser


T = TypeVar("T")
MAX_REMEMBERED = 1_000  # files and merged configs; one takes 1 to 15 KB


class ConfigCopier(Generic[T]):
    """Makes copies of a config by unpickling it, which takes a sixth of the time of `deepcopy`."""

    def __init__(self, original: T) -> None:
        try:
            self._pickled: bytes | None = pickle.dumps(original, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError):  # a class that Hydra imported twice
            self._pickled, self._original = None, deepcopy(original)

    def make(self) -> T:
        """Make a copy."""
        copy: T = deepcopy(self._original) if self._pickled is None else pickle.loads(self._pickled)
        return copy


class VersionedSource(ConfigSource):
    """A source of configs that can detect whether a config has changed."""

    @abstractmethod
    def version(self, config_path: str) -> Hashable | None:
        """Return a value that changes when the config does, or None if it can't be read."""


class IdentityKey:
    """A dict key for an object; it equals only keys of the identical object."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


_REMEMBERED: dict[Hashable, ConfigCopier[Any]] = {}


def store_config_copy(key: Hashable, original: T) -> T:
    """Store a copy of a config for `recall`, and return the config."""
    if len(_REMEMBERED) >= MAX_REMEMBERED:
        _REMEMBERED.clear()
    _REMEMBERED[key] = ConfigCopier(original)
    return original


def copy_stored_config(key: Hashable) -> Any:
    """Return a new copy of the config stored under a key, or None if there is none."""
    kept = _REMEMBERED.get(key)
    return None if kept is None else kept.make()


def get_source_version(source: ConfigSource, config_path: str) -> Hashable | None:
    """Return a value that changes when the config does, or None if that can't be detected."""
    # Hydra also validates a file against the schema with its name in the config store.
    stored = IdentityKey(ConfigStore.instance()._open(f"{config_path.removesuffix('.yaml')}.yaml"))
    if source.scheme() in ("pkg", "structured"):
        return stored
    version = source.version(config_path) if isinstance(source, VersionedSource) else None
    return None if version is None else (version, stored)


def refresh_now_timestamps(config: DictConfig) -> None:
    """Set each `${now:...}` in a copied config, resolved when the original was merged, to the present time."""
    now, times = datetime.now(), OmegaConf.get_cache(config)["now"]
    times.update({pattern: now.strftime(*pattern) for pattern in times})


Merge = Callable[[list[ResultDefault]], DictConfig]
HEAD, EMPTY = "Hydra's own configs, merged", "an empty config"


class ConfigCache(CachingConfigRepository):
    """The configs of one composition; those that an earlier composition loaded or merged unchanged are copied.

    A user's file may change between two compositions, so its content is compared. Hydra's own class copies the sources
    first, because a search path in a file could change them; dlspec refuses such files.
    """

    def __init__(self, repository: ConfigRepository) -> None:
        self.delegate: ConfigRepository = repository
        self.cache: dict[str, ConfigResult | None] = {}
        self._versions: dict[str, Hashable | None] = {}
        self._add_config(EMPTY, DictConfig({}))

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load a config, or copy it if an earlier composition loaded the same version."""
        if config_path not in self.cache:
            self.cache[config_path] = self._load(config_path)
        return self.cache[config_path]

    def _load(self, config_path: str) -> ConfigResult | None:
        key = self._versions[config_path] = self._get_config_version(config_path)
        if key is None:
            return self.delegate.load_config(config_path)
        recalled: ConfigResult | None = copy_stored_config(key)
        if recalled is not None:
            return recalled
        loaded = self.delegate.load_config(config_path)
        if self._get_config_version(config_path) != key:  # the file was written while it was read
            self._versions[config_path] = None
            return loaded
        return store_config_copy(key, loaded)

    def _get_config_version(self, config_path: str) -> Hashable | None:
        source = self.delegate._find_object_source(config_path, ObjectType.CONFIG)
        version = None if source is None else get_source_version(source, config_path)
        if source is None or version is None:
            return None
        return (source.scheme(), source.provider, source.path, config_path, version)

    def merge(self, defaults: list[ResultDefault], left_out: ResultDefault | None, merge: Merge) -> DictConfig:
        """Merge the configs of a defaults list.

        Args:
            defaults: the configs in the order of merging.
            left_out: a config that is replaced by an empty one, or None.
            merge: merges a list of configs.
        """
        merged = [replace(each, config_path=EMPTY) if each is left_out else each for each in defaults]
        return self._merge_or_copy(merged, lambda each: merge(self._merge_hydra_defaults(each, merge)))

    def _merge_hydra_defaults(self, defaults: list[ResultDefault], merge: Merge) -> list[ResultDefault]:
        """Replace Hydra's own configs at the start of the list by one merged config: it rarely changes."""
        head = list(takewhile(lambda each: str(each.config_path).startswith("hydra/"), defaults))
        self._add_config(HEAD, self._merge_or_copy(head, merge))
        return [ResultDefault(config_path=HEAD, primary=True), *defaults[len(head) :]]

    def _merge_or_copy(self, defaults: list[ResultDefault], merge: Merge) -> DictConfig:
        """Merge configs, or copy the result if an earlier composition merged the same versions."""
        key = tuple((self._versions.get(str(each.config_path)), each.package, each.primary) for each in defaults)
        if None in (version for version, _, _ in key):
            return merge(defaults)
        recalled: DictConfig | None = copy_stored_config(key)
        if recalled is not None:
            refresh_now_timestamps(recalled)
            return recalled
        merged = merge(defaults)
        return store_config_copy(key, merged) if set(OmegaConf.get_cache(merged)) <= {"now"} else merged

    def _add_config(self, name: str, config: DictConfig) -> None:
        self.cache[name] = ConfigResult("hydra", "", config, {"package": None}, is_schema_source=True)
        self._versions[name] = name


class HookedLoader(ConfigLoaderImpl):
    """Hydra's loader with public methods to override; Hydra's own methods for these steps are private."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which creates its own `repository`."""
        return {"config_search_path": self.config_search_path}

    @cached_property
    def repository(self) -> ConfigRepository:  # type: ignore[override]  # Hydra sets it where a loader is made
        """Create the repository of sources in a process that unpickled the loader."""
        self.register_sources()
        return ConfigRepository(config_search_path=self.config_search_path)

    def register_sources(self) -> None:
        """Register the sources of the search path with Hydra."""

    def check_search_path(self, overrides: Sequence[Override]) -> None:
        """Refuse overrides of `hydra.searchpath` that are not allowed."""

    def merge_files(
        self,
        defaults: Sequence[ResultDefault],
        load_file: Callable[[ResultDefault], DictConfig],
        merge: Callable[[ResultDefault | None], DictConfig],
    ) -> DictConfig:
        """Merge the files of a defaults list; by default as Hydra does.

        Args:
            defaults: the files in the order of merging.
            load_file: loads one of them.
            merge: merges all files as Hydra does, except the one that it is called with (None: merges all).
        """
        return merge(None)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """Parse overrides and create the repository.

        Hydra's own method would also read search paths from files, and run code that they name.
        """
        parsed = OverridesParser.create().parse_overrides(overrides)
        self.check_search_path(parsed)
        return parsed, ConfigCache(self.repository)

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        compose = super()._compose_config_from_defaults_list

        def load(default: ResultDefault) -> DictConfig:
            config = self._load_single_config(default=default, repo=repo).config
            assert isinstance(config, DictConfig)
            return config

        def merge(left_out: ResultDefault | None) -> DictConfig:
            assert isinstance(repo, ConfigCache)
            return repo.merge(defaults, left_out, lambda each: compose(each, repo))

        return self.merge_files(defaults, load, merge)


_create_interpolation_map = hydra_defaults._create_interpolation_map


def create_interpolation_map(
    overrides: hydra_defaults.Overrides, defaults_list: list[InputDefault], self_added: bool
) -> DictConfig:
    """Make the config in which Hydra resolves each `${...}` of a defaults list; an empty one if there is none.

    Args:
        overrides: Hydra's parsed overrides.
        defaults_list: the entries of the defaults list.
        self_added: whether Hydra added `_self_` to the list.
    """
    is_used = any(not each.is_self() and each.is_interpolation() for each in defaults_list)
    return _create_interpolation_map(overrides, defaults_list, self_added) if is_used else DictConfig({})


hydra_defaults._create_interpolation_map = create_interpolation_map


WriteText = Callable[[Path, str], None]


def set_config_writer(write: WriteText) -> None:
    """Make Hydra write the files of `.hydra/` by a function; its own follows links and waits on pipes.

    Args:
        write: called with the file and its text. It must create the file's folder.
    """

    def save(cfg: DictConfig, filename: str, output_dir: Path) -> None:
        write(output_dir / filename, format_yaml(OmegaConf.to_container(cfg, enum_to_str=True)))

    hydra_utils._save_config = save


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]  # in C where PyYAML has it
    """Writes YAML as OmegaConf does, with quotes around strings that look like numbers."""


class _PythonDumper(yaml.Dumper):
    """The same in Python, for names that are not UTF-8, which C can't write."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)
_PythonDumper.add_representer(str, OmegaConfDumper.str_representer)


def _dump(value: Any, dumper: Any = _Dumper) -> str:
    return str(yaml.dump(value, Dumper=dumper, default_flow_style=False, allow_unicode=True, sort_keys=False))


_SECTIONS = SectionDumper(_dump)


def format_yaml(value: Any) -> str:
    """Format plain values as `OmegaConf.to_yaml` formats a config, in a tenth of its time."""
    try:
        return _SECTIONS.dump(value)
    except UnicodeEncodeError:
        return _dump(value, _PythonDumper)


def has_callbacks(callbacks: object) -> bool:
    """Whether a config has callbacks of Hydra's."""
    return not isinstance(callbacks, Callbacks) or bool(callbacks.callbacks)


def split_into_jobs(overrides: list[Override]) -> list[list[str]]:
    """List the overrides of each job: every combination of the overrides' values."""
    # Imported here: Hydra's scan for plugins imports that module again and so defines a second class.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return [list(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def count_values(override: Override) -> int:
    """Count the values of an override, without listing those of a range; 1 if it is not swept over."""
    if isinstance(override._value, RangeSweep):
        return _count_range(override._value)
    return sum(1 for _ in override.sweep_iterator()) if override.is_discrete_sweep() else 1


def _count_range(sweep: RangeSweep) -> int:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if start is None or stop is None or not step:
        return 0
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return max(0, -((start - stop) // step))
    steps = (stop - start) / step
    return max(0, math.ceil(min(steps, sys.maxsize))) if not math.isnan(steps) else 0


def is_glob(override: Override) -> bool:
    """Whether the value is `glob(...)`."""
    return isinstance(override._value, Glob)


def has_failed(returned: JobReturn) -> bool:
    """Whether the task raised an error."""
    return returned.status == JobStatus.FAILED


def get_return_value(returned: JobReturn) -> Any:
    """Return the task's result or the error that it raised. (The public property prints to stderr and raises.)"""
    return returned._return_value


def make_completed_return(value: Any, overrides: Sequence[str] | None = None) -> JobReturn:
    """Make what a launcher returns for a job that completed."""
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)


def make_failed_return(error: BaseException, overrides: Sequence[str] | None = None) -> JobReturn:
    """Make what a launcher returns for a job that raised an error."""
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)


def get_plain_value(config: DictConfig, key: Any) -> Any:
    """Return the value at a key as plain values; `${...}` stays as written."""
    node: Any = config._get_node(key)  # `config[key]` would resolve '${...}'
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node._value()


def register_module(name: str, module: ModuleType) -> None:
    """Make a module importable under a second name, in a package that may not be installed.

    Hydra looks for plugins in the package `hydra_plugins`, and configs name a plugin's class by its path there.
    """
    package, _, last = name.partition(".")
    try:
        parent = import_module(package)
    except ModuleNotFoundError:
        parent = sys.modules[package] = ModuleType(package)
        parent.__path__ = []  # Hydra lists the modules in it
    sys.modules[name] = module
    setattr(parent, last, module)
