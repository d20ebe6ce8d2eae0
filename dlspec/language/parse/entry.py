"""Read entries of `layers` as written: each with its part, its keys and, for a container, the entries inside."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.expressions import expression_parsing
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.part import ENTRY_KEYS, NO_VALUE, Part, parse_part
from dlspec.language.problems import Problems
from dlspec.layouts import LAYOUTS

SHARE = "share"
LENGTHS_OF = "lengths_of"
# Layers that contain entries, with their settings. A single value sets the first one.
CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "Sequential": ("layers",),
    "TimeDistributed": ("layers",),
    "Residual": ("body", "shortcut", "stochastic_depth"),
    "Parallel": ("branches", "merge"),
}
IF_UNEQUAL = "if_unequal"  # shortcut: {if_unequal: [...]}, which is used only where shapes differ
MAX_NAME_LENGTH = 100  # characters
NAME_FIX = "use letters, digits and _, start with a letter, avoid Python keywords"


@dataclass(frozen=True)
class Entry:
    """One entry of `layers`. Its `name`, `from`, `repeat`, ... are in `part.keys`."""

    key: str  # index in a list or key in a mapping; '' if it is written instead of a list
    path: KeyPath
    part: Part  # name and settings of the layer, block or container
    bodies: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)  # a container's entries, by setting
    words: frozenset[str] = frozenset()  # names in its expressions; collected only if it has a `repeat` with variables

    @property
    def is_named_by_key(self) -> bool:
        """Whether the entry is in a mapping, so that its key is also its output's name."""
        return bool(self.key) and not self.key.isdigit()

    @property
    def type(self) -> str:
        """Name of the layer, block or container."""
        return self.part.type


def is_valid_name(name: Any) -> bool:
    """Whether a value can be the name of an output, input or block."""
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and not keyword.iskeyword(name) and not name.startswith("_") and len(name) <= MAX_NAME_LENGTH


def check_name(name: Any, path: KeyPath, problems: Problems, kind: str = "output", *, at_value: bool = False) -> bool:
    """Check a name and report it if it is not valid.

    Args:
        name: The name as written.
        path: Its path.
        problems: Collects what is wrong.
        kind: What is named, for the message: "output", "input" or "branch".
        at_value: Point at the value at `path`, not at its key.

    Returns:
        Whether the name is valid.
    """
    if is_valid_name(name):
        return True
    article = "an" if kind[0] in "aeiou" else "a"
    problems.add(
        Code.INVALID_NAME,
        path,
        f"{format_value(name)} is not a valid name for {article} {kind}",
        NAME_FIX,
        at_value=at_value,
        at_key=not at_value,
    )
    return False


def find_expression_words(value: Any) -> set[str]:
    """Find the names in all expressions of a value, including keys such as `$activation` in `- $activation: {...}`."""
    words: set[str] = set()
    queue = [value]
    for each in queue:
        if isinstance(each, dict):
            queue += [*each, *each.values()]
        elif isinstance(each, list):
            queue += each
        elif isinstance(each, str) and "$" in each:
            words |= expression_parsing.find_words_after_dollar(each)
    return words


def is_undetermined(value: Any) -> bool:
    """Whether a value is null, not known yet, or an expression, so that it can't be checked here."""
    return value is None or isinstance(value, UnknownValue) or expression_parsing.extract_expression(value) is not None


# ---- reading them ----------------------------------------------------------------------------------------------------


def read_entries(entries: Collection[tuple[Any, Any]], path: KeyPath, problems: Problems) -> tuple[Entry, ...]:
    """Read the entries of a list or mapping; those that are not valid are reported and left out.

    Args:
        entries: Pairs of index or key, and the entry as written.
        path: Path of the list or mapping.
        problems: Collects what is wrong.
    """
    read = [read_entry(str(key), each, (*path, key), problems) for key, each in entries]
    return tuple(each for each in read if each is not None)


def read_entry(key: str, raw: Any, path: KeyPath, problems: Problems) -> Entry | None:
    """Read one entry.

    Args:
        key: Its index in a list or key in a mapping; '' if it is written instead of a list.
        raw: The entry as written.
        path: Its path.
        problems: Collects what is wrong.

    Returns:
        The entry, or None if it names no layer.
    """
    part = _read_share(raw, path, problems)
    part = part or parse_part(raw, path, problems, kind="layer", is_entry=True)
    if part is None:
        return None
    _check_entry_keys(part, problems)
    repeat = part.keys.get("repeat")
    words = frozenset(find_expression_words(raw)) if isinstance(repeat, dict | list) else frozenset()
    return read_container_bodies(Entry(key, path, part, words=words), problems)


def _read_share(raw: Any, path: KeyPath, problems: Problems) -> Part | None:
    """Read `{share: NAME}`, which reuses the module of another entry; None for other entries."""
    if not isinstance(raw, dict) or SHARE not in raw:
        return None
    others = [str(key) for key in raw if key not in ENTRY_KEYS]
    if others:
        found = f"'share' can't be combined with {others[0]}"
        problems.add(Code.CONFLICT, (*path, SHARE), found, "it reuses another entry's module: remove one of the two")
        return None
    for key in (each for each in ("tie", "parametrize", "layout", LENGTHS_OF) if each in raw):
        problems.add(
            Code.MISPLACED_KEY, (*path, key), f"'{key}' together with 'share'", "set it on the layer that is shared"
        )
    problems.names[path] = ((*path, SHARE), False)
    keys = dict(raw)
    return Part(SHARE, path, settings_path=path, keys=keys, key_paths={key: (*path, key) for key in keys})


def _check_entry_keys(part: Part, problems: Problems) -> None:
    if SHARE in part.keys and part.type != SHARE and part.path_of(SHARE) != (*part.path, SHARE):
        found = "'share' can't be combined with a layer"
        problems.add(
            Code.CONFLICT, part.path_of(SHARE), found, f"write only {{share: NAME}}, or remove 'share' from {part.type}"
        )
    for key in ("tie", "parametrize"):
        value = part.keys.get(key)
        if key in part.keys and not isinstance(value, str | UnknownValue):
            expected = "a layer's name" if key == "tie" else "weight_norm, spectral_norm or orthogonal"
            problems.add(
                Code.WRONG_VALUE,
                part.path_of(key),
                f"'{key}' must be {expected}, got {format_value(value)}",
                at_value=True,
            )
    layout = part.keys.get("layout")
    if layout is not None and not is_undetermined(layout) and layout not in LAYOUTS:
        problems.add(
            Code.UNKNOWN_CHOICE,
            part.path_of("layout"),
            f"unknown layout {format_value(layout)}",
            suggest(str(layout), LAYOUTS),
            at_value=True,
        )
    name = part.keys.get("name")
    if "name" in part.keys and not (isinstance(name, str) and "$" in name):
        check_name(name, part.path_of("name"), problems, at_value=True)
    if part.type in CONTAINERS:
        for key in ("tie", "parametrize", "layout", LENGTHS_OF):
            if key in part.keys:
                fix = "set it on a layer inside the container"
                problems.add(Code.MISPLACED_KEY, part.path_of(key), f"'{key}' is not allowed on {part.type}", fix)


def read_container_bodies(entry: Entry, problems: Problems) -> Entry:
    """Read the entries inside a container; return other entries unchanged."""
    part, allowed = entry.part, CONTAINERS.get(entry.part.type)
    if allowed is None:
        return entry
    settings, paths = _get_container_settings(part, allowed[0])
    for key in (each for each in settings if each not in allowed):
        fix = suggest(str(key), allowed)
        if str(key)[:1].isupper():
            fix = f"write its entries in a list: {part.type}: [{{{key}: ...}}]"
        elif part.type == "Parallel" and allowed[0] not in settings:
            fix = f"write its branches below 'branches:': Parallel: {{branches: {{{key}: ...}}}}"
        problems.add(Code.UNKNOWN_SETTING, (*part.settings_path, key), f"unknown setting '{key}'", fix)
    if allowed[0] not in settings:
        if all(key in allowed for key in settings):
            fix = f"write its entries in a list: {part.type}: [...]"
            fix = f"write {part.type}: {{{allowed[0]}: [...], {', '.join(settings)}: ...}}" if settings else fix
            problems.add(Code.MISSING_VALUE, part.settings_path, f"{part.type} needs '{allowed[0]}'", fix)
        return entry
    read = {key: settings[key] for key in settings if key in allowed}
    condition = read.get("shortcut")
    if isinstance(condition, dict) and IF_UNEQUAL in condition:
        path = paths["shortcut"]
        for key in (each for each in condition if each != IF_UNEQUAL):
            fix = f"write shortcut: {{{IF_UNEQUAL}: [...]}}"
            problems.add(Code.UNKNOWN_SETTING, (*path, key), f"unknown setting '{key}'", fix)
        del read["shortcut"]
        read[IF_UNEQUAL], paths = condition[IF_UNEQUAL], {**paths, IF_UNEQUAL: (*path, IF_UNEQUAL)}
    nested = {key: _read_nested_entries(key, each, paths[key], problems) for key, each in read.items()}
    bodies = {key: each for key, each in nested.items() if each is not None}
    rest = {key: each for key, each in read.items() if key not in bodies}
    return replace(entry, part=replace(part, settings=rest, value=NO_VALUE), bodies=bodies)


def _get_container_settings(part: Part, main_setting: str) -> tuple[Mapping[str, Any], Mapping[str, KeyPath]]:
    """Return a container's settings and the path of each. A single value sets `main_setting`."""
    if part.value is not NO_VALUE:
        return {main_setting: part.value}, {main_setting: part.settings_path}
    return part.settings, {key: part.path_of(key) for key in part.settings}


def _read_nested_entries(key: str, raw: Any, path: KeyPath, problems: Problems) -> tuple[Entry, ...] | None:
    """Read the entries in a container's setting; None if the setting does not contain entries."""
    if key == "stochastic_depth" or isinstance(raw, UnknownValue):
        return None
    if (key == "merge" and raw is None) or (key == "shortcut" and not isinstance(raw, list | dict)):
        return None
    if key == "branches":
        return _read_branches(raw, path, problems)
    if key == "merge" and isinstance(raw, str) and raw.lower() in _MERGE_ALIASES and raw != "Multiply":
        problems.add(
            Code.UNKNOWN_CHOICE,
            path,
            f"unknown merge '{raw}'",
            f"write merge: {_MERGE_ALIASES[raw.lower()]}",
            at_value=True,
        )
        return ()
    if key == "body" and raw == []:
        fix = "write the layers that the shortcut bypasses: Residual: [LayerNorm, ...]"
        problems.add(Code.MISSING_VALUE, path, "Residual has no entries", fix, at_value=True)
    return read_body(raw, path, problems)


# Names of merges in other libraries.
_MERGE_ALIASES = {"sum": "Add", "mul": "Multiply", "multiply": "Multiply", "cat": "Concat", "concatenate": "Concat"}
_MERGE_ALIASES |= {"none": "null, for multiple outputs"}


def read_body(raw: Any, path: KeyPath, problems: Problems) -> tuple[Entry, ...]:
    """Read a list of entries, or a single entry written instead of the list.

    Args:
        raw: The list or entry as written.
        path: Its path.
        problems: Collects what is wrong.
    """
    if isinstance(raw, list):
        return read_entries(list(enumerate(raw)), path, problems)
    entry = read_entry("", raw, path, problems)
    return () if entry is None else (entry,)


def _read_branches(raw: Any, path: KeyPath, problems: Problems) -> tuple[Entry, ...]:
    """Read the branches of a `Parallel`, each as one entry: a list of entries becomes a `Sequential`."""
    if not isinstance(raw, dict | list) or not raw:
        fix = "write each branch as an entry or a list of entries"
        problems.add(
            Code.WRONG_TYPE,
            path,
            f"'branches' must be a non-empty list or mapping, got {format_value(raw)}",
            fix,
            at_value=True,
        )
        return ()
    is_mapping = isinstance(raw, dict)
    items = [(str(key), each, (*path, key)) for key, each in (raw.items() if isinstance(raw, dict) else enumerate(raw))]
    for key, _, where in items if is_mapping else ():
        if check_name(key, where, problems, "branch") and key == "merge":
            problems.add(
                Code.INVALID_NAME,
                where,
                "'merge' can't name a branch: the layer that merges the branches has this name",
                "choose another name",
                at_key=True,
            )
    read = [_read_branch(*each, problems) for each in items]
    return tuple(each for each in read if each is not None)


def _read_branch(key: str, raw: Any, path: KeyPath, problems: Problems) -> Entry | None:
    if not isinstance(raw, list):
        return read_entry(key, raw, path, problems)
    entries = read_entries(list(enumerate(raw)), path, problems)
    return Entry(key, path, Part("Sequential", path, settings_path=path), {"layers": entries})
