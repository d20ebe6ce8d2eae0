"""Apply a printed fix to a project, as a user who types it would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from dlspec.errors import Code, Problem
from helpers.printed_fixes import Kind, PrintedFix, find_end

# What a shell would do something with, outside of quotes: zsh looks for files in the case of brackets too.
SHELL_CHARACTERS = re.compile(r"[\[\]{}()*?$;&|<>`!#~]|\\")

YAML_ON_COMMAND_LINE = "YAML on the command line"


class NotApplied(Exception):
    """A fix for which there is no place, with the reason."""


@dataclass(frozen=True)
class Project:
    """A command line and the files that it reads."""

    words: tuple[str, ...]
    files: Mapping[str, str]


def apply_fix(project: Project, problem: Problem, fix: PrintedFix) -> Project:
    """Return the project with the fix; NotApplied if there is no place for it."""
    if fix.kind is Kind.OVERRIDE:
        return _add_overrides(project, problem, fix.text)
    if fix.kind is Kind.NAME:
        return _rename_in_project(project, problem, fix.text)
    if fix.kind is Kind.LINE:
        return _write_lines(project, problem, fix.text)
    if fix.kind is Kind.CALL:
        return _edit_tree(project, problem, lambda tree, path: _replace_call(tree, path, problem, fix.text))
    if fix.kind is Kind.VALUE:
        return _edit_tree(project, problem, lambda tree, path: _set(tree, path, fix.value))
    if fix.kind is Kind.INSERT:
        return _edit_tree(project, problem, lambda tree, path: _insert(tree, path, fix.value))
    return _edit_tree(project, problem, lambda tree, path: _write_node(tree, path, fix.value))


# ---- the command line ------------------------------------------------------------------------------------------------


def _add_overrides(project: Project, problem: Problem, text: str) -> Project:
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)
    assert not SHELL_CHARACTERS.search(unquoted), f"a shell changes {text}"
    words, is_instead = list(project.words), problem.fix.endswith(" instead")
    replaces = problem.code is Code.UNREACHABLE_KEY or is_instead
    if replaces and problem.location and problem.location.text in words:
        words.remove(problem.location.text)
    elif is_instead:
        project = _edit_tree(project, problem, _remove)
    for word in shlex.split(text):
        key = word.partition("=")[0]
        words = [each for each in words if each.lstrip("+").partition("=")[0] != key]
        words.append(word)
    return replace(project, words=tuple(words))


# ---- text ------------------------------------------------------------------------------------------------------------


def _edit_text(project: Project, problem: Problem, edit: Any) -> Project:
    location = problem.location
    if location is None or not location.text:
        raise NotApplied("no location")
    start = max(location.column - 1, 0)
    new = edit(location.text, start, start + location.width)
    if not location.line:
        is_word = [each.lower() == location.text.lower() for each in project.words]
        if not any(is_word):
            raise NotApplied("no such word")
        words = (new if found else each for each, found in zip(project.words, is_word, strict=True))
        return replace(project, words=tuple(words))
    if location.source not in project.files:
        raise NotApplied("not in a file of the project")
    if new == location.text:
        raise NotApplied("no such name")
    lines = project.files[location.source].split("\n")
    lines[location.line - 1] = new
    return replace(project, files={**project.files, location.source: "\n".join(lines)})


def _rename_in_project(project: Project, problem: Problem, name: str) -> Project:
    """Replace a name where the message says, else, for a param's value, where the file has it."""
    quoted = re.findall(r"'(\w+)'", problem.found)
    location = problem.location
    if location and location.line and quoted and not re.search(rf"\b{quoted[0]}\b", location.text):
        text = project.files.get(location.source, "")
        if len(re.findall(rf"\b{quoted[0]}\b", text)) == 1:
            return replace(project, files={**project.files, location.source: text.replace(quoted[0], name)})
    return _edit_text(project, problem, lambda text, start, end: _rename(text, start, end, problem, name))


def _rename(text: str, start: int, end: int, problem: Problem, name: str) -> str:
    """Replace the last key of the path, or a name that the message quotes, else what is underlined."""
    quoted = re.findall(r"'([^']+)'", problem.found)
    quoted = [re.sub(r"^\$\{.*?(\w+)\}$", r"\1", each) for each in quoted]  # the last key of a reference
    last = re.sub(r" \(.*\)$", "", problem.path).rpartition(".")[2]
    for old in [*([last] if last in quoted or not quoted else []), *quoted, last]:
        for begin in (start, 0):
            found = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)").search(text, begin)
            if found:
                return text[: found.start()] + name + text[found.end() :]
    return text if quoted else text[:start] + name + text[end:]


def _write_lines(project: Project, problem: Problem, written: str) -> Project:
    """Write a line's text, and where the fix says so a dash before each entry below."""
    changed = _edit_text(project, problem, lambda text, start, end: _write_line(text, start, written))
    location = problem.location
    if location is None or "and '- ' before e" not in problem.fix:
        return changed
    lines = changed.files[location.source].split("\n")
    indent = location.text[: len(location.text) - len(location.text.lstrip())]
    for number in range(location.line, len(lines)):
        if not lines[number].startswith(indent):
            break
        if lines[number][len(indent) :][:1] not in ("", " ", "-"):
            lines[number] = f"{indent}- {lines[number][len(indent) :]}"
    return replace(changed, files={**changed.files, location.source: "\n".join(lines)})


def _write_line(text: str, start: int, written: str) -> str:
    """Replace what differs from a line only in punctuation and quotes."""
    if written[0] == '"':
        wanted = re.compile(re.escape(written.strip('"')))
    else:
        pieces = (re.escape(each) if each.isalnum() or each in "_$.*" else r"[-:=\s{}\[\]()]*" for each in written)
        wanted = re.compile("".join(pieces))
    found = wanted.search(text, start) or wanted.search(text)
    assert found is not None, f"{written} is not like {text}"
    indent = len(text) - len(text.lstrip())
    return text[: max(indent, found.start())] + written + text[found.end() :]


# ---- trees -----------------------------------------------------------------------------------------------------------


def _edit_tree(project: Project, problem: Problem, edit: Any) -> Project:
    location = problem.location
    if location is None:
        raise NotApplied("no location")
    if not location.line:
        raise NotApplied(YAML_ON_COMMAND_LINE)
    if location.source not in project.files:
        raise NotApplied("not in a file of the project")
    tree = yaml.safe_load(project.files[location.source])
    edit(tree, find_path(tree, problem.path))
    text = yaml.safe_dump(tree, sort_keys=False)
    return replace(project, files={**project.files, location.source: text})


def find_path(tree: Any, dotted: str) -> list[Any]:
    """Find where a problem's path leads in a file, which may lie below the path's first keys."""
    path = [int(each) if each.isdigit() else each for each in re.sub(r" \(.*\)$", "", dotted).split(".")]
    for shift in range(len(path)):
        if _exists(tree, path[shift:]) or (shift < len(path) - 1 and _exists(tree, path[shift:-1])):
            return path[shift:]
    raise NotApplied("no such path")


def _exists(tree: Any, path: list[Any]) -> bool:
    try:
        _get(tree, path)
    except (LookupError, TypeError):
        return False
    return bool(path)


def _get(tree: Any, path: list[Any]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _set(tree: Any, path: list[Any], value: Any) -> None:
    try:
        _get(tree, path[:-1])[path[-1]] = value
    except (LookupError, TypeError):
        raise NotApplied("no such path") from None


def _remove(tree: Any, path: list[Any]) -> None:
    del _get(tree, path[:-1])[path[-1]]


def _insert(tree: Any, path: list[Any], entries: list[Any]) -> None:
    at = max((index for index, key in enumerate(path) if isinstance(key, int)), default=None)
    if at is None:
        raise NotApplied("not in a list")
    _get(tree, path[:at])[path[at] : path[at]] = entries


def _write_node(tree: Any, path: list[Any], node: Any) -> None:
    """Write an entry over another, or a setting: over the one of this name, else beside or below the path's key."""
    key = next(iter(node)) if isinstance(node, dict) else ""
    value, parent = _find(tree, path), _get(tree, path[:-1])
    if path[-1] == key:
        parent[key] = node[key]
    elif key[:1].isupper() or not key:
        _write_entry(tree, path, node)
    elif isinstance(value, dict):
        value[key] = node[key]
    elif isinstance(value, list) and isinstance(path[-1], str):  # `Residual: [...]`
        parent[path[-1]] = {"body": value, **node}
    elif isinstance(value, str) and isinstance(path[-1], int):  # `- Mean`
        parent[path[-1]] = {value: node}
    else:
        _set(tree, path, node[key])


def _write_entry(tree: Any, path: list[Any], node: Any) -> None:
    parent = _get(tree, path[:-1])
    if isinstance(path[-1], str) and isinstance(parent, dict) and path[-1][:1].isupper() and isinstance(node, dict):
        parent.pop(path[-1])
        parent.update(node)
        return
    _set(tree, path, node)


def _find(tree: Any, path: list[Any]) -> Any:
    try:
        return _get(tree, path)
    except (LookupError, TypeError):
        return None


def _replace_call(tree: Any, path: list[Any], problem: Problem, call: str) -> None:
    """Write a call over the expression that the message quotes, else over the first call of the same function."""
    formula = _get(tree, path)
    formula = formula.get("formula", formula) if isinstance(formula, dict) else formula
    quoted = re.match(r"'(.+)' (?:is|returns|moves|has|lacks|does)", problem.found)
    if quoted and quoted[1] in formula:
        _set(tree, path, formula.replace(quoted[1], call, 1))
        return
    at = re.search(rf"\b{call.partition('(')[0]}\(", str(formula)) or re.search(r"[\w.]+\(", str(formula))
    if at is None:
        raise NotApplied("no call in the formula")
    _set(tree, path, formula[: at.start()] + call + formula[find_end(formula, at.end() - 1) :])
