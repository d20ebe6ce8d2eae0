"""Reads a YAML file into plain values and the place of each, without ever running or trusting it.

The parser's events are consumed one by one, so a file that nests without end, repeats itself through aliases or
carries a tag is refused before anything is built from it. Scalars follow YAML 1.2's core schema: `1e-3` is a number,
while `on`, `yes` and `3:30` stay the text that was written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError
from dlspec.language.entries import merged_keys
from dlspec.language.yaml import yaml_mistakes
from dlspec.limits import how_to_raise, limit

PACKAGE = Path(__file__).parents[2]
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


@dataclass(frozen=True)
class Document:
    """A file's values, and where each key and each value stands in it."""

    tree: Any
    keys: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)
    values: Mapping[KeyPath, SourceLocation] = field(default_factory=dict)

    def without(self, tops: Collection[str]) -> Document:
        """The document less some top-level keys."""
        keys = {path: place for path, place in self.keys.items() if path[0] not in tops}
        values = {path: place for path, place in self.values.items() if not path or path[0] not in tops}
        return Document(self.tree, keys, values)


def load_file(path: Path, shown_as: str = "") -> Document:
    """The document in `path`; raises `SpecError` with the place for whatever is not plain, small YAML."""
    name = shown_as or display_name(path)
    try:
        size = path.stat().st_size
        if size > limit("file_bytes"):
            fix = f"a spec may have {limit('file_bytes'):,}; {how_to_raise('file_bytes')}"
            raise _error(Code.TOO_LARGE, SourceLocation(name), f"the file has {size:,} bytes", fix)
        return load_text(path.read_text(encoding="utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise _error(
            Code.FILE_UNREADABLE, SourceLocation(name), f"not UTF-8 (byte {error.start})", "save the file as UTF-8"
        ) from None
    except OSError as error:
        raise _error(
            Code.FILE_UNREADABLE, SourceLocation(name), f"the file can't be read: {error.strerror}", ""
        ) from None


def display_name(path: Path) -> str:
    """The path as a user would write it: relative where it lies below the working directory or in dlspec's conf/."""
    here, packaged = Path.cwd(), packaged_conf()
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return f"dlspec's conf/{path.relative_to(packaged)}" if path.is_relative_to(packaged) else str(path)


def packaged_conf() -> Path:
    """dlspec's own conf/: within the package where it was installed, beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def load_text(text: str, name: str) -> Document:
    """As `load_file`, of text; `name` stands in every place."""
    reader = _Reader(name, text.splitlines())
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        raise SpecError([yaml_mistakes.problem(name, reader.lines, error)]) from None
    except yaml.reader.ReaderError as error:
        raise _error(Code.YAML_SYNTAX, *_strange_character(name, text, error.position)) from None
    return Document(reader.tree, reader.keys, reader.values)


def _strange_character(name: str, text: str, position: int) -> tuple[SourceLocation, str, str]:
    """`position` counts bytes, as the parser does."""
    before = text.encode()[:position].decode(errors="ignore")
    place = SourceLocation(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return place, f"a character that YAML does not allow ({text[len(before)]!r})", "remove it"


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
    key: str = ""
    has_key: bool = False
    merges: list[Any] = field(default_factory=list)


MOST_REFERENCES = 100
_NESTED = re.compile(r"\$\{[^}]*\$\{")


class _Reader:
    def __init__(self, name: str, lines: list[str]) -> None:
        self.name, self.lines = name, lines
        self.tree: Any = None
        self.keys: dict[KeyPath, SourceLocation] = {}
        self.values: dict[KeyPath, SourceLocation] = {}
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0
        self._documents = 0
        self._most, self._deepest = limit("values"), limit("nesting")

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
            raise _error(
                Code.YAML_FEATURE, self._place(event), "a second document ('---')", "write one document a file"
            )

    def _take_node(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "tag:yaml.org,2002:str":
            written = tag.replace("tag:yaml.org,2002:", "!!")
            fix = "a spec is plain data: remove the tag, or put quotes around text that begins with !"
            raise _error(Code.YAML_FEATURE, self._place(event), f"a tag '{written}'", fix)
        if isinstance(event, yaml.AliasEvent):
            value, nodes = self._anchor(event)
            self._count(nodes)
            self._add(value, event, nodes)
        elif isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and event.tag is None
            value = scalar(event.value) if is_plain else event.value
            if is_plain:
                self._check_word(event)
            if "${" in event.value:
                self._check_references(event)
            self._remember(event.anchor, value, 1)
            self._count(1)
            self._add(value, event, 1)
        else:
            self._count(1)
            self._open(event)

    def _check_word(self, event: yaml.ScalarEvent) -> None:
        """What YAML takes for a word, and the writer hardly meant so: `-Flatten`, `{epochs:3}`, `Conv2d {...}`."""
        parent = self._stack[-1] if self._stack else None
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        told = None
        if parent is not None and isinstance(parent.value, dict) and not parent.has_key:
            told = yaml_mistakes.name_with_brackets(self._at, mark.line, mark.column, event.value)
        elif parent is not None and parent.has_key and event.value == "":
            told = self._glued_key((*parent.path, parent.key))
        elif event.value.startswith("-") and not self.lines[mark.line][: mark.column].strip():
            told = yaml_mistakes.glued(self._at, mark.line, mark.column, event.value)
        if told is not None:
            raise SpecError([told])

    def _check_references(self, event: yaml.ScalarEvent) -> None:
        """Hydra reads every `${...}` before dlspec does, and takes long for very many, or for one in the other."""
        if _NESTED.search(event.value):
            raise _error(
                Code.REFERENCE_SYNTAX, self._place(event), "'${' within '${'", "write ${KEY}, with one key inside"
            )
        if event.value.count("${") > MOST_REFERENCES:
            raise _error(
                Code.TOO_LARGE, self._place(event), f"more than {MOST_REFERENCES} '${{' in one text", "make it shorter"
            )

    def _glued_key(self, path: KeyPath) -> Problem | None:
        """`{epochs:3}` is a key without a value: behind it stands no ':'."""
        place, key = self.keys[path], str(path[-1])
        if place.text[place.column - 1 + place.width :].lstrip().startswith(":"):
            return None
        return yaml_mistakes.glued(self._at, place.line - 1, place.column - 1, key)

    def _at(self, line: int, column: int, width: int, found: str, fix: str) -> Problem:
        return Problem(
            Code.YAML_SYNTAX, "", found, fix, SourceLocation(self.name, line + 1, column + 1, self.lines[line], width)
        )

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > self._most:
            found = f"more than {self._most:,} values (aliases counted)"
            raise _error(
                Code.TOO_LARGE, SourceLocation(self.name), found, f"make the file smaller; {how_to_raise('values')}"
            )

    def _anchor(self, event: yaml.AliasEvent) -> tuple[Any, int]:
        if event.anchor not in self._anchors:
            fix = f"write &{event.anchor} before what it stands for, or quotes around a text that begins with *"
            raise _error(Code.UNKNOWN_ANCHOR, self._place(event), f"no anchor '&{event.anchor}' above this alias", fix)
        return self._anchors[event.anchor]

    def _remember(self, anchor: str | None, value: Any, nodes: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, nodes)

    def _open(self, event: yaml.NodeEvent) -> None:
        if len(self._stack) >= self._deepest:
            fix = f"use blocks or fewer levels; {how_to_raise('nesting')}"
            raise _error(Code.TOO_LARGE, self._place(event), f"nested more than {self._deepest} deep", fix)
        value: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._next_path(event)
        self._mark_value(path, event, width=1)
        self._stack.append(_Open(value, path, anchor=event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            assert isinstance(done.value, dict)  # only mappings have merges
            done.value = {**merged_keys(merged, done.value, done.path), **done.value}
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
            raise _error(Code.YAML_FEATURE, self._place(event), "a list or mapping as a key", "a key is a word")
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
        if isinstance(event, yaml.AliasEvent):
            raise _error(Code.YAML_FEATURE, self._place(event), "an alias as a key", "write the key itself")
        key = key if isinstance(key, str) else _source_text(event)
        path = (*parent.path, key)
        if path in self.keys and key != "<<":
            first = self.keys[path].line
            raise _error(
                Code.DUPLICATE_KEY,
                self._place(event),
                f"'{key}' stands twice",
                f"it stands in line {first} already: keep one",
            )
        self.keys[path] = self._place(event)
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
            raise _error(
                Code.YAML_FEATURE, self.values[(*parent.path, "<<")], "'<<' merges mappings alone", "write <<: *NAME"
            )
        return merged

    def _mark_value(self, path: KeyPath, event: yaml.Event, width: int) -> None:
        self.values[path] = self._place(event, width)

    def _place(self, event: yaml.Event, width: int = 0) -> SourceLocation:
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return SourceLocation(self.name, mark.line + 1, mark.column + 1, text, width or _width(event))


def _source_text(event: yaml.Event) -> str:
    return str(event.value) if isinstance(event, yaml.ScalarEvent) else ""


def _width(event: yaml.Event) -> int:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None
    return max(1, end.column - start.column) if start.line == end.line else 1


def _error(code: Code, place: SourceLocation, found: str, fix: str) -> SpecError:
    return SpecError([Problem(code, "", found, fix, place)])
