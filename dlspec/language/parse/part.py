"""Parse the four ways to write a part.

ReLU                                    a name
{Conv2d: {out_channels: 32}}            a name and settings
{Linear: 10}                            a name and one value
{type: Adam, lr: 1e-3}                  flat
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, find_closest, format_value
from dlspec.language.entry_merging import ENTRY_KEYS as ENTRY_KEYS
from dlspec.language.entry_merging import is_entry_key
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.problems import Problems


class _NoValue:
    def __repr__(self) -> str:
        return "nothing"


NO_VALUE = _NoValue()


@dataclass(frozen=True)
class Part:
    """A layer, loss, optimizer, ... as written."""

    type: str
    path: KeyPath
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_path: KeyPath = ()
    value: Any = NO_VALUE  # the single value of `Linear: 10`
    keys: Mapping[str, Any] = field(default_factory=dict)  # of an entry: `name`, `from`, `repeat`, ...
    key_paths: Mapping[str, KeyPath] = field(default_factory=dict)
    is_flat: bool = False  # written as {type: NAME, ...}

    def path_of(self, setting: str) -> KeyPath:
        """Return the path of a setting or of an entry's key."""
        if setting in self.key_paths:
            return self.key_paths[setting]
        return (*self.settings_path, setting) if setting in self.settings else self.settings_path

    @property
    def path_of_name(self) -> KeyPath:
        """Path where the part's name is written."""
        return (*self.path, "type") if self.is_flat else self.path

    def __str__(self) -> str:
        return self.type


def parse_part(raw: Any, path: KeyPath, problems: Problems, *, kind: str, is_entry: bool = False) -> Part | None:
    """Parse a part.

    Args:
        raw: The part as written.
        path: Its path.
        problems: Collects what is wrong.
        kind: What sort of part it is, for messages: "layer", "loss", ...
        is_entry: Whether it is an entry of `layers`, which may have `name`, `from`, ...

    Returns:
        The part, or None if `raw` does not name one.
    """
    if isinstance(raw, UnknownValue):
        _report_unknown_name(raw, path, problems, kind)
        return None
    if isinstance(raw, str) and raw.strip():
        return _parse_name(raw.strip(), path, problems, kind)
    if not isinstance(raw, dict) or not raw:
        found = f"{format_value(raw)} is not a valid {kind}" if raw is not None else f"missing {kind}"
        problems.add(
            Code.MISSING_NAME if raw is None else Code.WRONG_TYPE,
            path,
            found,
            f"write {_with_article(kind)}'s name, or NAME: {{setting: value}}",
            at_value=True,
        )
        return None
    layer = str(raw.get("type", ""))
    keys = {key: value for key, value in raw.items() if is_entry and is_entry_key(key, layer)}
    rest = {key: value for key, value in raw.items() if key not in keys}
    if "type" in rest:
        return _parse_part_with_type(rest, path, keys, problems, kind)
    if len(rest) == 1:
        return _parse_part_named_by_key(rest, path, keys, problems, is_entry)
    _report_no_single_name(rest, path, keys, problems, kind)
    return None


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _report_unknown_name(raw: UnknownValue, path: KeyPath, problems: Problems, kind: str) -> None:
    if not isinstance(raw, InvalidValue):
        problems.add(
            Code.INVALID_NAME,
            path,
            f"{raw} is not a valid {kind} name",
            f"write {_with_article(kind)}'s name",
            at_value=True,
        )


def _parse_name(name: str, path: KeyPath, problems: Problems, kind: str) -> Part | None:
    problems.names[path] = (path, True)
    if name.replace("_", "a").replace("$", "a").replace(".", "a").isalnum() or name.startswith("$("):
        return Part(name, path, settings_path=path)
    problems.add(
        Code.INVALID_NAME,
        path,
        f"{format_value(name)} is not a valid {kind} name",
        _suggest_spelling(name, kind),
        at_value=True,
    )
    return None


def _suggest_spelling(name: str, kind: str) -> str:
    """Suggest how to write a name such as `nn.Linear(64, 10)` or `Linear 10`."""
    if " - " in name:
        return "write one entry per line, and align all '-' in one column"
    called = re.sub(r"^(torch\.)?(nn|optim)\.", "", name)
    word = re.match(r"\w*", called)[0]  # type: ignore[index]  # matches always
    rest = called[len(word) :].strip("(),: ")
    if re.fullmatch(r"[A-Z]\w*(, *[A-Z]\w*)+", name):
        return f"write separate entries: [{name}]"
    if not word or (rest and not word[0].isupper() and not rest.isdigit()):
        return f"write {_with_article(kind)}'s name, or NAME: {{setting: value}}"
    if not rest:
        return f"write '{word}'"
    return f"write '{word}: {rest if rest.isalnum() else '{setting: value}'}'"


def _parse_part_with_type(
    rest: dict[str, Any], path: KeyPath, keys: dict[str, Any], problems: Problems, kind: str
) -> Part | None:
    name = rest["type"]
    if isinstance(name, UnknownValue):
        _report_unknown_name(name, (*path, "type"), problems, kind)
        return None
    if not isinstance(name, str):
        problems.add(
            Code.INVALID_NAME,
            (*path, "type"),
            f"{format_value(name)} is not a valid {kind} name",
            f"write {_with_article(kind)}'s name",
            at_value=True,
        )
        return None
    problems.names[path] = problems.names[(*path, "type")] = ((*path, "type"), True)
    settings = {key: value for key, value in rest.items() if key != "type"}
    return Part(name, path, settings, path, keys=keys, key_paths=_make_key_paths(path, keys), is_flat=True)


def _parse_part_named_by_key(
    only: dict[str, Any], path: KeyPath, keys: dict[str, Any], problems: Problems, is_entry: bool
) -> Part | None:
    """Parse a part written as `NAME: settings` or `NAME: value`."""
    ((name, inner),) = only.items()
    settings_path = (*path, name)
    problems.names[path] = (settings_path, False)
    paths_beside = _make_key_paths(path, keys)
    if not isinstance(inner, dict):
        value = NO_VALUE if inner is None else inner
        return Part(name, path, settings_path=settings_path, value=value, keys=keys, key_paths=paths_beside)
    keys_inside = {key: value for key, value in inner.items() if is_entry and is_entry_key(key, name)}
    for key in (each for each in keys_inside if each in keys):
        problems.add(
            Code.DUPLICATE_KEY,
            (*settings_path, key),
            f"'{key}' is written both next to {name} and in its settings",
            "keep one",
        )
    settings = {key: value for key, value in inner.items() if key not in keys_inside}
    paths = {**paths_beside, **_make_key_paths(settings_path, keys_inside)}
    return Part(name, path, settings, settings_path, keys={**keys, **keys_inside}, key_paths=paths)


def _make_key_paths(path: KeyPath, keys: Mapping[str, Any]) -> dict[str, KeyPath]:
    return {key: (*path, key) for key in keys}


def _report_no_single_name(
    rest: dict[str, Any], path: KeyPath, keys: dict[str, Any], problems: Problems, kind: str
) -> None:
    if not rest:
        problems.add(
            Code.MISSING_NAME,
            path,
            f"missing {kind} name",
            f"add {_with_article(kind)}'s name next to {', '.join(map(repr, map(str, keys)))}",
            at_value=True,
        )
        return
    first, second, *_ = (str(key) for key in rest)
    if any(str(each).count("(") > str(each).count(")") for each in rest.values()):
        fix = f'YAML split it at a comma: put quotes around the expression, {first}: "..."'
        problems.add(Code.FORMULA_SYNTAX, path, f"missing ')' in {format_value(rest[first])}", fix, at_value=True)
        return
    found = f"expected one {kind} name, got {len(rest)} keys: {', '.join(str(key) for key in rest)}"
    fix = f"write it as a setting: {first}: {{{second}: ...}}"
    key = find_closest(second, ENTRY_KEYS) if kind == "layer" else ""
    if key:
        fix = f"did you mean '{key}'?"
    elif second == "else":
        fix = "write the other layer as a separate entry with the opposite condition, if: $(not ...)"
    elif isinstance(rest[first], list):
        fix = f"write both below the name: {first}: {{body: [...], {second}: ...}}"
    elif second[:1].isupper():
        fix = f"write one {kind} per entry: {first} in one, {second} in the next"
    problems.add(Code.AMBIGUOUS, (*path, second), found, fix)
