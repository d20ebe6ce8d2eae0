"""Resolve references `${...}` to keys of the config and to facts of the data.

Anything else that OmegaConf could resolve (`oc.env`, `hydra`, custom resolvers) is refused, because a spec is plain
data. A fact of data that are not loaded yet becomes an `UnknownValue`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dlspec.errors import Code, KeyPath, SpecError, format_value, join_with_or, suggest
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.problems import Problems, format_path
from dlspec.language.yaml.yaml_files import load_yaml_text
from dlspec.limits import explain_raising_limit, get_limit

# The facts that data can provide. Those of a single field are written after its name: `${data.target.vocab_size}`.
FACTS = ("num_classes", "num_outputs", "vocab_size", "shape", "length", "layout")
MAX_TEXT_LENGTH = 10_000  # characters
MAX_LISTED = 4  # references in a message
# More levels of nesting than a file may have, because a reference inserts a value with levels of its own.
EXTRA_LEVELS = 50

_WHOLE_REFERENCE = re.compile(r"\$\{([^${}]*)\}\Z")
_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_BRACKETED_KEY = re.compile(r"\[([^\[\].]*)\]")
_MISSING = object()


def resolve_references(tree: Any, facts: Mapping[str, Any] | None, problems: Problems) -> Any:
    """Replace every `${...}` in a config.

    Args:
        tree: The config. It is not changed.
        facts: Facts of the data; None before they are loaded.
        problems: Collects what is wrong.

    Returns:
        A copy of the config, with `InvalidValue` in place of references that can't be resolved.
    """
    return _ReferenceResolver(tree, facts, problems).run()


class _ReferenceTooLarge(Exception):
    """The value of a reference has too many values or too many levels."""


class _ReferenceResolver:
    """Resolves the references of one config."""

    def __init__(self, tree: Any, facts: Mapping[str, Any] | None, problems: Problems) -> None:
        self.tree, self.facts, self.problems = tree, facts, problems
        self.value_count = 0
        self.max_values, self.max_depth = get_limit("references"), get_limit("nesting") + EXTRA_LEVELS
        self.is_too_large = False
        self.depth = 0
        self.active_targets: list[KeyPath] = []

    def run(self) -> Any:
        return self._copy_resolved(self.tree, ())

    def _copy_resolved(self, value: Any, path: KeyPath, depth: int = 0) -> Any:
        self.value_count += 1
        if self.active_targets and (self.value_count > self.max_values or depth > self.max_depth):
            raise _ReferenceTooLarge
        if isinstance(value, dict):
            return {key: self._copy_resolved(each, (*path, key), depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self._copy_resolved(each, (*path, index), depth + 1) for index, each in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        self.depth, before = depth, self.depth
        try:
            return self._resolve_text(value, path)
        finally:
            self.depth = before

    def _resolve_text(self, text: str, path: KeyPath) -> Any:
        whole = _WHOLE_REFERENCE.match(text)
        if whole:
            return self._resolve_reference(whole[1].strip(), path, is_whole=True)
        if "${" in _REFERENCE.sub("", text):
            return self._report_invalid(
                Code.REFERENCE_SYNTAX,
                path,
                text,
                f"{format_value(text)} is not a valid reference",
                "write ${KEY}, with one key inside",
            )
        parts = [self._resolve_reference(found[1].strip(), path) for found in _REFERENCE.finditer(text)]
        unknown = next((part for part in parts if isinstance(part, UnknownValue)), None)
        if unknown is not None:
            return unknown
        texts = iter(part if isinstance(part, str) else format_value(part, MAX_TEXT_LENGTH) for part in parts)
        replaced = _REFERENCE.sub(lambda _: next(texts), text)
        if len(replaced) > MAX_TEXT_LENGTH:
            return self._report_invalid(
                Code.TOO_LARGE, path, text, f"a string of more than {MAX_TEXT_LENGTH:,} characters", "make it shorter"
            )
        return replaced

    def _report_invalid(self, code: Code, path: KeyPath, key: str, found: str, fix: str = "") -> InvalidValue:
        self.problems.add(code, path, found, fix, at_value=True)
        return InvalidValue(key)

    def _resolve_reference(self, reference: str, path: KeyPath, *, is_whole: bool = False) -> Any:
        if reference.startswith("oc.select:"):
            key, comma, default = reference.removeprefix("oc.select:").partition(",")
            found = self._find_target(key.strip(), path, is_required=False)
            return (_parse_default(default.strip()) if comma else None) if found is _MISSING else found
        if ":" in reference or reference.split(".")[0] in ("hydra", "oc"):
            fix = "refer to a key of the config, or use oc.select"
            found = f"'${{{reference}}}' is not allowed: oc.select is the only resolver"
            return self._report_invalid(Code.REFERENCE_REFUSED, path, reference, found, fix)
        return self._find_target(reference, path, is_required=True, is_whole=is_whole)

    def _find_target(self, key: str, path: KeyPath, *, is_required: bool, is_whole: bool = False) -> Any:
        key_path = _to_absolute_path(key, path)
        if key_path is None:
            return self._report_invalid(
                Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}' leads above the top of the config", "remove a dot"
            )
        found = _select_value(self.tree, key_path)
        if found is None or (found[1] is None and key_path[0] == "data"):
            return self._look_up_data_fact(key, key_path, path, is_required, found)
        target, value = found
        if target in self.active_targets:
            chain = " -> ".join(format_path(each) for each in [*self.active_targets, target])
            return self._report_invalid(
                Code.CYCLE, path, key, f"'${{{key}}}' refers to itself ({chain})", "write a value"
            )
        if is_whole:
            self.problems.origins[path] = target
        return self._resolve_target(key, target, value, path)

    def _resolve_target(self, key: str, target: KeyPath, value: Any, path: KeyPath) -> Any:
        """Return the target's value, with the references in it resolved relative to the target."""
        self.active_targets.append(target)
        try:
            return self._copy_resolved(value, target, self.depth + 3)  # 3 calls on Python's stack per reference
        except _ReferenceTooLarge:
            if len(self.active_targets) > 1:
                raise
            self.problems.origins.pop(path, None)
            if not self.is_too_large:  # report it once: every further reference would fail too
                found = f"'${{{key}}}' leads to more than {self.max_values:,} values or {self.max_depth} levels"
                fix = f"use fewer references to values with references; {explain_raising_limit('references')}"
                self.problems.add(Code.TOO_LARGE, path, found, fix, at_value=True)
            self.is_too_large = True
            return InvalidValue(key)
        finally:
            self.active_targets.pop()

    def _look_up_data_fact(
        self, key: str, key_path: tuple[str, ...], path: KeyPath, is_required: bool, found: Any
    ) -> Any:
        """Look up a fact of the data for a key that the config does not set."""
        if key_path[0] == "data" and key_path[-1] in FACTS and len(key_path) in (2, 3):
            if self.facts is None:
                return UnknownValue(".".join(key_path))
            fact = _select_value(dict(self.facts), key_path[1:])
            if fact is not None:
                return fact[1]
            return self._report_missing_fact(key, key_path, path) if is_required else _MISSING
        if found is not None:
            return None
        if not is_required:
            return _MISSING
        params = _select_value(self.tree, ("model", "params"))
        if params is not None and isinstance(params[1], dict) and key in params[1]:
            return self._report_invalid(
                Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}': no such key", f"write ${key} to use the param"
            )
        meant = f" '{'.'.join(key_path)}'" if key.startswith(".") else ""
        return self._report_invalid(
            Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}': no such key{meant}", self._suggest_keys(key_path)
        )

    def _report_missing_fact(self, key: str, key_path: tuple[str, ...], path: KeyPath) -> InvalidValue:
        facts, fact = dict(self.facts or {}), key_path[-1]
        having = [name for name, each in facts.items() if isinstance(each, dict) and fact in each]
        fix = f"the data have: {', '.join(name for name, each in facts.items() if not isinstance(each, dict))}"
        if len(key_path) == 2 and len(having) > 1:
            named = [f"${{data.{name}.{fact}}}" for name in having[:MAX_LISTED]]
            more = f"; {len(having) - MAX_LISTED} more have one too" if len(having) > MAX_LISTED else ""
            fix = f"several have one: write {join_with_or(named)}{more}"
        return self._report_invalid(Code.MISSING_FACT, path, key, f"'${{{key}}}': the data have no {key_path[-1]}", fix)

    def _suggest_keys(self, key_path: tuple[str, ...]) -> str:
        """Suggest the keys below the last part of the path that exists."""
        length = next(
            each for each in range(len(key_path) - 1, -1, -1) if _select_value(self.tree, key_path[:each]) is not None
        )
        _, parent = _select_value(self.tree, key_path[:length]) or ((), None)
        if isinstance(parent, list):
            return f"write a number from 0 to {len(parent) - 1}" if parent else ""
        names = [str(key) for key in parent] if isinstance(parent, dict) else []
        return suggest(key_path[length], [*names, *FACTS] if key_path[0] == "data" else names)


def _to_absolute_path(key: str, path: KeyPath) -> tuple[str, ...] | None:
    """Convert a reference's key to a path from the top of the config.

    As in Hydra, one leading dot means the mapping that contains the reference, each further dot one level up.
    """
    dots = len(key) - len(key.lstrip("."))
    if dots > len(path):
        return None
    keys = _BRACKETED_KEY.sub(r".\1", key[dots:]).lstrip(".").split(".")
    parent_path = path[: len(path) - dots] if dots else ()
    return (*(str(each) for each in parent_path), *keys)


def _select_value(tree: Any, key: Sequence[str]) -> tuple[KeyPath, Any] | None:
    """Find the value at a path. Return its path, with integers for indices, and the value; None if there is none."""
    path: list[Hashable] = []
    for part in key:
        if isinstance(tree, dict) and part in tree:
            path.append(part)
            tree = tree[part]
        elif isinstance(tree, list) and part.isascii() and part.isdigit() and int(part) < len(tree):
            path.append(int(part))
            tree = tree[int(part)]
        else:
            return None
    return tuple(path), tree


def _parse_default(text: str) -> Any:
    """Parse the default of `oc.select` as YAML: a number, a string, a list, ..."""
    try:
        return load_yaml_text(text, "oc.select").tree
    except SpecError:
        return text
