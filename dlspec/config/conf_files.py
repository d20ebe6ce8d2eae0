"""Where configs come from: dlspec's own conf/, the user's ./conf before it, and PyTorch's names behind both.

Every YAML file goes through `dlspec.language.yaml.yaml_files`, so that nothing is loaded which was not scanned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dlspec.errors import Code, Finding, Problem, SourceLocation, SpecError, shown
from dlspec.language.yaml.yaml_files import display_name, load_file
from dlspec.language.yaml.yaml_files import packaged_conf as packaged_conf

# Groups that offer every registered part under its PyTorch name, beside the files in conf/.
PART_GROUPS = ("optimizer", "scheduler", "loss", "metrics")
GROUPS = ("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer", "experiment")
# The only files that may carry a `hydra:` node.
TOP_CONFIGS = ("config", "dlspec")
BASE = "base/"
NO_SEARCHPATH = Finding(
    Code.HYDRA_CONFIG, "hydra.searchpath is not there", "--config-dir FOLDER adds a folder of files"
)


def user_conf() -> Path | None:
    """The folder `conf/` where the user works, if there is one and it is not dlspec's own."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != packaged_conf().resolve() else None


def conf_folders() -> list[Path]:
    """The user's folder before the packaged one."""
    return [folder for folder in (user_conf(), packaged_conf()) if folder is not None]


def group_files(group: str, folders: Iterable[Path] | None = None) -> list[str]:
    """The files that a group offers in some folders, or in the user's and dlspec's own."""
    searched = conf_folders() if folders is None else folders
    names = {name for folder in searched for name in _names(folder / group)}
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _names(folder: Path) -> list[str]:
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
    document = load_file(path)
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
                    SourceLocation(display_name(path)),
                )
            ]
        )
    place = document.keys.get(("hydra", "searchpath"))
    if place is not None:
        raise SpecError([NO_SEARCHPATH.at("hydra.searchpath", place)])


def read_conf(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """A conf file's values and its header (`# @package`)."""
    path = folder / f"{name}.yaml"
    tree = load_file(path).tree
    header = _header(path)
    if tree is None:
        return {}, header
    if not isinstance(tree, dict):
        raise _refused(Code.WRONG_TYPE, path, "the file is no mapping", "write KEY: VALUE lines")
    touches_hydra = "hydra" in tree or str(header.get("package") or "").split(".")[0] == "hydra"
    if touches_hydra and name not in TOP_CONFIGS:
        raise _refused(
            Code.MISPLACED_KEY, path, "a 'hydra' node", "it may stand in conf/config.yaml and on the command line alone"
        )
    defaults = tree.get("defaults", [])
    if not isinstance(defaults, list):
        raise _refused(Code.WRONG_TYPE, path, "'defaults' is no list", "write 'defaults: [...]'")
    for index, each in enumerate(defaults):
        if not isinstance(each, str) and not (isinstance(each, dict) and len(each) == 1):
            place = load_file(path).keys.get(("defaults", index))
            found = f"{shown(each)} names no file"
            raise SpecError(
                [
                    Problem(
                        Code.DEFAULTS_LIST,
                        f"defaults.{index}",
                        found,
                        "write GROUP: NAME, /GROUP/NAME@_here_ or _self_",
                        place,
                    )
                ]
            )
    return tree, header


def _header(path: Path) -> dict[str, str | None]:
    """Hydra reads `# @package` from the first line alone; below another comment it would be ignored in silence."""
    header: dict[str, str | None] = {"package": None}
    for number, line in enumerate(_head(path)):
        found = re.match(r"#\s*@package\s+(\S+)", line)
        if found and number > 0:
            place = SourceLocation(display_name(path), number + 1, 1, line, len(line))
            fix = "move it to the first line"
            raise SpecError([Problem(Code.YAML_SYNTAX, "", "'# @package' below another line is ignored", fix, place)])
        if found:
            header["package"] = found[1]
    return header


def _head(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                return
            yield line.rstrip("\n")


def _refused(code: Code, path: Path, found: str, fix: str) -> SpecError:
    return SpecError([Problem(code, "", found, fix, SourceLocation(display_name(path)))])
