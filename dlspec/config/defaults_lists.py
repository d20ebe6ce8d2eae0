"""Defaults lists that do not hold together: a name that no file has, a file that leads back to itself, files that
can't be laid over each other. Hydra tells these without a place; here the file that says so is read once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.default_element import ResultDefault
from hydra.errors import ConfigCompositionException, MissingConfigException

from dlspec.config.config_sources import ConfFiles
from dlspec.config.model_merging import Clash
from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError, suggest
from dlspec.language.problems import dotted
from dlspec.language.yaml.yaml_files import Document, display_name, load_file

# Where the file of a config's name (`model/cnn`) lies; None for what is no file.
Find = Callable[[str | None], Path | None]
TO_ITSELF = "a file whose defaults lead back to itself"
EXTEND = "to extend dlspec's own file of that name write /base/GROUP/NAME@_here_"


def without_defaults(model: Any, package: str) -> Any:
    """A file's model less the defaults list, which stands where the file's package begins."""
    path = package.split(".")[1:] if package else None
    return model if path is None else _without(model, path)


def _without(tree: Any, path: list[str]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if path:
        return {**tree, path[0]: _without(tree.get(path[0]), path[1:])}
    return {key: value for key, value in tree.items() if key != "defaults"}


def clash_problem(clash: Clash, default: ResultDefault, find: Find) -> Problem:
    """What a file's model says that can't be laid over the one before."""
    place = _place(find(default.config_path), default.package, clash.path)
    return clash.finding.at(dotted(clash.path), place)


def _place(path: Path | None, package: str | None, key: KeyPath) -> SourceLocation | None:
    if path is None:
        return None
    depth = len(package.split(".")) if package else 0
    return load_file(path).keys.get(key[depth:]) or SourceLocation(display_name(path))


def not_mergeable(error: ConfigCompositionException, find: Find) -> Problem:
    """A file's list over a mapping, outside of the model."""
    config, key = _clash_in_hydras_words(error)
    file = find(config)
    where = None if file is None else _nearest(load_file(file), key, file)
    return Problem(
        Code.CONFIG_CLASH,
        key,
        "a list and a mapping can't be laid over each other",
        "write the one that is there",
        where,
    )


def _config_in_hydras_words(error: Exception) -> str:
    """The config of which Hydra complains, or ''. Its exceptions name it in their text alone."""
    found = re.match(r"In '([^']+)'", str(error))
    return found[1] if found else ""


def _clash_in_hydras_words(error: Exception) -> tuple[str, str]:
    """The config that can't be merged, and the key in it. Hydra's exception names both in its text alone."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    return lines[0].removeprefix("In '").partition("'")[0], key


def _nearest(document: Document, key: str, file: Path) -> SourceLocation:
    """The key, or the part of it that a file with a package of its own writes."""
    words = tuple(key.split("."))
    found = (document.keys.get(words[start:]) for start in range(len(words)))
    return next((each for each in found if each is not None), SourceLocation(display_name(file)))


def missing_choice(error: MissingConfigException, find: Find, names: Iterable[str]) -> Problem:
    """A name in a defaults list that no file has. Who overrides a choice (an experiment) Hydra does not tell."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    parent = _config_in_hydras_words(error)
    files = [each for each in map(find, [*([parent] if parent else []), *names]) if each is not None]
    place = next((found for file in files if (found := _entry_place(file, name)) is not None), None)
    choices = error.options or [each.stem for each in files[0].parent.glob("*.yaml")] if files else ()
    return Problem(Code.DEFAULTS_LIST, group, f"a defaults list names '{name}'", suggest(name, choices), place)


def _entry_place(file: Path, name: str) -> SourceLocation | None:
    """Where the defaults list of a file names a config."""
    document = _document(file)
    for path, place in document.values.items() if document else ():
        words = re.split(r"[/@]", place.text[place.column - 1 : place.column - 1 + place.width])
        if path[:1] == ("defaults",) and name in words:
            return place
    return None


def _document(file: Path | None) -> Document | None:
    """A file's document; None where it has a mistake of its own."""
    try:
        return None if file is None else load_file(file)
    except SpecError:
        return None


def config_files(folders: Iterable[ConfFiles]) -> list[str]:
    """The names of all configs in some folders, those first that a user may have written."""
    paths = [(Path(each.path), path) for each in folders for path in sorted(Path(each.path).rglob("*.yaml"))]
    return [str(path.relative_to(folder).with_suffix("")) for folder, path in paths]


def circle(find: Find, names: Iterable[str]) -> Problem:
    """The first file whose defaults lead back to it, and the entry that does."""
    for name in names:
        place = _way_back(name, find)
        if place is not None:
            return Problem(Code.DEFAULTS_LIST, "defaults", TO_ITSELF, EXTEND, place)
    return Problem(Code.DEFAULTS_LIST, "defaults", TO_ITSELF, EXTEND)


def _way_back(start: str, find: Find) -> SourceLocation | None:
    """The place of the entry in `start` from which its defaults lead back to it."""
    for first, place in _entries(start, find):
        seen: set[str] = set()
        waiting = [first]
        while waiting:
            name = waiting.pop()
            if name == start:
                return place
            if name not in seen:
                seen.add(name)
                waiting += [each for each, _ in _entries(name, find)]
    return None


def _entries(name: str, find: Find) -> Iterator[tuple[str, SourceLocation | None]]:
    """The configs that a file's defaults list names, and where."""
    document = _document(find(name))
    if document is None:
        return
    group = name.rpartition("/")[0]
    defaults = document.tree.get("defaults") if isinstance(document.tree, dict) else None
    for index, entry in enumerate(defaults if isinstance(defaults, list) else []):
        named = _named(entry, group)
        if named is not None:
            yield named, document.values.get(("defaults", index))


def _named(entry: Any, group: str) -> str | None:
    """The config's name that an entry of a defaults list stands for; None where it adds none."""
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
