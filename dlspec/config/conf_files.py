"""The files of the config groups: the user's ./conf first, then dlspec's own conf/.

Every YAML file is read by `dlspec.language.yaml.yaml_files`, which scans it before loading.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dlspec.errors import Code, Finding, Problem, SourceLocation, SpecError, format_value
from dlspec.language.yaml.yaml_files import find_packaged_conf as find_packaged_conf
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file

# Groups that offer every registered part by its name, in addition to the files in conf/.
PART_GROUPS = ("optimizer", "scheduler", "loss", "metrics")
GROUPS = ("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer", "experiment")
# Each choice of these groups is a whole section: of several, Hydra would keep the last one.
SINGLE_CHOICE_GROUPS = ("model", "data", "loss", "optimizer", "scheduler")
# The only files that may contain a `hydra:` section.
TOP_CONFIGS = ("config", "dlspec")
BASE_PREFIX = "base/"
SEARCHPATH_REFUSED = Finding(
    Code.HYDRA_CONFIG, "hydra.searchpath is not supported", "add a folder of files with --config-dir FOLDER"
)


def find_user_conf() -> Path | None:
    """Return the folder `conf/` in the working directory, or None if there is none or it is dlspec's own."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != find_packaged_conf().resolve() else None


def list_conf_folders() -> list[Path]:
    """List the folders with config files: the user's, if there is one, before dlspec's own."""
    return [folder for folder in (find_user_conf(), find_packaged_conf()) if folder is not None]


def list_group_files(group: str, folders: Iterable[Path] | None = None) -> list[str]:
    """List the names of a group's files in the given folders, by default in the user's and dlspec's own."""
    searched = list_conf_folders() if folders is None else folders
    names = {name for folder in searched for name in _list_file_names(folder / group)}
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def explain_misplaced_file(group: str, name: str) -> str:
    """Return the command that moves a file to where its group looks for it; "" without such a file.

    Such a file ends in `.yml`, or is in the folder of another group, in `conf/` itself or in the working directory.

    Args:
        group: the group that has no file of this name
        name: the name that was chosen
    """
    folder = find_user_conf() or Path("conf")
    wanted, found = folder / group / f"{name}.yaml", _find_misplaced_file(folder, group, name)
    if found is None:
        return ""
    parent, source, target = (shlex.quote(format_file_path(each)) for each in (wanted.parent, found, wanted))
    make_folder = "" if wanted.parent.is_dir() else f"mkdir -p {parent} && "
    return f"only {target} is read: {make_folder}mv {source} {target}"


def _find_misplaced_file(folder: Path, group: str, name: str) -> Path | None:
    if not name.isidentifier():
        return None
    folders = [folder / group, *(folder / each for each in GROUPS if each != group), folder, Path()]
    paths = [each / f"{name}{ending}" for each in folders for ending in (".yml", ".yaml")]
    return next((each for each in paths if each.is_file()), None)


def _list_file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:  # faster than `glob`: each job of a sweep lists every group
            return [each.name for each in entries]
    except OSError:
        return []


def check_user_config(folder: Path) -> None:
    """Refuse a conf/config.yaml that does not extend dlspec's.

    The config.yaml of an unrelated project would silently replace dlspec's.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return
    document = load_yaml_file(path)
    tree = document.tree if isinstance(document.tree, dict) else {}
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list) or "dlspec" not in defaults:
        fix = "start it with 'defaults: [dlspec, _self_]', or run dlspec in another folder"
        raise SpecError(
            [
                Problem(
                    Code.CONFIG_CLASH,
                    "",
                    "this config.yaml does not extend dlspec's",
                    fix,
                    SourceLocation(format_file_path(path)),
                )
            ]
        )
    location = document.keys.get(("hydra", "searchpath"))
    if location is not None:
        raise SpecError([SEARCHPATH_REFUSED.to_problem("hydra.searchpath", location)])


def read_conf_file(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Read a config file; return its values and its header (`# @package`)."""
    path = folder / f"{name}.yaml"
    tree = load_yaml_file(path).tree
    header = _read_header(path)
    if tree is None:
        return {}, header
    if not isinstance(tree, dict):
        raise _file_error(Code.WRONG_TYPE, path, "the file is not a mapping", "write KEY: VALUE lines")
    if not isinstance(tree.get("hydra", {}), dict):
        found = f"'hydra' must be a mapping, got {format_value(tree['hydra'])}"
        raise _file_error(Code.WRONG_TYPE, path, found, "write hydra: {KEY: VALUE}, or remove it")
    touches_hydra = "hydra" in tree or str(header.get("package") or "").split(".")[0] == "hydra"
    if touches_hydra and name not in TOP_CONFIGS:
        raise _file_error(
            Code.MISPLACED_KEY,
            path,
            "a 'hydra' section in this file",
            "move it to conf/config.yaml or to the command line",
        )
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list):
        raise _file_error(Code.WRONG_TYPE, path, "'defaults' is not a list", "write 'defaults: [...]'")
    for index, each in enumerate(defaults):
        if not _names_files(each):
            location = load_yaml_file(path).keys.get(("defaults", index))
            found = f"{format_value(each)} does not name a file"
            raise SpecError(
                [
                    Problem(
                        Code.DEFAULTS_LIST,
                        f"defaults.{index}",
                        found,
                        "write GROUP: NAME, /GROUP/NAME@_here_ or _self_",
                        location,
                    )
                ]
            )
    return tree, header


def _names_files(entry: Any) -> bool:
    """Whether an entry of a defaults list names a file, or a group with files or null: `{/metrics: [A, B]}`."""
    if not isinstance(entry, dict):
        return _is_name(entry)
    if len(entry) != 1:
        return False
    names = next(iter(entry.values()))
    return names is None or (all(map(_is_name, names)) if isinstance(names, list) else _is_name(names))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.partition("@")[0].strip("/ ") != "" and "\0" not in value


def _read_header(path: Path) -> dict[str, str | None]:
    """Read the `# @package` header.

    Hydra reads it only from the first line, and would silently ignore it below another comment: that is refused here.
    """
    header: dict[str, str | None] = {"package": None}
    for number, line in enumerate(_read_leading_comments(path)):
        found = re.match(r"#\s*@package\s+(\S+)", line)
        if found and number > 0:
            location = SourceLocation(format_file_path(path), number + 1, 1, line, len(line))
            fix = "move it to the first line"
            raise SpecError(
                [Problem(Code.YAML_SYNTAX, "", "'# @package' is ignored below another line", fix, location)]
            )
        if found:
            header["package"] = found[1]
    return header


def _read_leading_comments(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                return
            yield line.rstrip("\n")


def _file_error(code: Code, path: Path, found: str, fix: str) -> SpecError:
    return SpecError([Problem(code, "", found, fix, SourceLocation(format_file_path(path)))])
