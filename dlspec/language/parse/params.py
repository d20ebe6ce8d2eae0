"""A block's params: their names, their values, and what formulas over them give."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import Code, KeyPath, shown, suggest
from dlspec.language.expressions import evaluation, expressions
from dlspec.language.expressions.expression_functions import FUNCTIONS
from dlspec.language.expressions.expressions import ExpressionError, Unknown, Wrong
from dlspec.language.parse.deferred import Deferred, is_deferred, settled
from dlspec.language.parse.part import NOTHING, Part, parse_part
from dlspec.language.problems import Problems
from dlspec.limits import how_to_raise, limit

IN_CHANNELS, INDEX = "in_channels", "index"
# Known only while a layer is built or repeated.
_LATER = {
    IN_CHANNELS: "it is the size of what an entry takes, and stands in an entry's settings",
    INDEX: "it counts the copies of an entry with repeat",
}
_PARTIAL = "a formula is the whole value: $(...), its text in quotes: $(mode + 'ear')"
_DOLLAR = re.compile(r"\$\$|\$([A-Za-z_]\w*)|\$\(")

Origins = dict[KeyPath, KeyPath]
"""For the path of a setting that is a param where the param's value was written."""


def read_params(raw: Any, path: KeyPath, problems: Problems) -> dict[str, Any]:
    """The params by name; those that no formula could name are mistakes, and left out."""
    if raw is None or isinstance(raw, Wrong):
        return {}
    if not isinstance(raw, dict):
        problems.add(Code.WRONG_TYPE, path, "params are no mapping", "write 'params: {width: 64}'", at_value=True)
        return {}
    for name in (each for each in raw if not can_name_param(each)):
        fix = "take a word that no function or keyword has"
        problems.add(Code.INVALID_NAME, (*path, name), f"{shown(name)} can't name a param", fix)
    return {name: value for name, value in raw.items() if can_name_param(name)}


def can_name_param(name: Any) -> bool:
    reserved = {*FUNCTIONS, *expressions.CONSTANTS, *_LATER}
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and not keyword.iskeyword(name) and name not in reserved


def _without_rests(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings without the rest of a `{size: $(max(w, 10))}` that YAML cut at its comma."""
    if not any(expressions.is_unclosed(each) for each in settings.values()):
        return settings
    return {key: each for key, each in settings.items() if each is not None or ")" not in str(key)}


@dataclass(frozen=True)
class Scope:
    """What formulas see at a place: a block's params, those of the blocks around it, and a repeat's variables.

    `origins` says where the value of each was written, `below` which params stand further down.
    """

    problems: Problems
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, KeyPath] = field(default_factory=dict)
    below: Collection[str] = ()

    def with_values(self, values: Mapping[str, Any], origins: Mapping[str, KeyPath] | None = None) -> Scope:
        """This scope and some more values, which come first."""
        kept = {name: path for name, path in self.origins.items() if name not in values}
        return replace(self, values={**self.values, **values}, origins={**kept, **(origins or {})})

    def evaluate(self, value: Any, path: KeyPath, origins: Origins | None = None) -> Any:
        """The value with its formulas computed, through lists and mappings; `origins` grows by its params'."""
        if isinstance(value, list):
            return [self.evaluate(each, (*path, index), origins) for index, each in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.evaluate(each, (*path, key), origins) for key, each in value.items()}
        if not isinstance(value, str) or "$" not in value:
            return value
        formula = expressions.formula_of(value)
        if formula is not None:
            if origins is not None and formula in self.origins:
                origins[path] = self.origins[formula]
            return self._compute(formula, path)
        if not expressions.is_partial(value):
            return expressions.unescape(value)
        if expressions.is_unclosed(value):
            return self._wrong(Code.FORMULA_SYNTAX, value, path, f"{shown(value)} is not closed", expressions.CLOSE)
        bare = expressions.without_brackets(value)
        fix = f"write $({bare})" if bare else _PARTIAL
        return self._wrong(Code.FORMULA_SYNTAX, value, path, f"{shown(value)} mixes text and a formula", fix)

    def _compute(self, formula: str, path: KeyPath) -> Any:
        try:
            names = expressions.names_in(formula)
            missing = sorted(names - self.values.keys())
            for name in missing:
                self._no_param(name, path)
            if missing:
                return Wrong(formula)
            late = any(is_deferred(self.values[name]) for name in names)
            return self._later(formula, names) if late else evaluation.evaluate(formula, self.values)
        except ExpressionError as error:
            wrong = error.finding
            return self._wrong(wrong.code, formula, path, wrong.found, wrong.fix or self._values_of(formula))

    def _values_of(self, formula: str) -> str:
        """What a formula was computed of: in a block a caller gave it."""
        try:
            names = sorted(expressions.names_in(formula))
        except ExpressionError:
            return ""
        known = [f"{name} is {shown(self.values[name], 30)}" for name in names if name in self.values]
        return f"here {', '.join(known)}" if known else ""

    def _later(self, formula: str, names: Collection[str]) -> Any:
        """A formula of `$in_channels`: computed when the layer is built."""
        if formula in self.values:
            return self.values[formula]
        values = {name: self.values[name] for name in names}
        return Deferred(
            f"$({formula})",
            lambda channels: evaluation.evaluate(
                formula, {name: settled(each, channels) for name, each in values.items()}
            ),
        )

    def limited(self, name: str, value: Any, path: KeyPath) -> Any:
        """The param's value, unless it holds more than a formula's may: lists of lists double quickly."""
        most, count, waiting = limit("formula_size"), 0, [value]
        while waiting and count <= most:
            each = waiting.pop()
            count += 1
            waiting += list(expressions.children_of(each))[: most + 1]
        if count <= most:
            return value
        found = f"param '{name}' holds more than {most:,} values"
        return self._wrong(Code.TOO_LARGE, name, path, found, how_to_raise("formula_size"))

    def _wrong(self, code: Code, text: str, path: KeyPath, found: str, fix: str) -> Wrong:
        self.problems.add(code, path, found, fix, at_value=True)
        return Wrong(text)

    def _no_param(self, name: str, path: KeyPath) -> None:
        if name in _LATER:
            self.problems.add(Code.KNOWN_TOO_LATE, path, f"'${name}' can't stand here", _LATER[name], at_value=True)
            return
        known = [each for each in self.values if each != IN_CHANNELS]
        fix = suggest(name, known) or "there are no params here: add 'params: {...}'"
        if name in self.below:
            fix = f"'{name}' stands below: write it first"
        self.problems.add(Code.UNKNOWN_PARAM, path, f"no param '{name}'", fix, at_value=True)

    def text(self, value: Any, path: KeyPath, *, bracket: bool = False) -> Any:
        """A text with the params in it put in: `stage$index`; with `bracket` negative numbers in brackets.

        `Wrong` where something in it can't be computed, what a formula gives where it is one as a whole.
        """
        if not isinstance(value, str) or "$" not in value:
            return value
        if not bracket and expressions.formula_of(value) is not None:
            return self.evaluate(value, path)
        pieces: list[str] = []
        at = 0
        while (found := _DOLLAR.search(value, at)) is not None:
            pieces.append(value[at : found.start()])
            end = found.end() if found[0] != "$(" else _closing(value, found.end())
            if end < 0:
                return self._wrong(Code.FORMULA_SYNTAX, value, path, f"{shown(value)} is not closed", expressions.CLOSE)
            piece = "$" if found[0] == "$$" else self._piece(value[found.start() : end], path, bracket)
            if piece is None:
                return Wrong(value)
            pieces.append(piece)
            at = end
        return "".join([*pieces, value[at:]])

    def _piece(self, formula: str, path: KeyPath, bracket: bool) -> str | None:
        """What a formula within a text gives, as text; None where that was a mistake or is not known yet."""
        before, computed = len(self.problems), self.evaluate(formula, path)
        if isinstance(computed, Deferred):
            found = f"{formula} is known only when the layer is built"
            self.problems.add(Code.KNOWN_TOO_LATE, path, found, "write a number or a param", at_value=True)
            return None
        if isinstance(computed, Unknown):
            return "0" if not isinstance(computed, Wrong) else None
        if isinstance(computed, list | dict) or computed is None:
            if len(self.problems) == before:
                found = f"{formula} is {shown(computed)}, and stands within a text"
                self.problems.add(Code.WRONG_VALUE, path, found, "take a number or a word", at_value=True)
            return None
        return f"({computed})" if bracket and str(computed).startswith("-") else str(computed)

    def part(self, written: Part) -> tuple[Part, Origins] | None:
        """The part with its type and settings evaluated; a type that is a param may bring settings of its own."""
        part, origins = written, Origins()
        if expressions.formula_of(written.type) is not None:
            named = self._named_by_param(written)
            if named is None:
                return None
            part = self._joined(named, written, origins)
        written_settings = _without_rests(part.settings)
        settings = {key: self.evaluate(each, part.where(key), origins) for key, each in written_settings.items()}
        value = part.value if part.value is NOTHING else self.evaluate(part.value, part.settings_path, origins)
        if isinstance(value, dict):
            source = origins.get(part.settings_path)
            for key in value if source else ():
                origins[(*part.settings_path, key)] = (*(source or ()), key)
            settings, value = {**value, **settings}, NOTHING
        return replace(part, settings=settings, value=value), origins

    def _named_by_param(self, written: Part) -> Part | None:
        """The part that a `- $activation` stands for, at the param's own place."""
        name_path, _ = self.problems.names.get(written.path, (written.path, True))
        origins = Origins()
        chosen = self.evaluate(written.type, name_path, origins)
        return parse_part(chosen, origins.get(name_path, written.path), self.problems, kind="layer")

    def _joined(self, named: Part, written: Part, origins: Origins) -> Part:
        """What stands below `$activation` goes over what the param brings."""
        if written.value is NOTHING and not written.settings:
            return replace(named, keys=written.keys, key_paths=written.key_paths)
        for key in named.settings.keys() - written.settings.keys():
            origins[(*written.settings_path, key)] = named.where(key)
        value = named.value if written.value is NOTHING else written.value
        return replace(written, type=named.type, settings={**named.settings, **written.settings}, value=value)


def _closing(text: str, at: int) -> int:
    """Behind the bracket that closes the one before `at`; -1 where none does."""
    depth = 1
    for index in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return -1


def defaults(
    params: Mapping[str, Any], given: Mapping[str, Any], path: KeyPath, scope: Scope, origins: Mapping[str, KeyPath]
) -> Scope:
    """The scope of a block: params that were given as they are, the others by their defaults, in order."""
    values = {name: each for name, each in scope.values.items() if name not in params} | dict(given)
    sources = {name: path for name, path in scope.origins.items() if name not in params}
    sources |= {name: origins[name] for name in given if name in origins}
    below = {name: None for name in params if name not in given}
    here = Scope(scope.problems, values, sources, below.keys())
    for name in [*below]:
        del below[name]
        value = here.evaluate(params[name], (*path, name))
        values[name] = here.limited(name, value, (*path, name))
        sources[name] = (*path, name)
    return here
