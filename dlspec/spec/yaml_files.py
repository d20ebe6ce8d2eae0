"""Reads a YAML file into plain values and the place of each, without ever running or trusting it.

The parser's events are consumed one by one, so a file that nests without end, repeats itself through aliases or
carries a tag is refused before anything is built from it. Scalars follow YAML 1.2's core schema: `1e-3` is a number,
while `on`, `yes` and `3:30` stay the text that was written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dlspec.errors import Place, Problem, SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 100
MAX_NODES = 100_000

KeyPath = tuple[Hashable, ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True)
class Document:
    """A file's values, and where each key and each value stands in it."""

    tree: Any
    keys: Mapping[KeyPath, Place] = field(default_factory=dict)
    values: Mapping[KeyPath, Place] = field(default_factory=dict)

    def without(self, tops: Collection[str]) -> Document:
        """The document less some top-level keys."""
        keys = {path: place for path, place in self.keys.items() if path[0] not in tops}
        values = {path: place for path, place in self.values.items() if not path or path[0] not in tops}
        return Document(self.tree, keys, values)


def load_file(path: Path, shown_as: str = "") -> Document:
    """The document in `path`; raises `SpecError` with the place for whatever is not plain, small YAML."""
    name = shown_as or display_name(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _error(Place(name), f"the file has {size:,} bytes", f"a spec may have {MAX_BYTES:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _error(Place(name), f"not UTF-8 (byte {error.start})", "save the file as UTF-8") from None
    return load_text(text, name)


def display_name(path: Path) -> str:
    """The path as a user would write it: relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def load_text(text: str, name: str) -> Document:
    """As `load_file`, of text; `name` stands in every place."""
    reader = _Reader(name, text.splitlines())
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(name, reader.lines, error) from None
    except yaml.reader.ReaderError as error:
        raise _error(Place(name), f"a character that YAML does not allow (position {error.position})", "") from None
    return Document(reader.tree, reader.keys, reader.values)


def scalar(text: str) -> Any:
    """The value of a plain scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text) if len(text) < 400 else text
    return float(text) if _FLOAT.match(text) else text


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: dict[Any, Any] | list[Any]
    path: KeyPath
    nodes: int = 1
    anchor: str | None = None
    key: Any = None
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


class _Reader:
    def __init__(self, name: str, lines: list[str]) -> None:
        self.name, self.lines = name, lines
        self.tree: Any = None
        self.keys: dict[KeyPath, Place] = {}
        self.values: dict[KeyPath, Place] = {}
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._count_document(event)
        elif isinstance(event, yaml.NodeEvent):
            self._take_node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def _count_document(self, event: yaml.Event) -> None:
        self._documents += 1
        if self._documents > 1:
            raise _error(self._place(event), "a second document ('---')", "write one document a file")

    def _take_node(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "tag:yaml.org,2002:str":
            raise _error(self._place(event), f"a tag '{tag}'", "a spec is plain data: remove the tag")
        if isinstance(event, yaml.AliasEvent):
            value, nodes = self._anchor(event)
            self._add(value, event, nodes)
        elif isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and event.tag is None
            value = scalar(event.value) if is_plain else event.value
            self._remember(event.anchor, value, 1)
            self._add(value, event, 1)
        else:
            self._open(event)

    def _anchor(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        if event.anchor not in self._anchors:
            raise _error(self._place(event), f"an alias '*{event.anchor}' before its anchor", "define '&' first")
        return self._anchors[event.anchor]

    def _remember(self, anchor: str | None, value: Any, nodes: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, nodes)

    def _open(self, event: yaml.NodeEvent) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _error(self._place(event), f"nested more than {MAX_DEPTH} deep", "use blocks or fewer levels")
        value: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._next_path(event)
        self._mark_value(path, event, width=1)
        self._stack.append(_Open(value, path, anchor=event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            for key, value in merged.items():
                done.value.setdefault(key, value)  # type: ignore[union-attr]  # only mappings have merges
        self._remember(done.anchor, done.value, done.nodes)
        self._put(done.value, done.nodes)

    def _next_path(self, event: yaml.Event) -> KeyPath:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            path = (*parent.path, len(parent.value))
            self.keys[path] = self._place(event)
            return path
        if not parent.has_key:
            raise _error(self._place(event), "a list or mapping as a key", "a key is a word")
        return (*parent.path, parent.key)

    def _add(self, value: Any, event: yaml.Event, nodes: int) -> None:
        """A value that is complete: a key, or what stands behind one, or a list's item."""
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            self._take_key(parent, value, event)
            return
        self._mark_value(self._next_path(event), event, _width(event))
        self._put(value, nodes)

    def _take_key(self, parent: _Open, key: Any, event: yaml.Event) -> None:
        key = key if isinstance(key, str) else _source_text(event)
        path = (*parent.path, key)
        if path in self.keys and key != "<<":
            first = self.keys[path].line
            raise _error(self._place(event), f"'{key}' stands twice", f"it stands in line {first} already: keep one")
        self.keys[path] = self._place(event)
        parent.key, parent.has_key = key, True

    def _put(self, value: Any, nodes: int) -> None:
        self._nodes += nodes if nodes > 1 and not isinstance(value, str) else 1
        if self._nodes > MAX_NODES:
            raise _error(Place(self.name), f"more than {MAX_NODES:,} values (aliases counted)", "make the file smaller")
        if not self._stack:
            self.tree = value
            return
        parent = self._stack[-1]
        parent.nodes += nodes
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key == "<<":
            parent.merges += [each for each in _as_list(value) if isinstance(each, dict)]
            parent.has_key = False
        else:
            parent.value[parent.key] = value
            parent.has_key = False

    def _mark_value(self, path: KeyPath, event: yaml.Event, width: int) -> None:
        self.values[path] = self._place(event, width)

    def _place(self, event: yaml.Event, width: int = 0) -> Place:
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.name, mark.line + 1, mark.column + 1, text, width or _width(event))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _source_text(event: yaml.Event) -> str:
    return str(event.value) if isinstance(event, yaml.ScalarEvent) else ""


def _width(event: yaml.Event) -> int:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None
    return max(1, end.column - start.column) if start.line == end.line else 1


def _error(place: Place, found: str, fix: str) -> SpecError:
    return SpecError([Problem("", found, fix, place)])


# What YAML says, as its parser words it, and what the writer most likely did.
_HINTS: tuple[tuple[str, str], ...] = (
    ("'\\t' that cannot start", "indent with spaces, not with a tab"),
    (
        "did not find expected ',' or",
        "close the bracket, and put quotes around '${...}' or a '$(...)' within { } or [ ]",
    ),
    ("mapping values are not allowed", "a second ':' in one line wants quotes, or a line of its own"),
    ("did not find expected key", "check the indentation: keys of one mapping start in one column"),
    ("could not find expected ':'", "a key wants a ':' behind it"),
    ("did not find expected '-'", "check the indentation: the items of a list start in one column"),
    ("found character that cannot start any token", "indent with spaces, and quote text that starts with @ ` or %"),
    ("while scanning a quoted scalar", "close the quote"),
)


def _yaml_error(name: str, lines: list[str], error: yaml.MarkedYAMLError) -> SpecError:
    mark = error.problem_mark or error.context_mark
    found = str(error.problem or error.context or "not YAML")
    place = Place(name)
    if mark is not None:
        text = lines[mark.line] if mark.line < len(lines) else ""
        place = Place(name, mark.line + 1, mark.column + 1, text)
    return _error(place, f"not YAML: {found}", _hint(found, str(error.context), place.text))


def _hint(problem: str, context: str, text: str) -> str:
    if "\t" in text[: len(text) - len(text.lstrip())]:
        return "indent with spaces, not with a tab"
    hints: Iterable[str] = (hint for sign, hint in _HINTS if sign in problem or sign in context)
    return next(iter(hints), "")
