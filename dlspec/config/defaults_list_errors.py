"""Errors in defaults lists: an unknown file, a file that includes itself, files that can't be merged.

Hydra reports these without a location, so the file that causes the error is read again here to find it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.default_element import ResultDefault
from hydra.errors import ConfigCompositionException, MissingConfigException

from dlspec.config.conf_files import SINGLE_CHOICE_GROUPS, explain_misplaced_file
from dlspec.config.config_sources import ConfFiles
from dlspec.config.model_merging import MergeConflict
from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError, suggest
from dlspec.language.problems import format_path
from dlspec.language.yaml.yaml_files import Document, format_file_path, load_yaml_file

# Returns the file of a config's name (`model/cnn`), or None if there is none.
FindFile = Callable[[str | None], Path | None]
CIRCULAR_DEFAULTS = "the defaults list of this file leads back to the file itself"
EXTEND_FIX = "to extend dlspec's file with the same name write /base/GROUP/NAME@_here_"


def remove_defaults_list(model: Any, package: str) -> Any:
    """Return a file's model without the `defaults` key, which is at the path that `# @package` names."""
    path = package.split(".")[1:] if package else None
    return model if path is None else _remove_defaults_at(model, path)


def _remove_defaults_at(tree: Any, path: list[str]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if path:
        return {**tree, path[0]: _remove_defaults_at(tree.get(path[0]), path[1:])}
    return {key: value for key, value in tree.items() if key != "defaults"}


def problem_from_conflict(conflict: MergeConflict, default: ResultDefault, find_file: FindFile) -> Problem:
    """Make a problem of a model that can't be merged into the one before it.

    Args:
        conflict: what can't be merged, and where.
        default: the file of the model, as an entry of the defaults list.
        find_file: returns the file of a config's name.
    """
    location = _find_key_location(find_file(default.config_path), default.package, conflict.path)
    return conflict.finding.to_problem(format_path(conflict.path), location)


def _find_key_location(path: Path | None, package: str | None, key: KeyPath) -> SourceLocation | None:
    if path is None:
        return None
    depth = len(package.split(".")) if package else 0
    return load_yaml_file(path).keys.get(key[depth:]) or SourceLocation(format_file_path(path))


def problem_from_merge_error(error: ConfigCompositionException, find_file: FindFile) -> Problem:
    """Make a problem of Hydra's error about a list and a mapping that it can't merge, outside of the model."""
    config, key = _parse_merge_error(error)
    file = find_file(config)
    location = None if file is None else _find_nearest_location(load_yaml_file(file), key, file)
    return Problem(
        Code.CONFIG_CLASH,
        key,
        "can't merge a list with a mapping",
        "write the same kind as in the file that this one extends",
        location,
    )


def _parse_config_name(error: Exception) -> str:
    """Return the name of the config in a Hydra error, or ''. Hydra gives it only in the message."""
    found = re.match(r"In '([^']+)'", str(error))
    return found[1] if found else ""


def _parse_merge_error(error: Exception) -> tuple[str, str]:
    """Return the config that can't be merged and the key in it. Hydra gives both only in the message."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    return lines[0].removeprefix("In '").partition("'")[0], key


def _find_nearest_location(document: Document, key: str, file: Path) -> SourceLocation:
    """Find the location of a dotted key. A file with `# @package model` contains it without the leading `model.`."""
    keys = tuple(key.split("."))
    found = (document.keys.get(keys[start:]) for start in range(len(keys)))
    return next((each for each in found if each is not None), SourceLocation(format_file_path(file)))


def problem_from_missing_config(error: MissingConfigException, find_file: FindFile, names: Iterable[str]) -> Problem:
    """Make a problem of a name in a defaults list that no file has.

    Args:
        error: Hydra's error. It does not name the file if that overrides a choice, as an experiment does.
        find_file: returns the file of a config's name.
        names: all configs, which are searched for the name.
    """
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    parent = _parse_config_name(error)
    files = [each for each in map(find_file, [*([parent] if parent else []), *names]) if each is not None]
    location = next((found for file in files if (found := _find_entry_location(file, name)) is not None), None)
    choices = error.options or [each.stem for each in files[0].parent.glob("*.yaml")] if files else ()
    fix = explain_misplaced_file(group, name) or suggest(name, choices)
    return Problem(Code.DEFAULTS_LIST, group, f"unknown name '{name}' in a defaults list", fix, location)


def find_surplus_choice(defaults: Sequence[ResultDefault]) -> str | None:
    """Find the second config of a list of which only the last would count: `override /optimizer: [Adam, SGD]`."""
    seen: set[tuple[str, str | None]] = set()
    for default in defaults:
        group = str(default.config_path).rpartition("/")[0]
        is_in_list = default.override_key is None and str(default.parent).rpartition("/")[0] != group
        if group in SINGLE_CHOICE_GROUPS and is_in_list:
            if (group, default.parent) in seen:
                return default.config_path
            seen.add((group, default.parent))
    return None


def problem_from_surplus_choice(config: str, find_file: FindFile, names: Iterable[str]) -> Problem:
    """Make a problem of a list of configs of which only the last would count.

    Args:
        config: name of the list's second config.
        find_file: returns the file of a config's name.
        names: all configs, which are searched for the list.
    """
    group, _, name = config.rpartition("/")
    files = (file for file in map(find_file, names) if file is not None)
    location = next((found for file in files if (found := _find_entry_location(file, name)) is not None), None)
    return Problem(Code.SEVERAL_VALUES, group, f"{group} takes one choice, got a list", "write one name", location)


def _find_entry_location(file: Path, name: str) -> SourceLocation | None:
    """Find where the defaults list of a file names a config."""
    document = _load_document(file)
    for path, location in document.values.items() if document else ():
        names = re.split(r"[/@]", location.text[location.column - 1 : location.column - 1 + location.width])
        if path[:1] == ("defaults",) and name in names:
            return location
    return None


def _load_document(file: Path | None) -> Document | None:
    """Load a file; return None if it is not valid YAML."""
    try:
        return None if file is None else load_yaml_file(file)
    except SpecError:
        return None


def list_config_files(folders: Iterable[ConfFiles]) -> list[str]:
    """List the names of all configs in some folders, in the order of the folders: the user's come first."""
    paths = [(Path(each.path), path) for each in folders for path in sorted(Path(each.path).rglob("*.yaml"))]
    return [str(path.relative_to(folder).with_suffix("")) for folder, path in paths]


def find_circular_defaults(find_file: FindFile, names: Iterable[str]) -> Problem:
    """Find the first file whose defaults list leads back to the file itself, and the entry that does so."""
    for name in names:
        location = _find_circular_entry(name, find_file)
        if location is not None:
            return Problem(Code.DEFAULTS_LIST, "defaults", CIRCULAR_DEFAULTS, EXTEND_FIX, location)
    return Problem(Code.DEFAULTS_LIST, "defaults", CIRCULAR_DEFAULTS, EXTEND_FIX)


def _find_circular_entry(start: str, find_file: FindFile) -> SourceLocation | None:
    """Find the entry in the defaults list of `start` that leads back to `start`."""
    for first, location in _list_entries(start, find_file):
        seen: set[str] = set()
        waiting = [first]
        while waiting:
            name = waiting.pop()
            if name == start:
                return location
            if name not in seen:
                seen.add(name)
                waiting += [each for each, _ in _list_entries(name, find_file)]
    return None


def _list_entries(name: str, find_file: FindFile) -> Iterator[tuple[str, SourceLocation | None]]:
    """Iterate over the configs that a file's defaults list names, each with its location."""
    document = _load_document(find_file(name))
    if document is None:
        return
    group = name.rpartition("/")[0]
    defaults = document.tree.get("defaults") if isinstance(document.tree, dict) else None
    for index, entry in enumerate(defaults if isinstance(defaults, list) else []):
        named = _config_named_by_entry(entry, group)
        if named is not None:
            yield named, document.values.get(("defaults", index))


def _config_named_by_entry(entry: Any, group: str) -> str | None:
    """Return the name of the config that an entry of a defaults list adds, or None if it adds none."""
    if isinstance(entry, dict) and len(entry) == 1:
        key, value = next(iter(entry.items()))
        words = str(key).split()
        if "override" in words or not isinstance(value, str):
            return None
        entry = f"{words[-1].partition('@')[0]}/{value}"
    if not isinstance(entry, str) or entry == "_self_":
        return None
    name = entry.partition("@")[0]
    return name.lstrip("/") if name.startswith("/") or not group else f"{group}/{name}"
