"""The fixes in dlspec's messages that can be typed as they are printed: overrides, YAML, names, lines of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from dlspec.errors import Code, Problem


class Kind(StrEnum):
    """What a fix is, and so what a user does with it."""

    OVERRIDE = "override"  # words of a command line
    NAME = "name"  # a name to write instead of another
    INSERT = "entry to insert"
    YAML = "YAML"  # a key with its value, or an entry
    VALUE = "value"  # a value to write instead of another
    LINE = "line"  # a piece of text to write instead of a piece of a line
    CALL = "call"  # a function's call to write in a formula
    # What can't be typed as it is.
    PLACEHOLDER = "with placeholders"
    STEPS = "several edits"
    CHOICE = "choice of several"
    PROSE = "prose"
    NONE = "no fix"


SKIPPED = frozenset({Kind.PLACEHOLDER, Kind.STEPS, Kind.CHOICE, Kind.PROSE, Kind.NONE})


@dataclass(frozen=True)
class PrintedFix:
    """One fix: its kind, and what is typed, as text or as the YAML that it is."""

    kind: Kind
    text: str = ""
    value: Any = None


_PLACEHOLDER = re.compile(
    r"\.\.\.|\b(NAME|KEY|VALUE|FOLDER|COLUMN|SETTING|FILE|N|LOSS|OUTPUT|SIZE|GROUP|PATH|TYPE|SPEC)\b|\bsetting: value\b"
)
_SECTIONS = "data|hydra|imports|loss|metrics|model|optimizer|resume|run|scheduler|seed|sweep|trainer|weights"
_OVERRIDE = re.compile(
    rf"""(?<![\w.'"{{\[(=])(?:'(?:{_SECTIONS})(?:[./@][\w./@-]*)?=(?:[^']|'\\'')*'"""
    rf"""|(?:{_SECTIONS})(?:\.[\w-]+)*=[^=\s]\S*?(?=[,;:?]?(?:\s|$)))"""
)
_NAME = re.compile(r"did you mean '([^']+)'\?|PyTorch calls it '([^']+)'|^use ([A-Z]\w+)$|^name one copy: ([\w.]+)$")
_START = re.compile(r"^(?:write|add|insert|use) (?:for example |only )?|: |, for example |, such as |^set (?=\w+: )")
_STEPS = re.compile(r"pass it as an input|save it as|, then |above the list|, and write padding")
_CALL = re.compile(r"([a-z_]+)\(")
_SYNTAX = frozenset(
    {Code.YAML_SYNTAX, Code.YAML_FEATURE, Code.DUPLICATE_KEY, Code.FORMULA_SYNTAX, Code.REFERENCE_SYNTAX}
)


def read_fix(problem: Problem) -> PrintedFix:
    """Read what a problem's fix says to type."""
    text = problem.fix or problem.found.partition("; ")[2]
    if not text:
        return PrintedFix(Kind.NONE)
    if name := _NAME.search(text):
        return PrintedFix(Kind.NAME, next(filter(None, name.groups())))
    if re.match("available: |choose ", text) and "for example" not in text:
        return PrintedFix(Kind.CHOICE)
    if _STEPS.search(text):
        return PrintedFix(Kind.STEPS)
    if overrides := list(read_overrides(text)):
        return _choose(overrides, Kind.OVERRIDE)
    return _read_yaml(problem, text)


def _choose(texts: list[str], kind: Kind) -> PrintedFix:
    """Take the first one that has no placeholder."""
    concrete = [each for each in texts if not _PLACEHOLDER.search(each)]
    return PrintedFix(kind, concrete[0]) if concrete else PrintedFix(Kind.PLACEHOLDER)


def read_overrides(text: str) -> Iterator[str]:
    """Find the overrides in a text; those beside each other are one command line."""
    end, line = -1, ""
    for found in _OVERRIDE.finditer(text):
        if line and text[end : found.start()] == " ":
            line = f"{line} {found[0]}"
        else:
            if line:
                yield line
            line = found[0]
        end = found.end()
    if line:
        yield line


def _read_yaml(problem: Problem, text: str) -> PrintedFix:
    is_inserted = text.startswith("insert ")
    if problem.code in _SYNTAX and not is_inserted:
        return _read_line(problem, text)
    has_placeholder = False
    for start in _START.finditer(text):
        found = _read_at(text[start.end() :], problem.found)
        if found is not None and not _PLACEHOLDER.search(found.text):
            return _read_entries(text) if is_inserted else found
        has_placeholder = has_placeholder or found is not None
    return PrintedFix(Kind.PLACEHOLDER if has_placeholder or _PLACEHOLDER.search(text) else Kind.PROSE)


def _read_entries(text: str) -> PrintedFix:
    """Read the entries to insert: all of those joined by `and`, or else the first one."""
    first, *others = re.split(r"', or '|, or '", text.partition(" before it")[0])
    entries = [each.removeprefix("- ") for each in re.findall(r"'([^']+)'", first + ("'" if others else ""))]
    return PrintedFix(Kind.INSERT, " | ".join(entries), [_load(each) for each in entries])


def _read_at(text: str, found: str) -> PrintedFix | None:
    """Read a call, a key with its value, an entry or a value at the start of a text."""
    if call := _CALL.match(text):
        written = text[: find_end(text, len(call[1]))]
        names = set(re.findall(r"\b[a-z_]+\b(?![(=])", re.sub(r"'[^']*'", "", written))) - {"_"}
        formula = next(iter(re.findall(r"^'(.+)'", found)), "")
        index = re.match(r"\[[^]]*\]", text[len(written) :])
        is_form = any(not re.search(rf"\b{name}\b", formula) for name in names)  # a signature, with names of its own
        return PrintedFix(Kind.CALL, "..." if is_form else f"{written}{index[0] if index else ''}")
    if text.startswith("one: "):
        text = text.removeprefix("one: ")
    if (node := _read_node(text)) is not None:
        return PrintedFix(Kind.YAML, node, _load(node))
    if text.startswith("{"):
        mapping = text[: find_end(text, 0)]
        return PrintedFix(Kind.VALUE, mapping, _load(mapping))
    if quoted := re.match(r"\"[^\"]*\"|\$\([^)]*\)|\$\w+|_\[[^]]*\]", text):
        return PrintedFix(Kind.VALUE, quoted[0], _load(quoted[0]))
    return None


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise AssertionError(f"not YAML: {text}") from None


def _read_line(problem: Problem, text: str) -> PrintedFix:
    quoted = re.match(r"write '([^']+)'|(?:write|put quotes around it:) (\"[^\"]+\")$", text)
    written = (quoted[1] or quoted[2]) if quoted else ""
    if problem.code is Code.FORMULA_SYNTAX or not written:
        return PrintedFix(Kind.PROSE)
    return PrintedFix(Kind.PLACEHOLDER) if _PLACEHOLDER.search(written) else PrintedFix(Kind.LINE, written)


def _read_node(text: str) -> str | None:
    """Find a key with its value, or an entry of a list, at the start of a text."""
    quoted = re.match(r"'([^']+)'", text)
    if quoted:
        text = quoted[1]
        if re.fullmatch(r"(- )?[A-Z]\w*", text):
            return text.removeprefix("- ")
    text = text.removeprefix("- ")
    key = re.match(r"[A-Za-z_][\w.]*: (?=\S)", text)
    if key is None:
        return None
    start = key.end()
    if text[start] in "{[":
        return text[: find_end(text, start)]
    if quoted:
        return text
    value = re.match(r"\"[^\"]*\"|\$\([^)]*\)|\S+ [-+*/@] \S+|[^\s,;]+", text[start:])
    return f"{key[0]}{value[0]}" if value else None


def find_end(text: str, start: int) -> int:
    """Find the end of what the bracket at `start` begins."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "([{") - (text[index] in ")]}")
        if depth == 0:
            return index + 1
    return len(text)
