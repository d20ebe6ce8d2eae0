"""Compose a config with Hydra.

Hydra merges the files and resolves the choices of groups. Values from the command line are applied by
`applied_overrides`, which needs no `+` and has its own error messages: Hydra would refuse a key that the YAML does not
contain, and silently replace a short spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import ConfigCopier, HookedLoader, HydraApp, get_plain_value, make_hydra, make_search_path
from dlspec.config.applied_overrides import apply_overrides, change_sections
from dlspec.config.conf_files import (
    GROUPS,
    SEARCHPATH_REFUSED,
    check_user_config,
    find_packaged_conf,
    find_user_conf,
    list_group_files,
)
from dlspec.config.config_sources import ConfFiles, PartNames
from dlspec.config.defaults_list_errors import (
    find_circular_defaults,
    find_surplus_choice,
    list_config_files,
    problem_from_conflict,
    problem_from_merge_error,
    problem_from_missing_config,
    problem_from_surplus_choice,
    remove_defaults_list,
)
from dlspec.config.group_choices import check_choice, check_choice_type, check_installed
from dlspec.config.hydra_node import set_hydra_values
from dlspec.config.job_config import JobConfig, pickle_config
from dlspec.config.launchers import EXTRAS_BY_CHOICE, register_plugin_names, wrap_launcher
from dlspec.config.location_collector import LocationCollector
from dlspec.config.model_merging import ModelMerger
from dlspec.config.overrides import (
    command_line_location,
    keep_folder_name,
    parse_overrides,
    refuse_sweeps,
    replaces_section,
    sets_value_not_choice,
)
from dlspec.config.recorded_overrides import (
    describe_choices,
    describe_overrides,
    find_unnamed_groups,
    read_dirname_settings,
)
from dlspec.config.saved_run import extract_run_override, replace_with_saved_run
from dlspec.errors import Code, Problem, SpecError
from dlspec.language.source_map import SourceMap

CONFIG_NAME = "config"
VERSION_BASE = "1.3"


@dataclass(frozen=True)
class _SharedConfig:
    """A config without values from the command line, which the jobs of a sweep with the same choices share."""

    pickled: bytes
    dirname_settings: Mapping[str, Any]

    @cached_property
    def tree(self) -> dict[str, Any]:
        """Its plain values, without the `hydra` node. Not to be changed."""
        return JobConfig(self.pickled, ()).tree


class DlspecConfigLoader(HookedLoader):
    """Hydra's config loader, with dlspec's rules for models and for values from the command line."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._cache: dict[Hashable, ConfigCopier[DictConfig]] = {}
        self._merged: Sequence[ResultDefault] = ()  # the files of the config that was composed last
        self._defaults: dict[tuple[str, ...], Sequence[ResultDefault]] = {}  # by choices, the files they lead to
        self._shared: dict[tuple[str, ...], _SharedConfig | None] = {}  # by the choices of an earlier job
        self._files: dict[str, list[str]] = {}
        self._group_keys: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which receives composed configs and so starts with an empty cache.

        It needs the loader only to find where a wrong key is written.
        """
        caches = ("_cache", "_defaults", "_shared", "_files", "_group_keys")
        return {**super().__getstate__(), **{name: {} for name in caches}}

    def register_sources(self) -> None:
        """Register the sources of the search path with Hydra."""
        _register_sources()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose one config with dlspec's rules; Hydra calls this.

        Args:
            config_name: name of the top file, without `.yaml`.
            overrides: choices and values as on the command line.
            run_mode: single run or sweep.
            from_shell: whether the overrides come from a shell.
            validate_sweep_overrides: whether multiple values for one key are refused in a single run.

        Raises:
            SpecError: lists all wrong choices and overrides, and errors in defaults lists.
        """
        choices, values = self.split_overrides(overrides)
        if run_mode == RunMode.RUN and validate_sweep_overrides:
            refuse_sweeps([*choices, *values])
        problems_by_group = {each.key_or_group: problems for each in choices if (problems := self._check_choice(each))}
        lines = [str(each.input_line) for each in choices if each.key_or_group not in problems_by_group]
        try:
            config = self._compose_chosen(config_name, lines, run_mode, from_shell, validate_sweep_overrides)
        except RecursionError:
            raise SpecError(
                [find_circular_defaults(self._find_file, list_config_files(self._conf_sources()))]
            ) from None
        except MissingConfigException as error:
            raise SpecError(
                [problem_from_missing_config(error, self._find_file, list_config_files(self._conf_sources()))]
            ) from None
        names = find_unnamed_groups(config)
        spec_file, values = extract_run_override(choices, values)
        if spec_file is not None:
            names = replace_with_saved_run(config, spec_file, choices, values)
        kept = [
            each
            for each in values
            if not each.is_sweep_override() and each.key_or_group.split(".")[0] not in problems_by_group
        ]
        problems = [
            *(problem for each in problems_by_group.values() for problem in each),
            *apply_overrides(config, kept),
        ]
        described = describe_overrides(overrides, read_dirname_settings(config))
        set_hydra_values(config, {**describe_choices(names), **described})
        if problems:
            raise InvalidOverrides(problems, ComposedConfig(config, self), frozenset(problems_by_group))
        if run_mode == RunMode.MULTIRUN:
            wrap_launcher(config)
        return config

    def compose_job(self, sweep_config: DictConfig, overrides: Sequence[str]) -> JobConfig:
        """Compose the config of a sweep's job, as Hydra's `load_sweep_config` does.

        Args:
            sweep_config: the sweep's config.
            overrides: the overrides of the job.

        Raises:
            SpecError: as `load_configuration` does.
        """
        hydra_overrides: Any = OmegaConf.to_container(sweep_config.hydra.overrides.hydra)
        choices, values = self.split_overrides([*hydra_overrides, *overrides])
        chosen = tuple(str(each.input_line) for each in choices)
        changes_only_values = not any(each.is_sweep_override() or each.key_or_group == "run" for each in values)
        if chosen in self._shared and changes_only_values:
            shared = self._shared[chosen] = self._shared[chosen] or self._make_shared_config(sweep_config, chosen)
            changed = change_sections(shared.tree, lambda name: deepcopy(shared.tree[name]), values)
            if not changed.problems:
                described = describe_overrides([*hydra_overrides, *overrides], shared.dirname_settings)
                lines = tuple(described["overrides.task"])
                return JobConfig(shared.pickled, lines, changed.sections, changed.removed, described)
        config = self._compose_whole_job(sweep_config, overrides)
        self._shared.setdefault(chosen, None)  # made for the second job: in some sweeps each job has other choices
        return config

    def _compose_whole_job(self, sweep_config: DictConfig, overrides: Sequence[str]) -> JobConfig:
        config = self.load_sweep_config(sweep_config, list(overrides))
        lines: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        return JobConfig(pickle_config(config), tuple(lines))

    def _make_shared_config(self, sweep_config: DictConfig, chosen: Sequence[str]) -> _SharedConfig:
        """Make the config of the choices alone, which have been checked."""
        config = self._compose_chosen(sweep_config.hydra.job.config_name, list(chosen), RunMode.RUN, True, True)
        OmegaConf.copy_cache(from_config=sweep_config, to_config=config)  # so that all jobs have the same timestamps
        set_hydra_values(config, describe_choices(find_unnamed_groups(config)))
        return _SharedConfig(pickle_config(config), read_dirname_settings(config))

    def _compose_chosen(
        self, config_name: str | None, lines: list[str], run_mode: RunMode, from_shell: bool, validates: bool
    ) -> DictConfig:
        """Compose the files and choices, without values from the command line.

        Results are cached, because most jobs of a sweep have the same choices: composing takes 20 ms, a copy 1 ms.
        """
        key = (config_name, tuple(lines), run_mode, from_shell, validates)
        if key in self._cache:
            return self._cache[key].make()
        config = super().load_configuration(config_name, lines, run_mode, from_shell, validates)
        self._cache[key] = ConfigCopier(config)
        self._defaults[tuple(lines)] = self._merged
        return config

    def check_search_path(self, overrides: Sequence[Override]) -> None:
        """Refuse an override of `hydra.searchpath`."""
        named = next((each for each in overrides if each.key_or_group == "hydra.searchpath"), None)
        if named is not None:
            raise SpecError(
                [SEARCHPATH_REFUSED.to_problem("hydra.searchpath", command_line_location(named.input_line or ""))]
            )

    def merge_files(
        self,
        defaults: Sequence[ResultDefault],
        load_file: Callable[[ResultDefault], DictConfig],
        merge: Callable[[ResultDefault | None], DictConfig],
    ) -> DictConfig:
        """Merge the files of a defaults list, their models by dlspec's rules.

        Args:
            defaults: the files in the order of merging.
            load_file: loads one of them.
            merge: merges all files as Hydra does, except the one that it is called with (None: merges all).

        Raises:
            SpecError: if two files can't be merged, or only one of them would count.
        """
        self._merged = defaults
        surplus = find_surplus_choice(defaults)
        if surplus is not None:
            names = list_config_files(self._conf_sources())
            raise SpecError([problem_from_surplus_choice(surplus, self._find_file, names)])
        model, only_file = self._merge_models(defaults, load_file)
        try:
            config = merge(only_file)
        except ConfigCompositionException as error:
            raise SpecError([problem_from_merge_error(error, self._find_file)]) from None
        if "model" in config:
            config.model = model
        return config

    def _merge_models(
        self, defaults: Sequence[ResultDefault], load: Callable[[ResultDefault], DictConfig]
    ) -> tuple[Any, ResultDefault | None]:
        """Merge the models of all files: Hydra would leave two layer names in an entry that a file overrides.

        Also return the file of the model if only one file has a model and that file has no other keys, else None.
        """
        merger = ModelMerger()
        files: list[ResultDefault] = []
        has_other_keys = False
        for default in defaults:
            package = default.package or ""
            if package.split(".")[0] not in ("", "model"):
                continue
            config = load(default)
            before = len(merger.conflicts)
            if "model" in config:
                merger.add(remove_defaults_list(get_plain_value(config, "model"), package))
                files.append(default)
                has_other_keys = len(config) > 1
            if len(merger.conflicts) > before:
                raise SpecError([problem_from_conflict(each, default, self._find_file) for each in merger.conflicts])
        return merger.model, files[0] if len(files) == 1 and not has_other_keys else None

    def split_overrides(self, overrides: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """Split overrides into choices of groups (and Hydra's own settings), and values.

        Values are applied after all choices, so a value that a later choice of its group replaces is left out.
        """
        choices: list[Override] = []
        values: list[Override] = []
        parsed = parse_overrides(overrides)
        last_choices = {
            each.key_or_group: index for index, each in enumerate(parsed) if not sets_value_not_choice(each)
        }
        for index, override in enumerate(parsed):
            group = override.key_or_group
            if override.is_hydra_override():
                choices.append(keep_folder_name(override))
            elif not self._is_group(group):
                values.append(override)
            elif not sets_value_not_choice(override):
                choices += parse_overrides([str(override.input_line).lstrip("+")])
            elif index > last_choices.get(group, -1) or not replaces_section(group, override.value()):
                values += [override] if group != "experiment" else []  # an experiment has no section
                choices += parse_overrides([f"~{group}"]) if replaces_section(group, override.value()) else []
        return choices, values

    def find_locations(self, overrides: Sequence[str]) -> SourceMap:
        """Find where each key of the composed config was written."""
        choices, values = self.split_overrides(overrides)
        usable = [each for each in choices if not each.is_sweep_override() and not self._check_choice(each)]
        locations = LocationCollector()
        for default in self._list_defaults([str(each.input_line) for each in usable]):
            path = self._find_file(default.config_path)
            if path is not None:
                locations.add_file(path, default.package)
        spec_file, values = extract_run_override(choices, values)
        if spec_file is not None:
            chosen = {each.key_or_group for each in choices}
            locations.keep_only(chosen)
            locations.add_file(spec_file, None, omitted_sections=chosen)
        for override in usable:
            if str(override.value()) not in self.files(override.key_or_group):
                locations.add_choice(override)
        for override in values:
            locations.add_value(override)
        return locations.find_locations()

    def _list_defaults(self, lines: list[str]) -> Sequence[ResultDefault]:
        """List the files that choices lead to; known already where a config was composed of the same choices."""
        known = self._defaults.get(tuple(lines))
        return self.compute_defaults_list(CONFIG_NAME, lines, RunMode.RUN).defaults if known is None else known

    def files(self, group: str) -> list[str]:
        """List the files that a group offers: dlspec's, the user's and those of --config-dir.

        The folders are read once: each job of a sweep asks for the files of every group.
        """
        if group not in self._files:
            self._files[group] = list_group_files(group, [Path(each.path) for each in self._conf_sources()])
        return self._files[group]

    def _is_group(self, key: str) -> bool:
        """Whether an override's key is the name of a group; looked up once in the folders of config files."""
        if key not in self._group_keys:
            self._group_keys[key] = self.repository.group_exists(key)
        return self._group_keys[key]

    def _conf_sources(self) -> list[ConfFiles]:
        return [each for each in self.repository.get_sources() if isinstance(each, ConfFiles)]

    def _find_file(self, config_path: str | None) -> Path | None:
        found = (each.locate(config_path) for each in self._conf_sources() if config_path)
        return next((path for path in found if path is not None), None)

    def _check_choice(self, override: Override) -> list[Problem]:
        group = override.key_or_group
        checks_name = group in GROUPS and not override.is_delete()  # by `check_choice`, which lists the names
        if not checks_name and self._is_group(group) and (problems := check_choice_type(override)):
            return problems
        if group in EXTRAS_BY_CHOICE:
            return check_installed(override, self.repository.get_group_options(group))
        return check_choice(override, self.files(group)) if group in GROUPS else []


@dataclass(frozen=True)
class ComposedConfig:
    """A config with its `hydra` node, and the loader that can find where each key was written."""

    config: DictConfig
    loader: DlspecConfigLoader

    @property
    def tree(self) -> dict[str, Any]:
        """The config without the `hydra` node, as plain values; `${...}` stays as written."""
        return {str(key): get_plain_value(self.config, key) for key in self.config if key != "hydra"}

    @property
    def is_sweep(self) -> bool:
        """Whether `hydra.mode`, in a file or an override, asks for a sweep."""
        return bool(self.config.hydra.mode == RunMode.MULTIRUN)

    def find_locations(self) -> SourceMap:
        """Find where each key was written."""
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.task, resolve=False)
        return self.loader.find_locations(overrides)


class InvalidOverrides(SpecError):
    """Raised for overrides that can't be applied.

    `composed` is the config without them, so that its other sections can be checked too. `groups` are the groups whose
    choice was wrong: errors in their sections would be misleading.
    """

    def __init__(self, problems: Sequence[Problem], composed: ComposedConfig, groups: frozenset[str]) -> None:
        super().__init__(problems)
        self.composed, self.groups = composed, groups


def start_hydra(config_dir: str | None = None) -> HydraApp:
    """Create Hydra with dlspec's search path: --config-dir, the user's conf/, dlspec's own, the names of parts.

    Hydra's global state is not changed, so `hydra.initialize` in a notebook keeps working.
    """
    version.setbase(VERSION_BASE)
    _register_sources()
    entries = [("hydra", "pkg://hydra.conf")]
    if config_dir is not None:
        entries.append(("command-line", _config_dir_source(config_dir)))
    user = find_user_conf()
    if user is not None:
        check_user_config(user)
        entries.append(("user", f"dlspec://{user}"))
    entries += [("main", f"dlspec://{find_packaged_conf()}"), ("parts", "dlspec-parts://"), ("schema", "structured://")]
    return make_hydra(DlspecConfigLoader(make_search_path(entries)))


def _register_sources() -> None:
    plugins = Plugins.instance()
    plugins.register(ConfFiles)
    plugins.register(PartNames)
    register_plugin_names()


def _config_dir_source(config_dir: str) -> str:
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise SpecError(
            [
                Problem(
                    Code.FILE_UNREADABLE, "", "no such folder", "", command_line_location(f"--config-dir {config_dir}")
                )
            ]
        )
    return f"dlspec://{folder}"


def compose(overrides: Sequence[str], hydra: HydraApp | None = None) -> ComposedConfig:
    """Compose one config, as for a run."""
    hydra = hydra or start_hydra()
    loader = hydra.config_loader
    assert isinstance(loader, DlspecConfigLoader)
    config = hydra.compose_config(CONFIG_NAME, list(overrides), run_mode=RunMode.RUN)
    return ComposedConfig(config, loader)
