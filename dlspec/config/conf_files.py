"""Where configs come from: dlspec's own conf/, the user's ./conf before it, and PyTorch's names behind both.

Every YAML file goes through `dlspec.language.yaml.yaml_files`, so that nothing is loaded which was not scanned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dlspec.errors import Code, Finding, Problem, SourceLocation, SpecError, format_value
from dlspec.language.yaml.yaml_files import find_packaged_conf as find_packaged_conf
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file

# Groups that offer every registered part under its PyTorch name, beside the files in conf/.
PART_GROUPS = ("optimizer", "scheduler", "loss", "metrics")
GROUPS = ("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer", "experiment")
# The only files that may carry a `hydra:` node.
TOP_CONFIGS = ("config", "dlspec")
BASE_PREFIX = "base/"
SEARCHPATH_REFUSED = Finding(
    Code.HYDRA_CONFIG, "hydra.searchpath is not there", "--config-dir FOLDER adds a folder of files"
)


def find_user_conf() -> Path | None:
    """The folder `conf/` where the user works, if there is one and it is not dlspec's own."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != find_packaged_conf().resolve() else None


def list_conf_folders() -> list[Path]:
    """The user's folder before the packaged one."""
    return [folder for folder in (find_user_conf(), find_packaged_conf()) if folder is not None]


def list_group_files(group: str, folders: Iterable[Path] | None = None) -> list[str]:
    """The files that a group offers in some folders, or in the user's and dlspec's own."""
    searched = list_conf_folders() if folders is None else folders
    names = {name for folder in searched for name in _list_file_names(folder / group)}
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _list_file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:  # faster than `glob`: each job of a sweep asks for every group
            return [each.name for each in entries]
    except OSError:
        return []


def check_user_config(folder: Path) -> None:
    """An unrelated project's conf/config.yaml would take the place of dlspec's without a word."""
    path = folder / "config.yaml"
    if not path.is_file():
        return
    document = load_yaml_file(path)
    tree = document.tree if isinstance(document.tree, dict) else {}
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list) or "dlspec" not in defaults:
        fix = "begin it with 'defaults: [dlspec, _self_]', or run dlspec in another folder"
        raise SpecError(
            [
                Problem(
                    Code.CONFIG_CLASH,
                    "",
                    "a config.yaml that does not build on dlspec's",
                    fix,
                    SourceLocation(format_file_path(path)),
                )
            ]
        )
    location = document.keys.get(("hydra", "searchpath"))
    if location is not None:
        raise SpecError([SEARCHPATH_REFUSED.to_problem("hydra.searchpath", location)])


def read_conf_file(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """A conf file's values and its header (`# @package`)."""
    path = folder / f"{name}.yaml"
    tree = load_yaml_file(path).tree
    header = _read_header(path)
    if tree is None:
        return {}, header
    if not isinstance(tree, dict):
        raise _file_error(Code.WRONG_TYPE, path, "the file is no mapping", "write KEY: VALUE lines")
    touches_hydra = "hydra" in tree or str(header.get("package") or "").split(".")[0] == "hydra"
    if touches_hydra and name not in TOP_CONFIGS:
        raise _file_error(
            Code.MISPLACED_KEY, path, "a 'hydra' node", "it may stand in conf/config.yaml and on the command line alone"
        )
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list):
        raise _file_error(Code.WRONG_TYPE, path, "'defaults' is no list", "write 'defaults: [...]'")
    for index, each in enumerate(defaults):
        if not isinstance(each, str) and not (isinstance(each, dict) and len(each) == 1):
            location = load_yaml_file(path).keys.get(("defaults", index))
            found = f"{format_value(each)} names no file"
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


def _read_header(path: Path) -> dict[str, str | None]:
    """Hydra reads `# @package` from the first line alone; below another comment it would be ignored in silence."""
    header: dict[str, str | None] = {"package": None}
    for number, line in enumerate(_read_leading_comments(path)):
        found = re.match(r"#\s*@package\s+(\S+)", line)
        if found and number > 0:
            location = SourceLocation(format_file_path(path), number + 1, 1, line, len(line))
            fix = "move it to the first line"
            raise SpecError(
                [Problem(Code.YAML_SYNTAX, "", "'# @package' below another line is ignored", fix, location)]
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
