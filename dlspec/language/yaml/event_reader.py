"""Makes plain values of a YAML parser's events, with the place of each: no tags, one document, nothing endless."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.entries import merged_keys
from dlspec.language.yaml import yaml_mistakes
from dlspec.limits import how_to_raise, limit

MAX_REFERENCES = 100  # in one text
_NESTED = re.compile(r"\$\{[^}]*\$\{")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
# With a point or an exponent: '007' is a text, as no two readers of YAML agree on what number it is.
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def scalar(text: str) -> Any:
    """The value of a plain scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text) if len(text) < 400 else text
    return float(text) if _FLOAT.match(text) else text


@dataclass(frozen=True)
class Source:
    """A text by its name, and its lines."""

    name: str
    lines: list[str]

    def place(self, event: yaml.Event, width: int = 0) -> SourceLocation:
        """Where an event begins, as wide as it is if no width is given."""
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return SourceLocation(self.name, mark.line + 1, mark.column + 1, text, width or _width(event))

    def problem_at(self, line: int, column: int, width: int, found: str, fix: str) -> Problem:
        """A mistake in the syntax; lines and columns count from 0."""
        place = SourceLocation(self.name, line + 1, column + 1, self.lines[line], width)
        return Problem(Code.YAML_SYNTAX, "", found, fix, place)


class _Anchors:
    """What anchors stand for, and how many values there are, what aliases repeat counted each time."""

    def __init__(self, source: Source) -> None:
        self._source, self._most = source, limit("values")
        self._values: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def count(self, nodes: int) -> None:
        """Adds so many values; raises `SpecError` beyond the limit."""
        self._count += nodes
        if self._count > self._most:
            found = f"more than {self._most:,} values (aliases counted)"
            fix = f"make the file smaller; {how_to_raise('values')}"
            raise error_at(Code.TOO_LARGE, SourceLocation(self._source.name), found, fix)

    def find(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        """The value that an alias repeats, and how many it holds."""
        if event.anchor not in self._values:
            fix = f"write &{event.anchor} before what it stands for, or quotes around a text that begins with *"
            found = f"no anchor '&{event.anchor}' above this alias"
            raise error_at(Code.UNKNOWN_ANCHOR, self._source.place(event), found, fix)
        return self._values[event.anchor]

    def keep(self, anchor: str | None, value: Any, nodes: int) -> None:
        """A value that is complete, where it has an anchor."""
        if anchor is not None:
            self._values[anchor] = (value, nodes)


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: dict[Any, Any] | list[Any]
    path: KeyPath
    nodes: int = 1
    anchor: str | None = None
    key: str = ""
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


class EventReader:
    """Makes values of a parser's events, given one by one, and keeps the place of each."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.tree: Any = None
        self.keys: dict[KeyPath, SourceLocation] = {}
        self.values: dict[KeyPath, SourceLocation] = {}
        self._stack: list[_Open] = []
        self._anchors = _Anchors(source)
        self._documents = 0
        self._deepest = limit("nesting")

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
            raise error_at(
                Code.YAML_FEATURE, self._source.place(event), "a second document ('---')", "write one document a file"
            )

    def _take_node(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "tag:yaml.org,2002:str":
            written = tag.replace("tag:yaml.org,2002:", "!!")
            fix = "a spec is plain data: remove the tag, or put quotes around text that begins with !"
            raise error_at(Code.YAML_FEATURE, self._source.place(event), f"a tag '{written}'", fix)
        if isinstance(event, yaml.AliasEvent):
            value, nodes = self._anchors.find(event)
            self._anchors.count(nodes)
            self._add(value, event, nodes)
        elif isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and event.tag is None
            value = scalar(event.value) if is_plain else event.value
            if is_plain:
                self._check_word(event)
            if "${" in event.value:
                _check_references(event, self._source.place(event))
            self._anchors.keep(event.anchor, value, 1)
            self._anchors.count(1)
            self._add(value, event, 1)
        else:
            self._anchors.count(1)
            self._open(event)

    def _check_word(self, event: yaml.ScalarEvent) -> None:
        """What YAML takes for a word, and the writer hardly meant so: `-Flatten`, `{epochs:3}`, `Conv2d {...}`."""
        parent = self._stack[-1] if self._stack else None
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        told = None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            told = yaml_mistakes.name_with_brackets(self._source.problem_at, mark.line, mark.column, event.value)
        elif parent is not None and parent.has_key and event.value == "":
            told = self._glued_key((*parent.path, parent.key))
        elif event.value.startswith("-") and not self._source.lines[mark.line][: mark.column].strip():
            told = yaml_mistakes.glued(self._source.problem_at, mark.line, mark.column, event.value)
        if told is not None:
            raise SpecError([told])

    def _glued_key(self, path: KeyPath) -> Problem | None:
        """`{epochs:3}` is a key without a value: behind it stands no ':'."""
        place, key = self.keys[path], str(path[-1])
        if place.text[place.column - 1 + place.width :].lstrip().startswith(":"):
            return None
        return yaml_mistakes.glued(self._source.problem_at, place.line - 1, place.column - 1, key)

    def _open(self, event: yaml.NodeEvent) -> None:
        if len(self._stack) >= self._deepest:
            fix = f"use blocks or fewer levels; {how_to_raise('nesting')}"
            raise error_at(Code.TOO_LARGE, self._source.place(event), f"nested more than {self._deepest} deep", fix)
        value: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._next_path(event)
        self.values[path] = self._source.place(event, width=1)
        self._stack.append(_Open(value, path, anchor=event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            assert isinstance(done.value, dict)  # only mappings have merges
            done.value = {**merged_keys(merged, done.value, done.path), **done.value}
        self._anchors.keep(done.anchor, done.value, done.nodes)
        self._put(done.value, done.nodes)

    def _next_path(self, event: yaml.Event) -> KeyPath:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            path = (*parent.path, len(parent.value))
            self.keys[path] = self._source.place(event)
            return path
        if not parent.has_key:
            raise error_at(
                Code.YAML_FEATURE, self._source.place(event), "a list or mapping as a key", "a key is a word"
            )
        return (*parent.path, parent.key)

    def _add(self, value: Any, event: yaml.Event, nodes: int) -> None:
        """A value that is complete: a key, or what stands behind one, or a list's item."""
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            self._take_key(parent, value, event)
            return
        self.values[self._next_path(event)] = self._source.place(event)
        self._put(value, nodes)

    def _take_key(self, parent: _Open, key: Any, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise error_at(Code.YAML_FEATURE, self._source.place(event), "an alias as a key", "write the key itself")
        key = key if isinstance(key, str) else _source_text(event)
        path = (*parent.path, key)
        if path in self.keys and key != "<<":
            first = self.keys[path].line
            raise error_at(
                Code.DUPLICATE_KEY,
                self._source.place(event),
                f"'{key}' stands twice",
                f"it stands in line {first} already: keep one",
            )
        self.keys[path] = self._source.place(event)
        parent.key, parent.has_key = key, True

    def _put(self, value: Any, nodes: int) -> None:
        if not self._stack:
            self.tree = value
            return
        parent = self._stack[-1]
        parent.nodes += nodes
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key == "<<":
            parent.merges += self._mappings(value, parent)
            parent.has_key = False
        else:
            parent.value[parent.key] = value
            parent.has_key = False

    def _mappings(self, value: Any, parent: _Open) -> list[dict[Any, Any]]:
        """What stands behind '<<': one mapping, or a list of them."""
        merged = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in merged):
            raise error_at(
                Code.YAML_FEATURE, self.values[(*parent.path, "<<")], "'<<' merges mappings alone", "write <<: *NAME"
            )
        return merged


def _check_references(event: yaml.ScalarEvent, place: SourceLocation) -> None:
    """Hydra reads every `${...}` before dlspec does, and takes long for very many, or for one in the other."""
    if _NESTED.search(event.value):
        raise error_at(Code.REFERENCE_SYNTAX, place, "'${' within '${'", "write ${KEY}, with one key inside")
    if event.value.count("${") > MAX_REFERENCES:
        raise error_at(Code.TOO_LARGE, place, f"more than {MAX_REFERENCES} '${{' in one text", "make it shorter")


def _source_text(event: yaml.Event) -> str:
    return str(event.value) if isinstance(event, yaml.ScalarEvent) else ""


def _width(event: yaml.Event) -> int:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None
    return max(1, end.column - start.column) if start.line == end.line else 1


def error_at(code: Code, place: SourceLocation, found: str, fix: str) -> SpecError:
    """What is wrong at a place, to be raised."""
    return SpecError([Problem(code, "", found, fix, place)])
