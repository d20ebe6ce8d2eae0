"""`${...}`: looks up the config's own keys, and the facts that the data hold.

Anything else that OmegaConf could resolve (`oc.env`, `hydra`, custom resolvers) is refused: a spec is data. A fact
that the data have not told yet stands as an `Unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dlspec.errors import suggest
from dlspec.spec.expressions import Unknown
from dlspec.spec.mistakes import Mistakes, dotted
from dlspec.spec.yaml_files import KeyPath

# The facts that data can state. A field's own come behind its name: `${data.target.vocab_size}`.
FACTS = ("num_classes", "num_outputs", "vocab_size", "shape", "length", "layout")
MAX_NODES = 100_000

_WHOLE = re.compile(r"\$\{([^${}]*)\}$")
_ANY = re.compile(r"\$\{([^${}]*)\}")
_MISSING = object()


def resolve(tree: Any, facts: Mapping[str, Any] | None, mistakes: Mistakes) -> Any:
    """A copy of `tree` with every `${...}` replaced; `facts` is None before the data are open."""
    return _Resolver(tree, facts, mistakes).run()


class _Resolver:
    def __init__(self, tree: Any, facts: Mapping[str, Any] | None, mistakes: Mistakes) -> None:
        self.tree, self.facts, self.mistakes = tree, facts, mistakes
        self.nodes = 0
        self.following: list[str] = []

    def run(self) -> Any:
        return self._copy(self.tree, ())

    def _copy(self, value: Any, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            return None
        if isinstance(value, dict):
            return {key: self._copy(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._copy(each, (*path, index)) for index, each in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "${" in value else value

    def _text(self, text: str, path: KeyPath) -> Any:
        if whole := _WHOLE.match(text):
            return self._look_up(whole[1].strip(), path)
        parts: list[Any] = []
        replaced = _ANY.sub(lambda found: self._part(found[1].strip(), path, parts), text)
        if "${" in replaced and not parts:
            self.mistakes.add(path, f"'{text}' is no reference", "write ${KEY}, with one key inside", at_value=True)
        unknown = next((part for part in parts if isinstance(part, Unknown)), None)
        return replaced if unknown is None else unknown

    def _part(self, inner: str, path: KeyPath, parts: list[Any]) -> str:
        value = self._look_up(inner, path)
        parts.append(value)
        return str(value)

    def _look_up(self, inner: str, path: KeyPath) -> Any:
        if inner.startswith("oc.select:"):
            key, _, default = inner.removeprefix("oc.select:").partition(",")
            found = self._find(key.strip(), path, must=False)
            return _plain(default.strip()) if found is _MISSING or found is None else found
        if ":" in inner or inner.split(".")[0] in ("hydra", "oc"):
            fix = "only the config's own keys and oc.select can stand there"
            self.mistakes.add(path, f"'${{{inner}}}' is refused", fix, at_value=True)
            return None
        return self._find(inner, path, must=True)

    def _find(self, key: str, path: KeyPath, *, must: bool) -> Any:
        absolute = _absolute(key, path)
        if absolute in self.following:
            chain = " -> ".join([*self.following, absolute])
            self.mistakes.add(path, f"'${{{key}}}' refers to itself ({chain})", "write a value", at_value=True)
            return None
        value = _select(self.tree, absolute)
        if value is _MISSING or (value is None and absolute.startswith("data.")):
            return self._fact(absolute, path, must, value)
        self.following.append(absolute)
        try:
            return self._copy(value, tuple(absolute.split(".")))
        finally:
            self.following.pop()

    def _fact(self, key: str, path: KeyPath, must: bool, value: Any) -> Any:
        parts = key.split(".")
        if parts[0] == "data" and parts[-1] in FACTS and len(parts) in (2, 3):
            if self.facts is None:
                return Unknown(key)
            found = _select(dict(self.facts), ".".join(parts[1:]))
            if found is not _MISSING:
                return found
            if must:
                self._no_fact(key, parts, path)
            return _MISSING if not must else None
        if must and value is _MISSING:
            self.mistakes.add(path, f"'${{{key}}}': no such key", self._choices(parts), at_value=True)
        return None if must else value

    def _no_fact(self, key: str, parts: list[str], path: KeyPath) -> None:
        facts = dict(self.facts or {})
        fix = f"these data state: {', '.join(name for name, fact in facts.items() if not isinstance(fact, dict))}"
        self.mistakes.add(path, f"'${{{key}}}': the data have no {parts[-1]}", fix, at_value=True)

    def _choices(self, parts: list[str]) -> str:
        parent = _select(self.tree, ".".join(parts[:-1])) if len(parts) > 1 else self.tree
        names = [str(key) for key in parent] if isinstance(parent, dict) else []
        return suggest(parts[-1], [*names, *FACTS] if parts[0] == "data" else names)


def _absolute(key: str, path: KeyPath) -> str:
    """The key from the top; as in Hydra, one leading dot is the mapping around, each further one a level up."""
    dots = len(key) - len(key.lstrip("."))
    return dotted((*path[: len(path) - dots], key.lstrip("."))) if dots else key


def _select(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return _MISSING
    return tree


def _plain(text: str) -> Any:
    from dlspec.spec.yaml_files import scalar

    return scalar(text)
