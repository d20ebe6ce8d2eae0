"""A block's params, and the evaluation of expressions that use them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.expressions import evaluation, expression_parsing
from dlspec.language.expressions.expression_functions import EXPRESSION_FUNCTIONS
from dlspec.language.expressions.expression_parsing import ExpressionError, InvalidValue, UnknownValue
from dlspec.language.parse.deferred import Deferred, compute_deferred, is_deferred
from dlspec.language.parse.part import NO_VALUE, Part, parse_part
from dlspec.language.problems import Problems
from dlspec.limits import explain_raising_limit, get_limit

IN_CHANNELS, INDEX = "in_channels", "index"
# Names that have a value only while a layer is built or repeated, and where they can be used.
_LATE_NAMES = {
    IN_CHANNELS: "it is the number of channels of an entry's input: use it in an entry's settings",
    INDEX: "it counts the copies of a repeated entry: use it in an entry with 'repeat'",
}
_EMBEDDED_FIX = "an expression must be the whole value, with strings in quotes: $(mode + 'ear')"
_DOLLAR_SIGN = re.compile(r"\$\$|\$([A-Za-z_]\w*)|\$\(")

# From the path of a setting that is a param, such as `width: $width`, to the path where the param's value was written.
Origins = dict[KeyPath, KeyPath]

EXAMPLE_SIZE = 720  # in place of a fact that is not known yet; $n // 16 and $n - 1 of it are sizes, too


def read_params(raw: Any, path: KeyPath, problems: Problems) -> dict[str, Any]:
    """Read a block's params; those with invalid names are reported and left out.

    Args:
        raw: Value of `params`.
        path: Its path.
        problems: Collects what is wrong.

    Returns:
        The params by name, not evaluated.
    """
    if raw is None or isinstance(raw, InvalidValue):
        return {}
    if not isinstance(raw, dict):
        problems.add(Code.WRONG_TYPE, path, "'params' must be a mapping", "write 'params: {width: 64}'", at_value=True)
        return {}
    for name in (each for each in raw if not can_name_param(each)):
        fix = "use letters, digits and _; names of functions and keywords are reserved"
        problems.add(Code.INVALID_NAME, (*path, name), f"{format_value(name)} is not a valid name for a param", fix)
    return {name: value for name, value in raw.items() if can_name_param(name)}


def can_name_param(name: Any) -> bool:
    """Whether a value can be the name of a param."""
    reserved = {*EXPRESSION_FUNCTIONS, *expression_parsing.CONSTANTS, *_LATE_NAMES}
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and not keyword.iskeyword(name) and name not in reserved


def _drop_split_expression_rest(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remove the rest of an expression such as `{size: $(max(w, 10))}` that YAML split at its comma into two keys.

    The first half is reported as not closed, so the second half would only give a misleading problem.
    """
    if not any(expression_parsing.lacks_closing_bracket(each) for each in settings.values()):
        return settings
    return {key: each for key, each in settings.items() if each is not None or ")" not in str(key)}


@dataclass(frozen=True)
class Scope:
    """The names that expressions can use: params of the block and of those around it, and a repeat's variables."""

    problems: Problems
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, KeyPath] = field(default_factory=dict)  # where each value was written
    defined_below: Collection[str] = ()  # params that have no value yet, because they are defined further down
    hides_index: bool = False  # whether `$index` of one repeat hides that of another one around it

    def with_values(self, values: Mapping[str, Any], origins: Mapping[str, KeyPath] | None = None) -> Scope:
        """Return a copy of this scope with more values, which hide existing ones of the same name."""
        kept = {name: path for name, path in self.origins.items() if name not in values}
        return replace(self, values={**self.values, **values}, origins={**kept, **(origins or {})})

    def evaluate(self, value: Any, path: KeyPath, origins: Origins | None = None) -> Any:
        """Evaluate all expressions in a value, also inside lists and mappings.

        Args:
            value: The value as written.
            path: Its path.
            origins: If given, filled with the origins of settings that are a param.

        Returns:
            The value with its expressions replaced; `InvalidValue` for those that are reported as a problem.
        """
        if isinstance(value, list):
            return [self.evaluate(each, (*path, index), origins) for index, each in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.evaluate(each, (*path, key), origins) for key, each in value.items()}
        if not isinstance(value, str) or "$" not in value:
            return value
        formula = expression_parsing.extract_expression(value)
        if formula is not None:
            if origins is not None and formula in self.origins:
                origins[path] = self.origins[formula]
            return self._compute_expression(formula, path)
        if not expression_parsing.has_embedded_expression(value):
            return expression_parsing.unescape_dollars(value)
        if expression_parsing.lacks_closing_bracket(value):
            return self._report_missing_bracket(value, path)
        bare = expression_parsing.guess_intended_expression(value)
        fix = f"write $({bare})" if bare else _EMBEDDED_FIX
        return self._report_invalid(
            Code.FORMULA_SYNTAX, value, path, f"{format_value(value)} mixes text and an expression", fix
        )

    def _compute_expression(self, formula: str, path: KeyPath) -> Any:
        try:
            names = expression_parsing.find_params(formula)
            if self.hides_index and INDEX in names:
                return self._report_hidden_index(path)
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

    def _report_hidden_index(self, path: KeyPath) -> InvalidValue:
        found = "$index is ambiguous: this entry is repeated inside a repeated entry"
        fix = "write repeat: {level: [0, 1, 2]} and $level for its own copies, or the same for the entry around it"
        return self._report_invalid(Code.AMBIGUOUS, INDEX, path, found, fix)

    def _describe_values(self, formula: str) -> str:
        """List the values of an expression's params, because a block's params depend on the entry that uses it."""
        try:
            names = sorted(expression_parsing.find_params(formula))
        except ExpressionError:
            return ""
        known = [f"{name} = {format_value(self.values[name], 30)}" for name in names if name in self.values]
        return f"with {', '.join(known)}" if known else ""

    def _defer_expression(self, formula: str, names: Collection[str]) -> Any:
        """Make a `Deferred` of an expression that uses `$in_channels`."""
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
        """Check that a param's value is not too large, which lists of lists quickly become.

        Args:
            name: Name of the param.
            value: Its value.
            path: Its path.

        Returns:
            The value, or `InvalidValue` if it is too large.
        """
        max_count, count, queue = get_limit("formula_size"), 0, [value]
        while queue and count <= max_count:
            each = queue.pop()
            count += 1
            queue += list(expression_parsing.list_children(each))[: max_count + 1]
        if count <= max_count:
            return value
        found = f"param '{name}' contains more than {max_count:,} values"
        return self._report_invalid(Code.TOO_LARGE, name, path, found, explain_raising_limit("formula_size"))

    def _report_invalid(self, code: Code, text: str, path: KeyPath, found: str, fix: str) -> InvalidValue:
        self.problems.add(code, path, found, fix, at_value=True)
        return InvalidValue(text)

    def _report_missing_bracket(self, text: str, path: KeyPath) -> InvalidValue:
        found, fix = f"missing ')' in {format_value(text)}", expression_parsing.CLOSE_BRACKET_FIX
        return self._report_invalid(Code.FORMULA_SYNTAX, text, path, found, fix)

    def _report_unknown_param(self, name: str, path: KeyPath) -> None:
        if name in _LATE_NAMES:
            self.problems.add(
                Code.KNOWN_TOO_LATE, path, f"'${name}' can't be used here", _LATE_NAMES[name], at_value=True
            )
            return
        known = [each for each in self.values if each != IN_CHANNELS]
        fix = suggest(name, known) or "no params are defined here: add 'params: {...}'"
        if name in self.defined_below:
            fix = f"'{name}' is defined further down: move it up"
        self.problems.add(Code.UNKNOWN_PARAM, path, f"unknown param '{name}'", fix, at_value=True)

    def insert_params(self, value: Any, path: KeyPath, *, bracket_negatives: bool = False) -> Any:
        """Insert the values of params into a text such as `stage$index`.

        Args:
            value: The text. Other values are returned unchanged.
            path: Its path.
            bracket_negatives: For formulas: put negative numbers in parentheses, and always return text.

        Returns:
            The text; the value if the whole text is one expression; `InvalidValue` if something can't be computed.
        """
        if not isinstance(value, str) or "$" not in value:
            return value
        if not bracket_negatives and expression_parsing.extract_expression(value) is not None:
            return self.evaluate(value, path)
        pieces: list[str] = []
        at = 0
        while (found := _DOLLAR_SIGN.search(value, at)) is not None:
            pieces.append(value[at : found.start()])
            end = found.end() if found[0] != "$(" else _find_closing_bracket(value, found.end())
            if end < 0:
                return self._report_missing_bracket(value, path)
            piece = (
                "$"
                if found[0] == "$$"
                else self._format_embedded_expression(value[found.start() : end], path, bracket_negatives)
            )
            if piece is None:
                return InvalidValue(value)
            pieces.append(piece)
            at = end
        return "".join([*pieces, value[at:]])

    def _format_embedded_expression(self, formula: str, path: KeyPath, bracket_negatives: bool) -> str | None:
        """Evaluate an expression inside a text and format the result; None if it can't be inserted."""
        before, computed = len(self.problems), self.evaluate(formula, path)
        if isinstance(computed, Deferred) and len(self.problems) == before:
            found = f"{formula} is not known before the layer is built"
            self.problems.add(Code.KNOWN_TOO_LATE, path, found, "use a number or a param", at_value=True)
        if isinstance(computed, Deferred):
            return None
        if isinstance(computed, UnknownValue):
            # A fact of the data that is not known yet: a number will do to check the text.
            return str(EXAMPLE_SIZE) if not isinstance(computed, InvalidValue) else None
        if isinstance(computed, list | dict) or computed is None:
            if len(self.problems) == before:
                found = f"{formula} is {format_value(computed)}, which can't be inserted here"
                self.problems.add(Code.WRONG_VALUE, path, found, "use a number or a string", at_value=True)
            return None
        return f"({computed})" if bracket_negatives and str(computed).startswith("-") else str(computed)

    def evaluate_part(self, written: Part) -> tuple[Part, Origins] | None:
        """Evaluate the type and the settings of a part.

        If the type is a param such as `$activation`, the param's value may contain settings too.

        Returns:
            The part and the origins of its settings; None if the type does not name a part.
        """
        part, origins = written, Origins()
        if expression_parsing.extract_expression(written.type) is not None:
            named = self._resolve_type_param(written)
            if named is None:
                return None
            part = self._merge_settings(named, written, origins)
        written_settings = _drop_split_expression_rest(part.settings)
        settings = {key: self.evaluate(each, part.path_of(key), origins) for key, each in written_settings.items()}
        value = part.value if part.value is NO_VALUE else self.evaluate(part.value, part.settings_path, origins)
        if isinstance(value, dict):
            source = origins.get(part.settings_path)
            for key in value if source else ():
                origins[(*part.settings_path, key)] = (*(source or ()), key)
            settings, value = {**value, **settings}, NO_VALUE
        return replace(part, settings=settings, value=value), origins

    def _resolve_type_param(self, written: Part) -> Part | None:
        """Parse the part that a param such as `$activation` refers to, with the path where the param was written."""
        name_path, _ = self.problems.names.get(written.path, (written.path, True))
        origins = Origins()
        chosen = self.evaluate(written.type, name_path, origins)
        return parse_part(chosen, origins.get(name_path, written.path), self.problems, kind="layer")

    def _merge_settings(self, named: Part, written: Part, origins: Origins) -> Part:
        """Merge the settings written below `$activation` into those of the param's value, which they replace."""
        if written.value is NO_VALUE and not written.settings:
            return replace(named, keys=written.keys, key_paths=written.key_paths)
        for key in named.settings.keys() - written.settings.keys():
            origins[(*written.settings_path, key)] = named.path_of(key)
        value = named.value if written.value is NO_VALUE else written.value
        return replace(written, type=named.type, settings={**named.settings, **written.settings}, value=value)


def _find_closing_bracket(text: str, start: int) -> int:
    """Return the index after the ')' that closes the '(' before `start`; -1 if there is none."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return -1


def make_block_scope(
    params: Mapping[str, Any], given: Mapping[str, Any], path: KeyPath, scope: Scope, origins: Mapping[str, KeyPath]
) -> Scope:
    """Make the scope for the expressions of a block: given params, and the defaults of the others in order.

    Args:
        params: The block's params and their defaults as written.
        given: Values given by the entry that uses the block.
        path: Path of the block's `params`.
        scope: Scope of the block around this one.
        origins: Where the given values were written.
    """
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
