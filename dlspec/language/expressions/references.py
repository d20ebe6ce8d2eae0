"""`${...}`: looks up the config's own keys, and the facts that the data hold.

Anything else that OmegaConf could resolve (`oc.env`, `hydra`, custom resolvers) is refused: a spec is data. A fact
that the data have not told yet stands as an `Unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dlspec.errors import Code, KeyPath, SpecError, shown, suggest
from dlspec.language.expressions.expressions import Unknown, Wrong
from dlspec.language.problems import Problems, dotted
from dlspec.language.yaml.yaml_files import load_text
from dlspec.limits import how_to_raise, limit

# The facts that data can state. A field's own come behind its name: `${data.target.vocab_size}`.
FACTS = ("num_classes", "num_outputs", "vocab_size", "shape", "length", "layout")
MAX_TEXT = 10_000
# Levels beyond those of a file: what a reference brings hangs below where it stands.
MORE_LEVELS = 50

_WHOLE = re.compile(r"\$\{([^${}]*)\}\Z")
_ANY = re.compile(r"\$\{([^${}]*)\}")
_BRACKET = re.compile(r"\[([^\[\].]*)\]")
_MISSING = object()


def resolve(tree: Any, facts: Mapping[str, Any] | None, problems: Problems) -> Any:
    """A copy of `tree` with every `${...}` replaced; `facts` is None before the data are open.

    What can't be looked up is a mistake, and a `Wrong` value in the copy.
    """
    return _Resolver(tree, facts, problems).run()


class _TooLarge(Exception):
    """What a reference leads to is more than the limit's values, or nests too deep."""


class _Resolver:
    def __init__(self, tree: Any, facts: Mapping[str, Any] | None, problems: Problems) -> None:
        self.tree, self.facts, self.problems = tree, facts, problems
        self.nodes = 0
        self.most, self.deepest = limit("references"), limit("nesting") + MORE_LEVELS
        self.is_too_large = False
        self.depth = 0
        self.following: list[KeyPath] = []

    def run(self) -> Any:
        return self._copy(self.tree, ())

    def _copy(self, value: Any, path: KeyPath, depth: int = 0) -> Any:
        self.nodes += 1
        if self.following and (self.nodes > self.most or depth > self.deepest):
            raise _TooLarge
        if isinstance(value, dict):
            return {key: self._copy(each, (*path, key), depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self._copy(each, (*path, index), depth + 1) for index, each in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        self.depth, before = depth, self.depth
        try:
            return self._text(value, path)
        finally:
            self.depth = before

    def _text(self, text: str, path: KeyPath) -> Any:
        whole = _WHOLE.match(text)
        if whole:
            return self._look_up(whole[1].strip(), path, is_whole=True)
        if "${" in _ANY.sub("", text):
            return self._wrong(
                Code.REFERENCE_SYNTAX, path, text, f"{shown(text)} is no reference", "write ${KEY}, with one key inside"
            )
        parts = [self._look_up(found[1].strip(), path) for found in _ANY.finditer(text)]
        unknown = next((part for part in parts if isinstance(part, Unknown)), None)
        if unknown is not None:
            return unknown
        texts = iter(part if isinstance(part, str) else shown(part, MAX_TEXT) for part in parts)
        replaced = _ANY.sub(lambda _: next(texts), text)
        if len(replaced) > MAX_TEXT:
            return self._wrong(
                Code.TOO_LARGE, path, text, f"a text of more than {MAX_TEXT:,} characters", "make it shorter"
            )
        return replaced

    def _wrong(self, code: Code, path: KeyPath, key: str, found: str, fix: str = "") -> Wrong:
        self.problems.add(code, path, found, fix, at_value=True)
        return Wrong(key)

    def _look_up(self, inner: str, path: KeyPath, *, is_whole: bool = False) -> Any:
        if inner.startswith("oc.select:"):
            key, comma, default = inner.removeprefix("oc.select:").partition(",")
            found = self._find(key.strip(), path, must=False)
            return (_plain(default.strip()) if comma else None) if found is _MISSING else found
        if ":" in inner or inner.split(".")[0] in ("hydra", "oc"):
            fix = "only the config's own keys and oc.select can stand there"
            return self._wrong(Code.REFERENCE_REFUSED, path, inner, f"'${{{inner}}}' is refused", fix)
        return self._find(inner, path, must=True, is_whole=is_whole)

    def _find(self, key: str, path: KeyPath, *, must: bool, is_whole: bool = False) -> Any:
        wanted = _absolute(key, path)
        if wanted is None:
            return self._wrong(
                Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}' leads above the top of the config", "take away a dot"
            )
        found = _select(self.tree, wanted)
        if found is None or (found[1] is None and wanted[0] == "data"):
            return self._fact(key, wanted, path, must, found)
        target, value = found
        if target in self.following:
            chain = " -> ".join(dotted(each) for each in [*self.following, target])
            return self._wrong(Code.CYCLE, path, key, f"'${{{key}}}' refers to itself ({chain})", "write a value")
        if is_whole:
            self.problems.origins[path] = target
        return self._follow(key, target, value, path)

    def _follow(self, key: str, target: KeyPath, value: Any, path: KeyPath) -> Any:
        """The target's value, its own references looked up from where it stands."""
        self.following.append(target)
        try:
            return self._copy(value, target, self.depth + 3)  # as many calls lie between the two
        except _TooLarge:
            if len(self.following) > 1:
                raise
            self.problems.origins.pop(path, None)
            if not self.is_too_large:  # once is enough: nothing can be followed after it
                found = f"'${{{key}}}' leads to more than {self.most:,} values or {self.deepest} levels"
                fix = f"use fewer references to what holds references; {how_to_raise('references')}"
                self.problems.add(Code.TOO_LARGE, path, found, fix, at_value=True)
            self.is_too_large = True
            return Wrong(key)
        finally:
            self.following.pop()

    def _fact(self, key: str, wanted: tuple[str, ...], path: KeyPath, must: bool, found: Any) -> Any:
        """What the data tell, where the config does not."""
        if wanted[0] == "data" and wanted[-1] in FACTS and len(wanted) in (2, 3):
            if self.facts is None:
                return Unknown(".".join(wanted))
            fact = _select(dict(self.facts), wanted[1:])
            if fact is not None:
                return fact[1]
            return self._no_fact(key, wanted, path) if must else _MISSING
        if found is not None:
            return None
        if not must:
            return _MISSING
        params = _select(self.tree, ("model", "params"))
        if params is not None and isinstance(params[1], dict) and key in params[1]:
            return self._wrong(
                Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}': no such key", f"a param is written ${key}"
            )
        meant = f" '{'.'.join(wanted)}'" if key.startswith(".") else ""
        return self._wrong(
            Code.UNKNOWN_REFERENCE, path, key, f"'${{{key}}}': no such key{meant}", self._choices(wanted)
        )

    def _no_fact(self, key: str, wanted: tuple[str, ...], path: KeyPath) -> Wrong:
        facts = dict(self.facts or {})
        fix = f"these data state: {', '.join(name for name, fact in facts.items() if not isinstance(fact, dict))}"
        return self._wrong(Code.MISSING_FACT, path, key, f"'${{{key}}}': the data have no {wanted[-1]}", fix)

    def _choices(self, wanted: tuple[str, ...]) -> str:
        """What there is below the last key that is there."""
        length = next(each for each in range(len(wanted) - 1, -1, -1) if _select(self.tree, wanted[:each]) is not None)
        _, parent = _select(self.tree, wanted[:length]) or ((), None)
        if isinstance(parent, list):
            return f"write a number from 0 to {len(parent) - 1}" if parent else ""
        names = [str(key) for key in parent] if isinstance(parent, dict) else []
        return suggest(wanted[length], [*names, *FACTS] if wanted[0] == "data" else names)


def _absolute(key: str, path: KeyPath) -> tuple[str, ...] | None:
    """The key from the top; as in Hydra, one leading dot is the mapping around, each further one a level up."""
    dots = len(key) - len(key.lstrip("."))
    if dots > len(path):
        return None
    words = _BRACKET.sub(r".\1", key[dots:]).lstrip(".").split(".")
    above = path[: len(path) - dots] if dots else ()
    return (*(str(each) for each in above), *words)


def _select(tree: Any, key: Sequence[str]) -> tuple[KeyPath, Any] | None:
    """The path, with numbers for a list's items, and the value; None where there is none."""
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


def _plain(text: str) -> Any:
    """A default as YAML reads it: a number, a word, a quoted text, a list."""
    try:
        return load_text(text, "oc.select").tree
    except SpecError:
        return text
