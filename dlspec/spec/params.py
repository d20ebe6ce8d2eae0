"""A block's params: their names, their values, and what formulas over them give."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from dlspec.errors import near, shown, suggest
from dlspec.spec import expressions
from dlspec.spec.expressions import ExpressionError, Wrong
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.parts import NOTHING, Part, parse_part
from dlspec.spec.yaml_files import KeyPath

# Known only while a layer is built or repeated: this version has neither.
_LATER = ("in_channels", "index")
_PARTIAL = "a formula is the whole value: $(...), its text in quotes: $(mode + 'ear')"


def read_params(raw: Any, path: KeyPath, mistakes: Mistakes) -> dict[str, Any]:
    """The params by name; those that no formula could name are mistakes, and left out."""
    if raw is None or isinstance(raw, Wrong):
        return {}
    if not isinstance(raw, dict):
        mistakes.add(path, "params are no mapping", "write 'params: {width: 64}'", at_value=True)
        return {}
    for name in raw:
        if not _can_name_param(name):
            mistakes.add(
                (*path, name), f"{shown(name)} can't name a param", "take a word that no function or keyword has"
            )
    return {name: value for name, value in raw.items() if _can_name_param(name)}


def _can_name_param(name: Any) -> bool:
    reserved = {*expressions.FUNCTIONS, *expressions.CONSTANTS, *_LATER}
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and not keyword.iskeyword(name) and name not in reserved


def _without_rests(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings without the rest of a `{size: $(max(w, 10))}` that YAML cut at its comma."""
    if not any(expressions.is_unclosed(each) for each in settings.values()):
        return settings
    return {key: each for key, each in settings.items() if each is not None or ")" not in str(key)}


class Scope:
    """A block's params and their values, and which of them something read."""

    def __init__(
        self, params: Mapping[str, Any], other_words: Collection[str], path: KeyPath, mistakes: Mistakes
    ) -> None:
        self.path = path
        self.mistakes = mistakes
        self.values: dict[str, Any] = {}
        self.names = frozenset(params)
        self.used = set(other_words)
        for name, default in params.items():
            self.values[name] = self._default(name, default)

    def _default(self, name: str, default: Any) -> Any:
        if default is None:
            fix = f"give one: model.params.{name}=..."
            self.mistakes.add((*self.path, name), f"param '{name}' has no value", fix)
            return Wrong(name)
        return self.evaluate(default, (*self.path, name))

    def evaluate(self, value: Any, path: KeyPath) -> Any:
        """The value with its formulas computed, through lists and mappings."""
        if isinstance(value, list):
            return [self.evaluate(each, (*path, index)) for index, each in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.evaluate(each, (*path, key)) for key, each in value.items()}
        formula = expressions.formula_of(value)
        if formula is not None:
            return self._compute(formula, path)
        if expressions.is_partial(value):
            if expressions.is_unclosed(value):
                return self._wrong(value, path, f"{shown(value)} is not closed", expressions.CLOSE)
            bare = expressions.without_brackets(value)
            fix = f"write $({bare})" if bare else _PARTIAL
            return self._wrong(value, path, f"{shown(value)} mixes text and a formula", fix)
        return expressions.unescape(value)

    def _compute(self, formula: str, path: KeyPath) -> Any:
        try:
            names = expressions.names_in(formula)
            self.used |= names
            missing = sorted(names - self.values.keys())
            for name in missing:
                self._no_param(name, path)
            if formula in self.values:
                self.mistakes.origins[path] = (*self.path, formula)
            return Wrong(formula) if missing else expressions.evaluate(formula, self.values)
        except ExpressionError as error:
            return self._wrong(formula, path, str(error), error.fix)

    def _wrong(self, text: str, path: KeyPath, found: str, fix: str) -> Wrong:
        self.used |= expressions.words_in(text)  # as far as one can tell
        self.mistakes.add(path, found, fix, at_value=True)
        return Wrong(text)

    def _no_param(self, name: str, path: KeyPath) -> None:
        if name in _LATER:
            self.mistakes.add(path, f"'${name}' is not there yet", "write the number", at_value=True)
            return
        fix = suggest(name, self.values) or "this model has no params: add 'params: {...}'"
        if name in self.names:
            fix = f"'{name}' stands below: write it first"
        self.mistakes.add(path, f"no param '{name}'", fix, at_value=True)

    def part(self, written: Part) -> Part | None:
        """The part with its type and settings evaluated; a type that is a param may bring settings of its own."""
        part = written
        if expressions.formula_of(written.type) is not None:
            named = self._named_by_param(written)
            if named is None:
                return None
            part = self._joined(named, written)
        written_settings = _without_rests(part.settings)
        settings = {key: self.evaluate(each, part.where(key)) for key, each in written_settings.items()}
        value = part.value if part.value is NOTHING else self.evaluate(part.value, part.settings_path)
        if isinstance(value, dict):
            settings, value = {**value, **settings}, NOTHING
        return replace(part, settings=settings, value=value)

    def _named_by_param(self, written: Part) -> Part | None:
        """The part that a `- $activation` stands for, at the param's own place."""
        name_path, _ = self.mistakes.names.get(written.path, (written.path, True))
        chosen = self.evaluate(written.type, name_path)
        path = self.mistakes.origins.pop(name_path, written.path)  # the name alone came from there
        return parse_part(chosen, path, self.mistakes, kind="layer")

    def _joined(self, named: Part, written: Part) -> Part:
        """What stands below `$activation` goes over what the param brings."""
        if written.value is NOTHING and not written.settings:
            return replace(named, keys=written.keys, key_paths=written.key_paths)
        for key in named.settings.keys() - written.settings.keys():
            self.mistakes.origins[(*written.settings_path, key)] = named.where(key)
        value = named.value if written.value is NOTHING else written.value
        return replace(written, type=named.type, settings={**named.settings, **written.settings}, value=value)

    def check_used(self) -> None:
        for name in (each for each in self.values if each not in self.used):
            guess = near(name, self.used & self.values.keys())
            fix = f"did you mean '{guess}'?" if guess else f"remove it, or write it as ${name}"
            self.mistakes.add((*self.path, name), f"nothing uses param '{name}'", fix)
