"""The inputs that a model or a block names, and what a model states of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, shown, suggest
from dlspec.language.expressions.expressions import Wrong
from dlspec.language.parse.entry import check_name, is_open
from dlspec.language.problems import Problems
from dlspec.layouts import LAYOUTS


@dataclass(frozen=True)
class Input:
    """What a model states of one input: null in `shape` is open."""

    name: str
    path: KeyPath
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_inputs(raw: Any, path: KeyPath, problems: Problems, *, is_model: bool) -> tuple[Input, ...]:
    """The inputs that a model or a block names; a model may state facts of each."""
    if raw is None or isinstance(raw, Wrong):
        return ()
    found: dict[str, Input] = {}
    for name, facts, where in _named(raw, path, problems, is_model):
        if isinstance(name, dict):
            fix = "write inputs: {NAME: {...}}, without the brackets"
            problems.add(Code.WRONG_TYPE, where, "a mapping in a list of names", fix, at_value=True)
        elif isinstance(name, str) and name in found:
            twice = f"the input '{name}' is named twice"
            problems.add(Code.NAME_TAKEN, where, twice, "give each a name of its own", at_value=True)
        elif check_name(name, where, problems, "input", at_value=isinstance(raw, list)):
            found[name] = _read_input(name, facts, where, problems)
    return tuple(found.values())


def _named(raw: Any, path: KeyPath, problems: Problems, is_model: bool) -> list[tuple[Any, Any, KeyPath]]:
    """Each input's name, what is stated of it, and where it stands."""
    if isinstance(raw, dict) and is_model:
        return [(name, facts, (*path, name)) for name, facts in raw.items()]
    if isinstance(raw, list):
        return [(name, None, (*path, index)) for index, name in enumerate(raw)]
    if is_model:
        found = "inputs are a list of names or a mapping"
        fix = "write 'inputs: [image]' or 'inputs: {image: {shape: [1, 28, 28]}}'"
    else:
        found, fix = "a block's inputs are a list of names", "write inputs: [x]"
    problems.add(Code.WRONG_TYPE, path, found, fix, at_value=True)
    return [(name, None, (*path, name)) for name in raw] if isinstance(raw, dict) else []


def _read_input(name: str, raw: Any, path: KeyPath, problems: Problems) -> Input:
    if raw is not None and not isinstance(raw, dict):
        fix = "write {shape: [...]} or {vocab_size: ...}"
        problems.add(Code.WRONG_TYPE, path, f"{shown(raw)} states nothing of an input", fix, at_value=True)
    facts = raw if isinstance(raw, dict) else {}
    for key, value in facts.items():
        _check_fact(key, value, (*path, key), problems)
    return Input(name, path, {key: value for key, value in facts.items() if key in INPUT_FACTS})


def _check_fact(key: str, value: Any, path: KeyPath, problems: Problems) -> None:
    if key not in INPUT_FACTS:
        problems.add(Code.UNKNOWN_KEY, path, f"no key '{key}' of an input", suggest(str(key), INPUT_FACTS))
    elif not INPUT_FACTS[key][0](value):
        problems.add(Code.WRONG_VALUE, path, f"{key} is {shown(value)}, wanted {INPUT_FACTS[key][1]}", at_value=True)


def _is_size(value: Any) -> bool:
    return is_open(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _is_shape(value: Any) -> bool:
    return all(_is_size(each) for each in value) if isinstance(value, list) else is_open(value)


# What a model may state of an input: what is right, and how that is worded.
INPUT_FACTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "shape": (_is_shape, "a list of whole numbers >= 1, null where any will do"),
    "vocab_size": (_is_size, "a whole number >= 1 or null"),
    "length": (_is_size, "a whole number >= 1 or null"),
    "layout": (lambda value: is_open(value) or value in LAYOUTS, f"{', '.join(LAYOUTS)} or null"),
}
