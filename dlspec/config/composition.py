"""Composes a config with Hydra.

Hydra merges the files and chooses among groups. Values from the command line are applied by `overrides`, without a `+`
and with our own errors: Hydra would refuse a key that the YAML does not name, and replace a short spelling in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
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

from dlspec.compat.hydra import HookedLoader, HydraApp, make_hydra, plain_value, search_path
from dlspec.config.changes import apply_overrides
from dlspec.config.choices import check_choice, check_installed
from dlspec.config.conf_files import (
    GROUPS,
    NO_SEARCHPATH,
    check_user_config,
    group_files,
    packaged_conf,
    user_conf,
)
from dlspec.config.config_sources import ConfFiles, PartNames
from dlspec.config.defaults_lists import (
    circle,
    clash_problem,
    config_files,
    missing_choice,
    not_mergeable,
    without_defaults,
)
from dlspec.config.hydra_node import set_hydra
from dlspec.config.launchers import EXTRAS, lead_through_dlspec, store_names
from dlspec.config.model_merging import Merging
from dlspec.config.overrides import (
    command_line,
    is_written_out,
    parse_overrides,
    refuse_sweeps,
    replaces_whole,
)
from dlspec.config.saved_run import replace_by_run, take_run
from dlspec.config.written_places import Writings
from dlspec.errors import Code, Problem, SpecError
from dlspec.language.source_map import SourceMap

CONFIG_NAME = "config"
VERSION_BASE = "1.3"


class Loader(HookedLoader):
    """Hydra's loader, which gives values from the command line to us."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._composed: dict[Hashable, DictConfig | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which is given composed configs, and looks into the files to say where a mistake is."""
        return {**super().__getstate__(), "_composed": {}}

    def register_sources(self) -> None:
        _register_sources()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        choices, values = self.divide(overrides)
        if run_mode == RunMode.RUN and validate_sweep_overrides:
            refuse_sweeps([*choices, *values])
        wrong = {each.key_or_group: problems for each in choices if (problems := self._check_choice(each))}
        lines = [str(each.input_line) for each in choices if each.key_or_group not in wrong]
        try:
            config = self._chosen(config_name, lines, run_mode, from_shell, validate_sweep_overrides)
        except RecursionError:
            raise SpecError([circle(self._file, config_files(self._folders()))]) from None
        except MissingConfigException as error:
            raise SpecError([missing_choice(error, self._file, config_files(self._folders()))]) from None
        names = {group: group for group in ("model", "data") if group not in config.hydra.runtime.choices}
        spec_file, values = take_run(choices, values)
        if spec_file is not None:
            names = replace_by_run(config, spec_file, choices, values)
        for group, name in names.items():
            set_hydra(config, f"runtime.choices.{group}", name)
        kept = [
            each for each in values if not each.is_sweep_override() and each.key_or_group.split(".")[0] not in wrong
        ]
        problems = [*(problem for each in wrong.values() for problem in each), *apply_overrides(config, kept)]
        task = [each for each in parse_overrides(overrides) if not each.is_hydra_override()]
        set_hydra(config, "overrides.task", [each.input_line for each in task])
        if problems:
            raise Refused(problems, Composed(config, self), frozenset(wrong))
        if run_mode == RunMode.MULTIRUN:
            lead_through_dlspec(config)
        return config

    def _chosen(
        self, config_name: str | None, lines: list[str], run_mode: RunMode, from_shell: bool, validates: bool
    ) -> DictConfig:
        """What the files and choices say.

        Composing takes 100 ms and a copy 10: a sweep's jobs mostly choose the same, and a single run needs no copy. So
        a config is kept from the second time on.
        """
        key = (config_name, tuple(lines), run_mode, from_shell, validates)
        kept = self._composed.get(key)
        if kept is not None:
            return deepcopy(kept)
        config: DictConfig = super().load_configuration(config_name, lines, run_mode, from_shell, validates)
        self._composed[key] = deepcopy(config) if key in self._composed else None
        return config

    def check_search_path(self, overrides: Sequence[Override]) -> None:
        named = next((each for each in overrides if each.key_or_group == "hydra.searchpath"), None)
        if named is not None:
            raise SpecError([NO_SEARCHPATH.at("hydra.searchpath", command_line(named.input_line or ""))])

    def merge_files(
        self,
        defaults: Sequence[ResultDefault],
        load: Callable[[ResultDefault], DictConfig],
        merge: Callable[[], DictConfig],
    ) -> DictConfig:
        model = self._merged_model(defaults, load)
        try:
            config = merge()
        except ConfigCompositionException as error:
            raise SpecError([not_mergeable(error, self._file)]) from None
        if "model" in config:
            config.model = model
        return config

    def _merged_model(self, defaults: Sequence[ResultDefault], load: Callable[[ResultDefault], DictConfig]) -> Any:
        """The model by our rules: Hydra would leave two layers' names in an entry that a file overrides."""
        merging = Merging()
        for default in defaults:
            package = default.package or ""
            if package.split(".")[0] not in ("", "model"):
                continue
            config = load(default)
            before = len(merging.clashes)
            if "model" in config:
                merging.add(without_defaults(plain_value(config, "model"), package))
            if len(merging.clashes) > before:
                raise SpecError([clash_problem(each, default, self._file) for each in merging.clashes])
        return merging.model

    def divide(self, overrides: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """Choices among groups (Hydra's own settings too), and values."""
        choices: list[Override] = []
        values: list[Override] = []
        for override in parse_overrides(overrides):
            group = override.key_or_group
            if override.is_hydra_override():
                choices.append(override)
            elif not self.repository.group_exists(group):
                values.append(override)
            elif not is_written_out(override):
                choices += parse_overrides([str(override.input_line).lstrip("+")])
            else:
                values += [override] if group != "experiment" else []  # it has no key of its own
                choices += parse_overrides([f"~{group}"]) if replaces_whole(group, override.value()) else []
        return choices, values

    def places(self, overrides: Sequence[str]) -> SourceMap:
        """Where each key of the composed config was written."""
        choices, values = self.divide(overrides)
        usable = [each for each in choices if not each.is_sweep_override() and not self._check_choice(each)]
        writings = Writings()
        for default in self.compute_defaults_list(
            CONFIG_NAME, [str(each.input_line) for each in usable], RunMode.RUN
        ).defaults:
            path = self._file(default.config_path)
            if path is not None:
                writings.add_file(path, default.package)
        spec_file, values = take_run(choices, values)
        if spec_file is not None:
            chosen = {each.key_or_group for each in choices}
            writings.keep_only(chosen)
            writings.add_file(spec_file, None, without=chosen)
        for override in usable:
            if str(override.value()) not in self.files(override.key_or_group):
                writings.add_choice(override)
        for override in values:
            writings.add_value(override)
        return writings.places()

    def files(self, group: str) -> list[str]:
        """The files that a group offers: dlspec's, the user's, those of --config-dir."""
        return group_files(group, [Path(each.path) for each in self._folders()])

    def _folders(self) -> list[ConfFiles]:
        return [each for each in self.repository.get_sources() if isinstance(each, ConfFiles)]

    def _file(self, config_path: str | None) -> Path | None:
        found = (each.locate(config_path) for each in self._folders() if config_path)
        return next((path for path in found if path is not None), None)

    def _check_choice(self, override: Override) -> list[Problem]:
        group = override.key_or_group
        if group in EXTRAS:
            return check_installed(override, self.repository.get_group_options(group))
        return check_choice(override, self.files(group)) if group in GROUPS else []


@dataclass(frozen=True)
class Composed:
    """A config with its `hydra` node, and the means to say where each key was written."""

    config: DictConfig
    loader: Loader

    @property
    def tree(self) -> dict[str, Any]:
        """The task's part as plain values, `${...}` as written."""
        return {str(key): plain_value(self.config, str(key)) for key in self.config if key != "hydra"}

    @property
    def is_sweep(self) -> bool:
        """Whether a config's or an override's `hydra.mode` asks for a sweep."""
        return bool(self.config.hydra.mode == RunMode.MULTIRUN)

    def places(self) -> SourceMap:
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.task, resolve=False)
        return self.loader.places(overrides)


class Refused(SpecError):
    """Overrides that can't be applied. `composed` is the config without them, so that its form can be checked too.

    What stands in one of `groups` depends on a choice that was wrong, and says nothing.
    """

    def __init__(self, problems: Sequence[Problem], composed: Composed, groups: frozenset[str]) -> None:
        super().__init__(problems)
        self.composed, self.groups = composed, groups


def start_hydra(config_dir: str | None = None) -> HydraApp:
    """Hydra with our search path: --config-dir, the user's conf/, dlspec's own, PyTorch's names.

    Hydra's own global state is left alone, so a notebook's `hydra.initialize` goes on working.
    """
    version.setbase(VERSION_BASE)
    _register_sources()
    entries = [("hydra", "pkg://hydra.conf")]
    if config_dir is not None:
        entries.append(("command-line", _folder(config_dir)))
    user = user_conf()
    if user is not None:
        check_user_config(user)
        entries.append(("user", f"dlspec://{user}"))
    entries += [("main", f"dlspec://{packaged_conf()}"), ("parts", "dlspec-parts://"), ("schema", "structured://")]
    return make_hydra(Loader(search_path(entries)))


def _register_sources() -> None:
    plugins = Plugins.instance()
    plugins.register(ConfFiles)
    plugins.register(PartNames)
    store_names()


def _folder(config_dir: str) -> str:
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise SpecError(
            [Problem(Code.FILE_UNREADABLE, "", "no such folder", "", command_line(f"--config-dir {config_dir}"))]
        )
    return f"dlspec://{folder}"


def compose(overrides: Sequence[str], hydra: HydraApp | None = None) -> Composed:
    """One config, as a run would compose it."""
    hydra = hydra or start_hydra()
    loader = hydra.config_loader
    assert isinstance(loader, Loader)
    config = hydra.compose_config(CONFIG_NAME, list(overrides), run_mode=RunMode.RUN)
    return Composed(config, loader)
