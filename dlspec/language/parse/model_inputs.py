"""Read the inputs that a model or a block declares, and the shapes and sizes that a model states for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.expressions.expression_parsing import InvalidValue
from dlspec.language.parse.entry import check_name, is_undetermined
from dlspec.language.problems import Problems
from dlspec.layouts import LAYOUTS


@dataclass(frozen=True)
class ModelInput:
    """An input that a model or block declares."""

    name: str
    path: KeyPath
    facts: Mapping[str, Any] = field(default_factory=dict)  # shape, vocab_size, ...; null in a shape: any size


def read_inputs(raw: Any, path: KeyPath, problems: Problems, *, is_model: bool) -> tuple[ModelInput, ...]:
    """Read the inputs that a model or a block declares.

    Args:
        raw: Value of `inputs`: a list of names, or for a model also a mapping from names to facts.
        path: Its path.
        problems: Collects what is wrong.
        is_model: Whether it is a model's `inputs`, not a block's.
    """
    if raw is None or isinstance(raw, InvalidValue):
        return ()
    found: dict[str, ModelInput] = {}
    for name, facts, where in _list_inputs(raw, path, problems, is_model):
        if isinstance(name, dict):
            fix = "write inputs: {NAME: {...}}, without the brackets"
            problems.add(Code.WRONG_TYPE, where, "the list of input names contains a mapping", fix, at_value=True)
        elif isinstance(name, str) and name in found:
            description = f"input '{name}' is listed twice"
            problems.add(Code.NAME_TAKEN, where, description, "give each input a different name", at_value=True)
        elif check_name(name, where, problems, "input", at_value=isinstance(raw, list)):
            found[name] = _read_input(name, facts, where, problems)
    return tuple(found.values())


def _list_inputs(raw: Any, path: KeyPath, problems: Problems, is_model: bool) -> list[tuple[Any, Any, KeyPath]]:
    """List each input's name, its facts as written, and its path."""
    if isinstance(raw, dict) and is_model:
        return [(name, facts, (*path, name)) for name, facts in raw.items()]
    if isinstance(raw, list):
        return [(name, None, (*path, index)) for index, name in enumerate(raw)]
    if is_model:
        found = "'inputs' must be a list of names or a mapping"
        fix = "write 'inputs: [image]' or 'inputs: {image: {shape: [1, 28, 28]}}'"
    else:
        found, fix = "a block's 'inputs' must be a list of names", "write inputs: [x]"
    problems.add(Code.WRONG_TYPE, path, found, fix, at_value=True)
    return [(name, None, (*path, name)) for name in raw] if isinstance(raw, dict) else []


def _read_input(name: str, raw: Any, path: KeyPath, problems: Problems) -> ModelInput:
    if raw is not None and not isinstance(raw, dict):
        fix = "write {shape: [...]} or {vocab_size: ...}"
        problems.add(Code.WRONG_TYPE, path, f"an input must be a mapping, got {format_value(raw)}", fix, at_value=True)
    facts = raw if isinstance(raw, dict) else {}
    for key, value in facts.items():
        _check_fact(key, value, (*path, key), problems)
    return ModelInput(name, path, {key: value for key, value in facts.items() if key in INPUT_FACTS})


def _check_fact(key: str, value: Any, path: KeyPath, problems: Problems) -> None:
    if key not in INPUT_FACTS:
        problems.add(Code.UNKNOWN_KEY, path, f"unknown key '{key}' of an input", suggest(str(key), INPUT_FACTS))
    elif not INPUT_FACTS[key][0](value):
        problems.add(
            Code.WRONG_VALUE, path, f"'{key}' must be {INPUT_FACTS[key][1]}, got {format_value(value)}", at_value=True
        )


def _is_valid_size(value: Any) -> bool:
    return is_undetermined(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _is_valid_shape(value: Any) -> bool:
    return all(_is_valid_size(each) for each in value) if isinstance(value, list) else is_undetermined(value)


# What a model may state for an input: a check of the value, and what a message says is expected.
INPUT_FACTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "shape": (_is_valid_shape, "a list of integers >= 1, with null for any size"),
    "vocab_size": (_is_valid_size, "an integer >= 1 or null"),
    "length": (_is_valid_size, "an integer >= 1 or null"),
    "layout": (lambda value: is_undetermined(value) or value in LAYOUTS, f"{', '.join(LAYOUTS)} or null"),
}
