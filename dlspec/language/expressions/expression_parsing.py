"""Find and parse expressions over params: `$name` and `$(4 * width)`. `evaluation` computes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dlspec.errors import Code, format_value
from dlspec.language.expressions.expression_functions import EXPRESSION_FUNCTIONS
from dlspec.language.expressions.grammar import CLOSE_BRACKET_FIX as CLOSE_BRACKET_FIX
from dlspec.language.expressions.grammar import ExpressionError as ExpressionError
from dlspec.language.expressions.grammar import Grammar, check_length
from dlspec.limits import get_limit

CONSTANTS: Mapping[str, Any] = {"null": None, "true": True, "false": False}
_NAME = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)$")
_EMBEDDED = re.compile(r"(?<!\$)(?:\$\$)*\$([A-Za-z_(])")
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class UnknownValue:
    """A value that is not known yet, such as a fact of data that are not loaded. Checks that need it are postponed."""

    key: str

    def __str__(self) -> str:
        return f"${{{self.key}}}"


class InvalidValue(UnknownValue):
    """Replaces a value for which a problem was reported, so that it causes no further problems."""


def list_children(value: Any) -> Iterable[Any]:
    """Return the values of a mapping or the items of a list; () for anything else."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def find_unknown_keys(value: Any) -> set[str]:
    """Find the keys of all unknown values in a value, also inside lists and mappings."""
    if isinstance(value, UnknownValue):
        return {value.key}
    return {key for child in list_children(value) for key in find_unknown_keys(child)}


EXPRESSION_LANGUAGE = (
    "an expression can contain params, numbers, strings, lists, + - * / // % **, comparisons, if else, "
    f"{', '.join(EXPRESSION_FUNCTIONS)}"
)


def extract_expression(value: Any) -> str | None:
    """Return a value's expression: 'width' for '$width', '4 * width' for '$(4 * width)', None for anything else."""
    if (
        not isinstance(value, str)
        or not value.startswith("$")
        or value.startswith("$$")
        or lacks_closing_bracket(value)
    ):
        return None
    name = _NAME.match(value)
    if name is not None:
        return name[1]
    return value[2:-1].strip() if value.startswith("$(") and value.endswith(")") else None


def has_embedded_expression(value: Any) -> bool:
    """Whether a string contains an expression within other text, which is allowed only in names and references."""
    return isinstance(value, str) and extract_expression(value) is None and _EMBEDDED.search(value) is not None


_LOOKS_COMPUTED = re.compile(r"[\[*/+]| - ")


def lacks_closing_bracket(value: Any) -> bool:
    """Whether an expression lacks a ')', for example because YAML split it at a comma."""
    return isinstance(value, str) and value.startswith("$(") and value.count("(") > value.count(")")


def guess_intended_expression(value: str) -> str:
    """Guess the expression that `$sizes[0]` or `2 * $width` was meant to be, to be put in `$(...)`; '' if none."""
    text = re.sub(r"\$([A-Za-z_])", r"\1", value)
    if not _LOOKS_COMPUTED.search(value):
        return ""
    try:
        parse_expression(text)
    except ExpressionError:
        return ""
    return text


def unescape_dollars(value: Any) -> Any:
    """Replace `$$`, which means a literal dollar sign, by `$`."""
    return value.replace("$$", "$") if isinstance(value, str) else value


def parse_expression(text: str) -> ast.expr:
    """Parse an expression; raise `ExpressionError` if it contains anything that is not allowed."""
    check_length(text)
    return _parse_expression(text, get_limit("formula_depth"))


@lru_cache(maxsize=1_000)  # a repeated entry's expressions are evaluated for each copy
def _parse_expression(text: str, max_depth: int) -> ast.expr:
    return _GRAMMAR.parse(text, max_depth)


def _check_call(node: ast.Call, text: str) -> None:
    if not isinstance(node.func, ast.Name) or node.func.id not in EXPRESSION_FUNCTIONS:
        raise ExpressionError(
            Code.UNKNOWN_FUNCTION,
            f"unknown function {_format_source(node.func, text)}",
            f"available: {', '.join(EXPRESSION_FUNCTIONS)}",
        )
    if node.keywords:
        raise ExpressionError(Code.FORMULA_REFUSED, f"{_format_source(node, text)}: keyword arguments are not allowed")


def _format_source(node: ast.AST, text: str) -> str:
    return format_value(ast.get_source_segment(text, node) or text)


_LEAVES = (ast.Name, ast.Constant, ast.operator, ast.UAdd, ast.USub, ast.Not, ast.boolop, ast.cmpop, ast.expr_context)
_NODES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Subscript, ast.Slice)
_GRAMMAR = Grammar(
    nodes=(*_LEAVES, *_NODES, ast.Call),
    constants=(int, float, str, type(None)),
    language=EXPRESSION_LANGUAGE,
    format_node=_format_source,
    format_text=lambda text: f"'{text}'",
    check_call=_check_call,
)


def find_params(text: str) -> set[str]:
    """Find the params that an expression uses."""
    return {node.id for node in ast.walk(parse_expression(text)) if isinstance(node, ast.Name)} - {
        *EXPRESSION_FUNCTIONS,
        *CONSTANTS,
    }


_DOLLAR_TEXT = re.compile(r"\$\(.*|\$\w+", re.S)


def find_words_after_dollar(text: str) -> set[str]:
    """Find all words after a `$` in a text: the names that its expressions use, and possibly some more."""
    return {word for found in _DOLLAR_TEXT.findall(text) for word in find_words(found)}


def find_words(text: str) -> set[str]:
    """Find all words of a text, any of which may be the name of a param."""
    return set(_WORD.findall(text))
