"""A block's params: their names, their values, and what formulas over them give."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.expressions import evaluation, evaluator
from dlspec.language.expressions.evaluator import ExpressionError, InvalidValue, UnknownValue
from dlspec.language.expressions.expression_functions import EXPRESSION_FUNCTIONS
from dlspec.language.parse.deferred import Deferred, compute_deferred, is_deferred
from dlspec.language.parse.part import NO_VALUE, Part, parse_part
from dlspec.language.problems import Problems
from dlspec.limits import explain_raising_limit, get_limit

IN_CHANNELS, INDEX = "in_channels", "index"
# Known only while a layer is built or repeated.
_LATE_NAMES = {
    IN_CHANNELS: "it is the size of what an entry takes, and stands in an entry's settings",
    INDEX: "it counts the copies of an entry with repeat",
}
_EMBEDDED_FIX = "a formula is the whole value: $(...), its text in quotes: $(mode + 'ear')"
_DOLLAR_SIGN = re.compile(r"\$\$|\$([A-Za-z_]\w*)|\$\(")

Origins = dict[KeyPath, KeyPath]
"""For the path of a setting that is a param where the param's value was written."""


def read_params(raw: Any, path: KeyPath, problems: Problems) -> dict[str, Any]:
    """The params by name; those that no formula could name are mistakes, and left out."""
    if raw is None or isinstance(raw, InvalidValue):
        return {}
    if not isinstance(raw, dict):
        problems.add(Code.WRONG_TYPE, path, "params are no mapping", "write 'params: {width: 64}'", at_value=True)
        return {}
    for name in (each for each in raw if not can_name_param(each)):
        fix = "take a word that no function or keyword has"
        problems.add(Code.INVALID_NAME, (*path, name), f"{format_value(name)} can't name a param", fix)
    return {name: value for name, value in raw.items() if can_name_param(name)}


def can_name_param(name: Any) -> bool:
    reserved = {*EXPRESSION_FUNCTIONS, *evaluator.CONSTANTS, *_LATE_NAMES}
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and not keyword.iskeyword(name) and name not in reserved


def _drop_cut_remainders(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings without the rest of a `{size: $(max(w, 10))}` that YAML cut at its comma."""
    if not any(evaluator.is_unclosed(each) for each in settings.values()):
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
    defined_below: Collection[str] = ()

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
        formula = evaluator.extract_expression(value)
        if formula is not None:
            if origins is not None and formula in self.origins:
                origins[path] = self.origins[formula]
            return self._compute_expression(formula, path)
        if not evaluator.has_embedded_expression(value):
            return evaluator.unescape_dollars(value)
        if evaluator.is_unclosed(value):
            return self._report_invalid(
                Code.FORMULA_SYNTAX, value, path, f"{format_value(value)} is not closed", evaluator.CLOSE_BRACKET_FIX
            )
        bare = evaluator.guess_expression(value)
        fix = f"write $({bare})" if bare else _EMBEDDED_FIX
        return self._report_invalid(
            Code.FORMULA_SYNTAX, value, path, f"{format_value(value)} mixes text and a formula", fix
        )

    def _compute_expression(self, formula: str, path: KeyPath) -> Any:
        try:
            names = evaluator.find_params(formula)
            missing = sorted(names - self.values.keys())
            for name in missing:
                self._report_unknown_param(name, path)
            if missing:
                return InvalidValue(formula)
            is_deferred_value = any(is_deferred(self.values[name]) for name in names)
            return (
                self._defer_expression(formula, names)
                if is_deferred_value
                else evaluation.evaluate_expression(formula, self.values)
            )
        except ExpressionError as error:
            finding = error.finding
            return self._report_invalid(
                finding.code, formula, path, finding.found, finding.fix or self._describe_values(formula)
            )

    def _describe_values(self, formula: str) -> str:
        """What a formula was computed of: in a block a caller gave it."""
        try:
            names = sorted(evaluator.find_params(formula))
        except ExpressionError:
            return ""
        known = [f"{name} is {format_value(self.values[name], 30)}" for name in names if name in self.values]
        return f"here {', '.join(known)}" if known else ""

    def _defer_expression(self, formula: str, names: Collection[str]) -> Any:
        """A formula of `$in_channels`: computed when the layer is built."""
        if formula in self.values:
            return self.values[formula]
        values = {name: self.values[name] for name in names}
        return Deferred(
            f"$({formula})",
            lambda channels: evaluation.evaluate_expression(
                formula, {name: compute_deferred(each, channels) for name, each in values.items()}
            ),
        )

    def check_size(self, name: str, value: Any, path: KeyPath) -> Any:
        """The param's value, unless it holds more than a formula's may: lists of lists double quickly."""
        max_count, count, queue = get_limit("formula_size"), 0, [value]
        while queue and count <= max_count:
            each = queue.pop()
            count += 1
            queue += list(evaluator.children_of(each))[: max_count + 1]
        if count <= max_count:
            return value
        found = f"param '{name}' holds more than {max_count:,} values"
        return self._report_invalid(Code.TOO_LARGE, name, path, found, explain_raising_limit("formula_size"))

    def _report_invalid(self, code: Code, text: str, path: KeyPath, found: str, fix: str) -> InvalidValue:
        self.problems.add(code, path, found, fix, at_value=True)
        return InvalidValue(text)

    def _report_unknown_param(self, name: str, path: KeyPath) -> None:
        if name in _LATE_NAMES:
            self.problems.add(
                Code.KNOWN_TOO_LATE, path, f"'${name}' can't stand here", _LATE_NAMES[name], at_value=True
            )
            return
        known = [each for each in self.values if each != IN_CHANNELS]
        fix = suggest(name, known) or "there are no params here: add 'params: {...}'"
        if name in self.defined_below:
            fix = f"'{name}' stands below: write it first"
        self.problems.add(Code.UNKNOWN_PARAM, path, f"no param '{name}'", fix, at_value=True)

    def fill_text(self, value: Any, path: KeyPath, *, bracket_negatives: bool = False) -> Any:
        """A text with the params in it put in: `stage$index`; with `bracket` negative numbers in brackets.

        `Wrong` where something in it can't be computed, what a formula gives where it is one as a whole.
        """
        if not isinstance(value, str) or "$" not in value:
            return value
        if not bracket_negatives and evaluator.extract_expression(value) is not None:
            return self.evaluate(value, path)
        pieces: list[str] = []
        at = 0
        while (found := _DOLLAR_SIGN.search(value, at)) is not None:
            pieces.append(value[at : found.start()])
            end = found.end() if found[0] != "$(" else _find_closing_bracket(value, found.end())
            if end < 0:
                return self._report_invalid(
                    Code.FORMULA_SYNTAX,
                    value,
                    path,
                    f"{format_value(value)} is not closed",
                    evaluator.CLOSE_BRACKET_FIX,
                )
            piece = "$" if found[0] == "$$" else self._format_piece(value[found.start() : end], path, bracket_negatives)
            if piece is None:
                return InvalidValue(value)
            pieces.append(piece)
            at = end
        return "".join([*pieces, value[at:]])

    def _format_piece(self, formula: str, path: KeyPath, bracket_negatives: bool) -> str | None:
        """What a formula within a text gives, as text; None where that was a mistake or is not known yet."""
        before, computed = len(self.problems), self.evaluate(formula, path)
        if isinstance(computed, Deferred):
            found = f"{formula} is known only when the layer is built"
            self.problems.add(Code.KNOWN_TOO_LATE, path, found, "write a number or a param", at_value=True)
            return None
        if isinstance(computed, UnknownValue):
            return "0" if not isinstance(computed, InvalidValue) else None
        if isinstance(computed, list | dict) or computed is None:
            if len(self.problems) == before:
                found = f"{formula} is {format_value(computed)}, and stands within a text"
                self.problems.add(Code.WRONG_VALUE, path, found, "take a number or a word", at_value=True)
            return None
        return f"({computed})" if bracket_negatives and str(computed).startswith("-") else str(computed)

    def evaluate_part(self, written: Part) -> tuple[Part, Origins] | None:
        """The part with its type and settings evaluated; a type that is a param may bring settings of its own."""
        part, origins = written, Origins()
        if evaluator.extract_expression(written.type) is not None:
            named = self._resolve_type_param(written)
            if named is None:
                return None
            part = self._merge_settings(named, written, origins)
        written_settings = _drop_cut_remainders(part.settings)
        settings = {key: self.evaluate(each, part.path_of(key), origins) for key, each in written_settings.items()}
        value = part.value if part.value is NO_VALUE else self.evaluate(part.value, part.settings_path, origins)
        if isinstance(value, dict):
            source = origins.get(part.settings_path)
            for key in value if source else ():
                origins[(*part.settings_path, key)] = (*(source or ()), key)
            settings, value = {**value, **settings}, NO_VALUE
        return replace(part, settings=settings, value=value), origins

    def _resolve_type_param(self, written: Part) -> Part | None:
        """The part that a `- $activation` stands for, at the param's own place."""
        name_path, _ = self.problems.names.get(written.path, (written.path, True))
        origins = Origins()
        chosen = self.evaluate(written.type, name_path, origins)
        return parse_part(chosen, origins.get(name_path, written.path), self.problems, kind="layer")

    def _merge_settings(self, named: Part, written: Part, origins: Origins) -> Part:
        """What stands below `$activation` goes over what the param brings."""
        if written.value is NO_VALUE and not written.settings:
            return replace(named, keys=written.keys, key_paths=written.key_paths)
        for key in named.settings.keys() - written.settings.keys():
            origins[(*written.settings_path, key)] = named.path_of(key)
        value = named.value if written.value is NO_VALUE else written.value
        return replace(written, type=named.type, settings={**named.settings, **written.settings}, value=value)


def _find_closing_bracket(text: str, start: int) -> int:
    """Behind the bracket that closes the one before `start`; -1 where none does."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return -1


def make_block_scope(
    params: Mapping[str, Any], given: Mapping[str, Any], path: KeyPath, scope: Scope, origins: Mapping[str, KeyPath]
) -> Scope:
    """The scope of a block: params that were given as they are, the others by their defaults, in order."""
    values = {name: each for name, each in scope.values.items() if name not in params} | dict(given)
    sources = {name: path for name, path in scope.origins.items() if name not in params}
    sources |= {name: origins[name] for name in given if name in origins}
    pending = {name: None for name in params if name not in given}
    block_scope = Scope(scope.problems, values, sources, pending.keys())
    for name in [*pending]:
        del pending[name]
        value = block_scope.evaluate(params[name], (*path, name))
        values[name] = block_scope.check_size(name, value, (*path, name))
        sources[name] = (*path, name)
    return block_scope
