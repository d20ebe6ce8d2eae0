"""`$name` and `$(4 * width)`: formulas over params, found in a value and parsed; `evaluation` computes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dlspec.errors import Code, shown
from dlspec.language.expressions.expression_functions import FUNCTIONS
from dlspec.language.expressions.grammar import ExpressionError as ExpressionError
from dlspec.language.expressions.grammar import Grammar, check_length
from dlspec.limits import limit

CONSTANTS: Mapping[str, Any] = {"null": None, "true": True, "false": False}
_NAME = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)$")
_INSIDE = re.compile(r"(?<!\$)(?:\$\$)*\$([A-Za-z_(])")
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Unknown:
    """A fact that only the opened data know. It passes the checks of form; those that need its value wait."""

    key: str

    def __str__(self) -> str:
        return f"${{{self.key}}}"


class Wrong(Unknown):
    """Stands in the place of a value whose mistake was told, so that nothing else is said about it."""


def children_of(value: Any) -> Iterable[Any]:
    """The values of a mapping, the items of a list; none of anything else."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def find_unknowns(value: Any) -> set[str]:
    """The keys of what is not known yet in a value, through lists and mappings."""
    if isinstance(value, Unknown):
        return {value.key}
    return {key for child in children_of(value) for key in find_unknowns(child)}


LANGUAGE = f"formulas have params, numbers, text, lists, + - * / // % **, comparisons, if else, {', '.join(FUNCTIONS)}"


def formula_of(value: Any) -> str | None:
    """The formula that a value is: 'width' for '$width', '4 * width' for '$(4 * width)', None for anything else."""
    if not isinstance(value, str) or not value.startswith("$") or value.startswith("$$") or is_unclosed(value):
        return None
    name = _NAME.match(value)
    if name is not None:
        return name[1]
    return value[2:-1].strip() if value.startswith("$(") and value.endswith(")") else None


def is_partial(value: Any) -> bool:
    """Whether text contains a formula without being one, which only names and references may."""
    return isinstance(value, str) and formula_of(value) is None and _INSIDE.search(value) is not None


CLOSE = "write ')' behind it; where it has a ',' within { } or [ ] put quotes around it"
_LOOKS_COMPUTED = re.compile(r"[\[*/+]| - ")


def is_unclosed(value: Any) -> bool:
    """Whether a formula's brackets are not closed, as where YAML cut it at a comma."""
    return isinstance(value, str) and value.startswith("$(") and value.count("(") > value.count(")")


def without_brackets(value: str) -> str:
    """The formula that `$sizes[0]` or `2 * $width` was meant to be, which wants `$(...)` around it; '' for text."""
    text = re.sub(r"\$([A-Za-z_])", r"\1", value)
    if not _LOOKS_COMPUTED.search(value):
        return ""
    try:
        parse(text)
    except ExpressionError:
        return ""
    return text


def unescape(value: Any) -> Any:
    """`$$` is a literal dollar."""
    return value.replace("$$", "$") if isinstance(value, str) else value


def parse(text: str) -> ast.expr:
    """The formula's tree; raises `ExpressionError` for what the language does not have."""
    check_length(text)
    return _parsed(text, limit("formula_depth"))


@lru_cache(maxsize=1_000)  # a repeated entry's formulas are computed for each copy
def _parsed(text: str, max_depth: int) -> ast.expr:
    return _GRAMMAR.parse(text, max_depth)


def _check_call(node: ast.Call, text: str) -> None:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        raise ExpressionError(
            Code.UNKNOWN_FUNCTION, f"no function {_written(node.func, text)}", f"there is: {', '.join(FUNCTIONS)}"
        )
    if node.keywords:
        raise ExpressionError(
            Code.FORMULA_REFUSED, f"{_written(node, text)}: arguments by name can't stand in a formula"
        )


def _written(node: ast.AST, text: str) -> str:
    return shown(ast.get_source_segment(text, node) or text)


_LEAVES = (ast.Name, ast.Constant, ast.operator, ast.UAdd, ast.USub, ast.Not, ast.boolop, ast.cmpop, ast.expr_context)
_NODES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Subscript, ast.Slice)
_GRAMMAR = Grammar(
    nodes=(*_LEAVES, *_NODES, ast.Call),
    constants=(int, float, str, type(None)),
    language=LANGUAGE,
    show_node=_written,
    show_text=lambda text: f"'{text}'",
    check_call=_check_call,
)


def names_in(text: str) -> set[str]:
    """The params that a formula reads."""
    return {node.id for node in ast.walk(parse(text)) if isinstance(node, ast.Name)} - {*FUNCTIONS, *CONSTANTS}


_READS = re.compile(r"\$\(.*|\$\w+", re.S)


def words_behind_dollars(text: str) -> set[str]:
    """The words of a text that stand behind a `$`: what its formulas read, and a little more."""
    return {word for found in _READS.findall(text) for word in words_in(found)}


def words_in(text: str) -> set[str]:
    """The words of a text that is no formula: what may have been meant as params."""
    return set(_WORD.findall(text))
