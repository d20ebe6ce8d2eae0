"""Build plain values from a YAML parser's events and keep the location of each.

Refuses tags, a second document and anything beyond the limits on size and nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.entry_merging import select_merged_keys
from dlspec.language.yaml import syntax_problems
from dlspec.limits import explain_raising_limit, get_limit

MAX_REFERENCES_PER_STRING = 100  # Hydra resolves them slowly
_NESTED_REFERENCE = re.compile(r"\$\{[^}]*\$\{")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
# Needs a decimal point or an exponent: '007' stays a string, because YAML parsers disagree on which number it is.
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")
_SPECIAL_SCALARS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def parse_scalar(text: str) -> Any:
    """Convert an unquoted scalar to a value by YAML 1.2's core schema."""
    if text in _SPECIAL_SCALARS:
        return _SPECIAL_SCALARS[text]
    if _INT.match(text):
        return int(text) if len(text) < 400 else text
    return float(text) if _FLOAT.match(text) else text


@dataclass(frozen=True)
class SourceText:
    """A YAML text: its name in messages, such as a file, and its lines."""

    name: str
    lines: list[str]

    def location_of(self, event: yaml.Event, width: int = 0) -> SourceLocation:
        """Location of the start of an event, as wide as the event if no width is given."""
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return SourceLocation(self.name, mark.line + 1, mark.column + 1, text, width or _measure_width(event))

    def problem_at(self, line: int, column: int, width: int, found: str, fix: str) -> Problem:
        """Make a problem about YAML syntax.

        Args:
            line: Line, counted from 0.
            column: Column, counted from 0.
            width: Number of characters to mark.
            found: What is wrong.
            fix: What the user can write instead.
        """
        location = SourceLocation(self.name, line + 1, column + 1, self.lines[line], width)
        return Problem(Code.YAML_SYNTAX, "", found, fix, location)


class _AnchoredValues:
    """Values of the anchors, and a count of all values that includes those an alias repeats."""

    def __init__(self, source: SourceText) -> None:
        self._source, self._max_values = source, get_limit("values")
        self._anchored_values: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def count(self, nodes: int) -> None:
        """Add to the number of values; raise `SpecError` beyond the limit."""
        self._count += nodes
        if self._count > self._max_values:
            found = f"more than {self._max_values:,} values (including those repeated by aliases)"
            fix = f"make the file smaller; {explain_raising_limit('values')}"
            raise make_error_at(Code.TOO_LARGE, SourceLocation(self._source.name), found, fix)

    def find(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        """Return the value that an alias repeats, and how many values it contains."""
        if event.anchor not in self._anchored_values:
            fix = f"write &{event.anchor} before the value it names, or put quotes around text that begins with *"
            found = f"no anchor '&{event.anchor}' is defined above this alias"
            raise make_error_at(Code.UNKNOWN_ANCHOR, self._source.location_of(event), found, fix)
        return self._anchored_values[event.anchor]

    def keep(self, anchor: str | None, value: Any, nodes: int) -> None:
        """Remember a complete value if it has an anchor."""
        if anchor is not None:
            self._anchored_values[anchor] = (value, nodes)


@dataclass
class _OpenCollection:
    """A mapping or list whose end has not been read yet."""

    value: dict[Any, Any] | list[Any]
    path: KeyPath
    nodes: int = 1  # number of values in it, itself included
    anchor: str | None = None
    key: str = ""  # in a mapping: the key read last
    has_key: bool = False  # in a mapping: `key` waits for its value
    merged_mappings: list[Any] = field(default_factory=list)  # mappings given by '<<'


class EventReader:
    """Builds values from a parser's events, given one by one, and keeps the location of each key and value."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self.tree: Any = None
        self.keys: dict[KeyPath, SourceLocation] = {}
        self.values: dict[KeyPath, SourceLocation] = {}
        self._stack: list[_OpenCollection] = []
        self._anchors = _AnchoredValues(source)
        self._documents = 0
        self._max_depth = get_limit("nesting")

    def read_event(self, event: yaml.Event) -> None:
        """Process the parser's next event; raise `SpecError` if a spec may not contain it."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._count_document(event)
        elif isinstance(event, yaml.NodeEvent):
            self._read_node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close_collection()

    def _count_document(self, event: yaml.Event) -> None:
        self._documents += 1
        if self._documents > 1:
            raise make_error_at(
                Code.YAML_FEATURE,
                self._source.location_of(event),
                "a second YAML document starts here ('---')",
                "write one document per file",
            )

    def _read_node(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "tag:yaml.org,2002:str":
            written = tag.replace("tag:yaml.org,2002:", "!!")
            fix = "remove the tag, or put quotes around text that begins with !"
            raise make_error_at(
                Code.YAML_FEATURE, self._source.location_of(event), f"YAML tags are not allowed: '{written}'", fix
            )
        if isinstance(event, yaml.AliasEvent):
            value, nodes = self._anchors.find(event)
            self._anchors.count(nodes)
            self._add_complete_value(value, event, nodes)
        elif isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and event.tag is None
            value = parse_scalar(event.value) if is_plain else event.value
            if is_plain:
                self._check_plain_scalar(event)
            if "${" in event.value:
                _check_references(event, self._source.location_of(event))
            self._anchors.keep(event.anchor, value, 1)
            self._anchors.count(1)
            self._add_complete_value(value, event, 1)
        else:
            self._anchors.count(1)
            self._open_collection(event)

    def _check_plain_scalar(self, event: yaml.ScalarEvent) -> None:
        """Refuse strings that the user probably did not mean as such: `-Flatten`, `{epochs:3}`, `Conv2d {...}`."""
        parent = self._stack[-1] if self._stack else None
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        problem = None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            problem = syntax_problems.check_name_before_bracket(
                self._source.problem_at, mark.line, mark.column, event.value
            )
        elif parent is not None and parent.has_key and event.value == "":
            problem = self._find_missing_space((*parent.path, parent.key))
        elif event.value.startswith("-") and not self._source.lines[mark.line][: mark.column].strip():
            problem = syntax_problems.check_missing_space(self._source.problem_at, mark.line, mark.column, event.value)
        if problem is not None:
            raise SpecError([problem])

    def _find_missing_space(self, path: KeyPath) -> Problem | None:
        """Detect the missing space of `{epochs:3}`, which YAML reads as the key 'epochs:3' without a value."""
        location, key = self.keys[path], str(path[-1])
        if location.text[location.column - 1 + location.width :].lstrip().startswith(":"):
            return None
        return syntax_problems.check_missing_space(self._source.problem_at, location.line - 1, location.column - 1, key)

    def _open_collection(self, event: yaml.NodeEvent) -> None:
        if len(self._stack) >= self._max_depth:
            fix = f"use blocks or fewer levels; {explain_raising_limit('nesting')}"
            raise make_error_at(
                Code.TOO_LARGE, self._source.location_of(event), f"nested more than {self._max_depth} levels deep", fix
            )
        value: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._next_path(event)
        self.values[path] = self._source.location_of(event, width=1)
        self._stack.append(_OpenCollection(value, path, anchor=event.anchor))

    def _close_collection(self) -> None:
        closed = self._stack.pop()
        for merged in closed.merged_mappings:
            assert isinstance(closed.value, dict)  # only mappings have merges
            closed.value = {**select_merged_keys(merged, closed.value, closed.path), **closed.value}
        self._anchors.keep(closed.anchor, closed.value, closed.nodes)
        self._store_in_parent(closed.value, closed.nodes)

    def _next_path(self, event: yaml.Event) -> KeyPath:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            path = (*parent.path, len(parent.value))
            self.keys[path] = self._source.location_of(event)
            return path
        if not parent.has_key:
            raise make_error_at(
                Code.YAML_FEATURE,
                self._source.location_of(event),
                "a list or mapping is used as a key",
                "write a name as the key",
            )
        return (*parent.path, parent.key)

    def _add_complete_value(self, value: Any, event: yaml.Event, nodes: int) -> None:
        """Add a complete value to its parent: as a key, as the value of a key, or as an item of a list."""
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            self._read_key(parent, value, event)
            return
        self.values[self._next_path(event)] = self._source.location_of(event)
        self._store_in_parent(value, nodes)

    def _read_key(self, parent: _OpenCollection, key: Any, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise make_error_at(
                Code.YAML_FEATURE, self._source.location_of(event), "an alias is used as a key", "write the key itself"
            )
        key = key if isinstance(key, str) else _get_scalar_text(event)
        path = (*parent.path, key)
        if path in self.keys and key != "<<":
            first = self.keys[path].line
            raise make_error_at(
                Code.DUPLICATE_KEY,
                self._source.location_of(event),
                f"duplicate key '{key}'",
                f"it is already in line {first}: keep one of the two",
            )
        self.keys[path] = self._source.location_of(event)
        parent.key, parent.has_key = key, True

    def _store_in_parent(self, value: Any, nodes: int) -> None:
        if not self._stack:
            self.tree = value
            return
        parent = self._stack[-1]
        parent.nodes += nodes
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key == "<<":
            parent.merged_mappings += self._list_merged_mappings(value, parent)
            parent.has_key = False
        else:
            parent.value[parent.key] = value
            parent.has_key = False

    def _list_merged_mappings(self, value: Any, parent: _OpenCollection) -> list[dict[Any, Any]]:
        """Return the mappings that a '<<' merges, given as one mapping or a list of them."""
        merged = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in merged):
            raise make_error_at(
                Code.YAML_FEATURE, self.values[(*parent.path, "<<")], "'<<' can merge only mappings", "write <<: *NAME"
            )
        return merged


def _check_references(event: yaml.ScalarEvent, location: SourceLocation) -> None:
    """Refuse strings with very many or nested references: Hydra, which reads them first, takes too long for them."""
    if _NESTED_REFERENCE.search(event.value):
        raise make_error_at(
            Code.REFERENCE_SYNTAX, location, "'${' inside '${...}'", "write ${KEY}, with one key inside"
        )
    if event.value.count("${") > MAX_REFERENCES_PER_STRING:
        raise make_error_at(
            Code.TOO_LARGE, location, f"more than {MAX_REFERENCES_PER_STRING} '${{' in one string", "make it shorter"
        )


def _get_scalar_text(event: yaml.Event) -> str:
    return str(event.value) if isinstance(event, yaml.ScalarEvent) else ""


def _measure_width(event: yaml.Event) -> int:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None
    return max(1, end.column - start.column) if start.line == end.line else 1


def make_error_at(code: Code, location: SourceLocation, found: str, fix: str) -> SpecError:
    """Make an exception with one problem at a location.

    Args:
        code: Kind of problem.
        location: Where it is.
        found: What is wrong.
        fix: What the user can write instead.

    Returns:
        The exception, for the caller to raise.
    """
    return SpecError([Problem(code, "", found, fix, location)])
