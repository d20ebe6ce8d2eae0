"""Composes a config with Hydra. Every use of Hydra's internals is in this file (and in sweep.py, its plugins).

Hydra merges the files and chooses among groups. Values from the command line are applied here, without a `+` and with
our own errors: Hydra would refuse a key that the YAML does not name, and replace a short spelling in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dlspec.app.conf_files import (
    BASE,
    GROUPS,
    PART_GROUPS,
    check_user_config,
    group_files,
    packaged_conf,
    read_conf,
    user_conf,
)
from dlspec.errors import Place, Problem, SpecError, suggest
from dlspec.spec.mistakes import Places
from dlspec.spec.yaml_files import KeyPath, display_name, load_file

CONFIG_NAME = "config"


class ConfFiles(ConfigSource):
    """YAML files below a folder. The packaged ones are also there under `base/`, for a file that extends its twin."""

    @staticmethod
    def scheme() -> str:
        return "dlspec"

    def locate(self, config_path: str) -> Path | None:
        """The file behind a config's name, or None."""
        name = config_path.removesuffix(".yaml").lstrip("/")
        if name.startswith(BASE) and Path(self.path) == packaged_conf():
            name = name.removeprefix(BASE)
        path = Path(self.path) / f"{name}.yaml"
        return path if path.is_file() else None

    def load_config(self, config_path: str) -> ConfigResult:
        path = self.locate(config_path)
        if path is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        name = str(path.relative_to(self.path).with_suffix(""))
        tree, header = read_conf(Path(self.path), name)
        return ConfigResult(self.provider, self.full_path(), _to_omegaconf(tree, path), header)

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return (Path(self.path) / config_path.lstrip("/").removeprefix(BASE)).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self.locate(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = Path(self.path) / config_path
        groups = [each.name for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []
        configs = [each.stem for each in folder.glob("*.yaml")]
        wanted = {ObjectType.GROUP: groups, ObjectType.CONFIG: configs}
        return sorted(groups + configs if results_filter is None else wanted[results_filter])


class PartNames(ConfigSource):
    """Any name in a group of parts stands for the part; whether PyTorch has it is checked with the rest of the form."""

    @staticmethod
    def scheme() -> str:
        return "dlspec-parts"

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
        problem = Problem(str(error.full_key or ""), str(error.msg).split("\n")[0], "write ${KEY}", Place(str(path)))
        raise SpecError([problem]) from None


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which gives values from the command line to us."""

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
            _refuse_sweeps(choices, values)
        wrong = {each.key_or_group: problems for each in choices if (problems := _check_choice(each))}
        lines = [str(each.input_line) for each in choices if each.key_or_group not in wrong]
        config = super().load_configuration(config_name, lines, run_mode, from_shell, validate_sweep_overrides)
        spec_file, values = take_run(choices, values)
        if spec_file is not None:
            _replace_by_run(config, spec_file, choices, values)
        kept = [
            each for each in values if not each.is_sweep_override() and each.key_or_group.split(".")[0] not in wrong
        ]
        problems = [*(problem for each in wrong.values() for problem in each), *apply_overrides(config, kept)]
        set_hydra(config, "overrides.task", [line for line in overrides if not line.lstrip("+~").startswith("hydra")])
        if problems:
            raise Refused(problems, Composed(config, self), frozenset(wrong))
        return config

    def divide(self, overrides: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """Choices among groups (Hydra's own settings too), and values."""
        choices: list[Override] = []
        values: list[Override] = []
        for override in parse_overrides(overrides):
            is_choice = override.key_or_group.startswith("hydra") or self.repository.group_exists(override.key_or_group)
            (choices if is_choice else values).append(override)
        return choices, values

    def places(self, overrides: Sequence[str]) -> Places:
        """Where each key of the composed config was written: the files in the order of merging, then the overrides."""
        choices, values = self.divide(overrides)
        usable = [each for each in choices if not each.is_sweep_override() and not _check_choice(each)]
        lines = [str(each.input_line) for each in usable]
        keys: dict[KeyPath, Place] = {}
        found: dict[KeyPath, Place] = {}
        for default in self.compute_defaults_list(CONFIG_NAME, lines, RunMode.RUN).defaults:
            path = self._file(default.config_path)
            if path is not None:
                _add_file(path, default.package, keys, found)
        spec_file, values = take_run(choices, values)
        if spec_file is not None:
            chosen = {each.key_or_group for each in choices}
            for table in (keys, found):
                for old in [path for path in table if path and path[0] not in chosen]:
                    del table[old]
            _add_file(spec_file, None, keys, found, without=chosen)
        for override in [*choices, *values]:
            _add_override(override, keys, found)
        return Places(keys, found)

    def _file(self, config_path: str | None) -> Path | None:
        for source in self.repository.get_sources():
            if config_path and isinstance(source, ConfFiles) and source.is_config(config_path):
                return source.locate(config_path)
        return None


def _add_file(
    path: Path,
    package: str | None,
    keys: dict[KeyPath, Place],
    values: dict[KeyPath, Place],
    without: Collection[str] = (),
) -> None:
    document = load_file(path)
    if without:
        document = document.without(without)
    prefix: KeyPath = tuple(package.split(".")) if package else ()
    for inner in document.values:
        _forget_list_below((*prefix, *inner), values, keys)
    keys |= {(*prefix, *inner): place for inner, place in document.keys.items()}
    values |= {(*prefix, *inner): place for inner, place in document.values.items()}


def _forget_list_below(path: KeyPath, *tables: dict[KeyPath, Place]) -> None:
    """A list replaces the list before it whole: what stood in that has no place any more."""
    for table in tables:
        for old in [each for each in table if len(each) > len(path) and each[: len(path)] == path]:
            if isinstance(old[len(path)], int):
                del table[old]


def _add_override(override: Override, keys: dict[KeyPath, Place], values: dict[KeyPath, Place]) -> None:
    path = override_path(override.key_or_group)
    line = override.input_line or ""
    start = line.find("=") + 1
    keys[path] = command_line(line, 0, max(start - 1, 1))
    values[path] = command_line(line, start, max(len(line) - start, 1))
    if override.key_or_group in PART_GROUPS:
        keys[(*path, "type")] = values[(*path, "type")] = values[path]


def command_line(text: str, start: int = 0, width: int = 0) -> Place:
    """A place on the command line."""
    return Place("command line", 0, start + 1, text, width or len(text))


def override_path(key: str) -> KeyPath:
    """`model.layers.0.Conv2d` as the config's path: list indices are numbers."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def parse_overrides(lines: Sequence[str]) -> list[Override]:
    """Each override parsed; what is none is told with what to write."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems: list[Problem] = []
    for line in lines:
        try:
            parsed.append(parser.parse_override(line))
        except HydraException:
            problems.append(_no_override(line))
    if problems:
        raise SpecError(problems)
    return parsed


def _no_override(line: str) -> Problem:
    fix = "write KEY=VALUE"
    if "=" in line:
        fix = "put quotes around a value with spaces, commas or brackets: 'KEY=\"...\"'"
    if "[" in line.split("=")[0]:
        fix = "write the index behind a dot: model.layers.0"
    return Problem("", "no override", fix, command_line(line))


def _refuse_sweeps(choices: Sequence[Override], values: Sequence[Override]) -> None:
    sweeping = [each for each in (*choices, *values) if each.is_sweep_override()]
    problems = [
        Problem(
            each.key_or_group,
            "several values",
            "add -m to sweep over them" + (f", or write a list: {each.key_or_group}=[...]" if each in values else ""),
            command_line(each.input_line or ""),
        )
        for each in sweeping
    ]  # fmt: skip
    if problems:
        raise SpecError(problems)


def _check_choice(override: Override) -> list[Problem]:
    """A file that no folder holds, told in our own words with what there is."""
    group = override.key_or_group
    if group not in GROUPS or override.is_delete() or override.is_sweep_override():
        return []
    chosen = override.value()
    names = [each for each in (chosen if isinstance(chosen, list) else [chosen]) if each is not None]
    known = group_files(group)
    line = override.input_line or ""
    place = command_line(line, line.find("=") + 1, len(line) - line.find("=") - 1)
    if group in PART_GROUPS:
        names = [each for each in names if not str(each).isidentifier()]
    unknown = [str(each) for each in names if each not in known]
    article = f"no {'data set' if group == 'data' else group}"
    return [Problem(group, f"{article} '{each}'", suggest(each, known, most=20), place) for each in unknown]


# ---- a run's spec in place of the files ---------------------------------------------------------------------------


def take_run(choices: Sequence[Override], values: Sequence[Override]) -> tuple[Path | None, list[Override]]:
    """The spec.yaml that `run=FOLDER` names, and the values without it."""
    named = next((each for each in values if each.key_or_group == "run"), None)
    if named is None:
        return None, list(values)
    folder, line = Path(str(named.value())), named.input_line or ""
    place = command_line(line, line.find("=") + 1, len(line) - line.find("=") - 1)
    if not (folder / "spec.yaml").is_file():
        raise SpecError([Problem("run", f"no run in '{folder}'", "name a run's folder, which holds spec.yaml", place)])
    if any(each.key_or_group == "experiment" for each in choices):
        raise SpecError([Problem("run", "run and experiment together", "keep one: each is a whole spec", place)])
    return folder / "spec.yaml", [each for each in values if each is not named]


def _replace_by_run(
    config: DictConfig, spec_file: Path, choices: Sequence[Override], values: Sequence[Override]
) -> None:
    """Puts the run's spec in the place of what the files said; groups chosen on the command line stay."""
    tree = load_file(spec_file).tree
    if not isinstance(tree, dict) or "hydra" in tree:
        raise SpecError([Problem("", "no saved spec", "", Place(display_name(spec_file)))])
    _check_imports(tree.pop("imports", None), spec_file, values)
    chosen = {each.key_or_group for each in choices}
    with open_dict(config):
        for key in [str(key) for key in config if key != "hydra" and key not in chosen]:
            del config[key]
        for key, value in tree.items():
            if key not in chosen:
                config[key] = value
    # 12-30-05_cnn_digits run again is ..._cnn_digits_again.
    set_hydra(config, "runtime.choices.model", spec_file.parent.name.partition("_")[2] or spec_file.parent.name)
    set_hydra(config, "runtime.choices.data", "again")


def _check_imports(imports: Any, spec_file: Path, values: Sequence[Override]) -> None:
    """A saved spec may come from anyone: the modules that it imports must be named by the user."""
    wanted = imports if isinstance(imports, list) else []
    named = next((each.value() for each in values if each.key_or_group == "imports"), None)
    missing = [str(each) for each in wanted if not isinstance(named, list) or each not in named]
    if missing:
        fix = f"if you trust them, add imports=[{','.join(str(each) for each in wanted)}]"
        found = f"this spec runs code from {', '.join(missing)}"
        raise SpecError([Problem("imports", found, fix, Place(display_name(spec_file)))])


# ---- values --------------------------------------------------------------------------------------------------------


def apply_overrides(config: DictConfig, overrides: Sequence[Override]) -> list[Problem]:
    """Sets (or with `~` deletes) values in the config; gives the problems of those that can't be reached."""
    problems: list[Problem] = []
    for override in overrides:
        tree = {str(key): _plain(config, str(key)) for key in config if key != "hydra"}
        reason = set_value(tree, override)
        if reason is not None:
            problems.append(Problem(override.key_or_group, *reason, command_line(override.input_line or "")))
            continue
        with open_dict(config):
            top = override.key_or_group.split(".")[0]
            if top in tree:
                config[top] = tree[top]
            else:
                config.pop(top, None)
    return problems


def _plain(config: DictConfig, key: str) -> Any:
    node: Any = config._get_node(key)  # getting the value would look up its '${...}'
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node._value()


def set_value(tree: dict[str, Any], override: Override) -> tuple[str, str] | None:
    """Changes the tree in place, or says why it can't and what to write."""
    *parents, last = override_path(override.key_or_group)
    node: Any = tree
    walked: list[Any] = []
    for part in parents:
        if isinstance(node, dict) and str(part) in node:
            child = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            child = node[part]
        elif isinstance(node, dict):
            child = node[str(part)] = {}
        else:
            return _unreachable(node, part)
        walked.append(part)
        if child is None and isinstance(node, dict):
            child = node[str(part)] = {}
        if not isinstance(child, dict | list):
            return _short_spelling(tree, walked, child, override)
        node = child
    return _set_last(node, last, override)


def _set_last(node: Any, last: Any, override: Override) -> tuple[str, str] | None:
    if isinstance(node, list) and (not isinstance(last, int) or last >= len(node)):
        return _unreachable(node, last)
    key = last if isinstance(node, list) else str(last)
    if override.is_delete():
        if isinstance(node, dict) and key not in node:
            return f"no key '{key}' to delete", suggest(key, [str(each) for each in node])
        del node[key]
        return None
    value = override.value()
    if isinstance(value, dict) and isinstance(node, dict) and isinstance(node.get(key), dict):
        node[key] = {**node[key], **value}
    else:
        node[key] = value
    return None


def _unreachable(node: Any, part: Any) -> tuple[str, str]:
    if isinstance(node, list):
        return f"no entry '{part}' in a list of {len(node)}", f"write a number from 0 to {len(node) - 1}"
    return f"no key '{part}' there", ""


def _short_spelling(tree: dict[str, Any], walked: list[Any], value: Any, override: Override) -> tuple[str, str]:
    """An override that reaches into `Linear: 10` or `loss: MSELoss` would lose what is written there."""
    from dlspec.registry.torch_parts import LAYERS

    name, setting = str(walked[-1]), override.key_or_group.split(".")[-1]
    if name in LAYERS:
        known = LAYERS[name].value_setting or "SETTING"
        entry = ".".join(str(each) for each in walked[:-1])
        full = f"{name}: {{{known}: {value}, {setting}: {_written_value(override)}}}"
        return f"'{name}: {value}' is a short spelling", f"write it in full: '{entry}={{{full}}}'"
    where = ".".join(str(each) for each in walked)
    value_text = _written_value(override)
    if isinstance(value, str) and value.isidentifier():
        key, _, last = where.rpartition(".")
        full = f"{{type: {value}, {setting}: {value_text}}}"
        if key and last.isdigit():
            full = f"{{{value}: {{{setting}: {value_text}}}}}"
        return f"'{value}' is a short spelling", f"write it in full: '{where}={full}'"
    return f"{where} is {value!r} and has no keys", f"write {where}=VALUE"


def _written_value(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]


# ---- the composed config -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Composed:
    """A config with its `hydra` node, and the means to say where each key was written."""

    config: DictConfig
    loader: Loader

    @property
    def tree(self) -> dict[str, Any]:
        """The task's part as plain values, `${...}` as written."""
        return task_tree(self.config)

    def places(self) -> Places:
        return self.loader.places(list(self.config.hydra.overrides.task))

    @property
    def chosen(self) -> Mapping[str, str | None]:
        """Which file each group came from."""
        return dict(self.config.hydra.runtime.choices)


def set_hydra(config: DictConfig, key: str, value: Any) -> None:
    """Sets a key of the `hydra` node, parts of which are read-only."""
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, key, value)


def task_tree(config: DictConfig) -> dict[str, Any]:
    """The config without its `hydra` node, as plain values."""
    tree = OmegaConf.to_container(config, resolve=False)
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    return {str(key): value for key, value in tree.items()}


class Refused(SpecError):
    """Overrides that can't be applied. `composed` is the config without them, so that its form can be checked too.

    What stands in one of `groups` depends on a choice that was wrong, and says nothing.
    """

    def __init__(self, problems: Sequence[Problem], composed: Composed, groups: frozenset[str]) -> None:
        super().__init__(problems)
        self.composed, self.groups = composed, groups


def start_hydra(config_dir: str | None = None) -> Hydra:
    """Hydra with our search path: the user's conf/, dlspec's own, PyTorch's names."""
    version.setbase("1.3")
    plugins = Plugins.instance()
    plugins.register(ConfFiles)
    plugins.register(PartNames)
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if config_dir is not None:
        path.append("command-line", _folder(config_dir))
    user = user_conf()
    if user is not None:
        check_user_config(user)
        path.append("user", f"dlspec://{user}")
    path.append("main", f"dlspec://{packaged_conf()}")
    path.append("parts", "dlspec-parts://")
    path.append("schema", "structured://")
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="dlspec", config_loader=Loader(config_search_path=path))
    GlobalHydra.instance().initialize(hydra)
    return hydra


def _folder(config_dir: str) -> str:
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise SpecError([Problem("", "no such folder", "", command_line(f"--config-dir {config_dir}"))])
    return f"dlspec://{folder}"


def compose(overrides: Sequence[str], hydra: Hydra | None = None) -> Composed:
    """One config, as a run would compose it."""
    hydra = hydra or start_hydra()
    loader = hydra.config_loader
    assert isinstance(loader, Loader)
    config = hydra.compose_config(CONFIG_NAME, list(overrides), run_mode=RunMode.RUN)
    return Composed(config, loader)
