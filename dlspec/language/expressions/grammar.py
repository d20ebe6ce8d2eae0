"""Parse both kinds of expression, `$(...)` and `Formula`, into syntax trees that contain only allowed nodes.

Python parses the text but never runs it. Each kind has its own `Grammar`; other modules evaluate the trees.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlspec.errors import Code, Finding, format_value
from dlspec.limits import explain_raising_limit, get_limit

CLOSE_BRACKET_FIX = "add the ')'; an expression with ',' inside { } or [ ] needs quotes around it"
Operators = Mapping[type[ast.AST], Callable[..., Any]]

ARITHMETIC: Operators = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS: Operators = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
UNARY_SIGNS: Operators = {ast.USub: operator.neg, ast.UAdd: operator.pos}


class ExpressionError(ValueError):
    """An expression or formula can't be parsed or computed. `finding` has the code, the message and the fix."""

    def __init__(self, code: Code, found: str, fix: str = "") -> None:
        super().__init__(found)
        self.finding = Finding(code, found, fix)


@dataclass(frozen=True)
class Grammar:
    """What one kind of expression may contain, and how messages display it."""

    nodes: tuple[type[ast.AST], ...]  # allowed nodes of Python's syntax tree
    constants: tuple[type, ...]  # allowed types of constants
    language: str  # summary of what is allowed, used as a fix
    format_node: Callable[[ast.AST, str], str]  # formats a node for messages, given the node and the whole text
    format_text: Callable[[str], str] = format_value  # formats the whole text for messages
    check_call: Callable[[ast.Call, str], None] | None = None  # raises for calls that are not allowed
    max_number: float = math.inf  # largest number that may be written
    unparses_nodes: bool = False  # `format_node` unparses nodes, so depth and numbers must be checked before

    def parse(self, text: str, max_depth: int) -> ast.expr:
        """Parse a text and check every node; raise `ExpressionError` if something is not allowed."""
        tree = self._parse_text(text)
        nodes = self._walk_nodes(tree, max_depth)
        for node in list(nodes) if self.unparses_nodes else nodes:
            self._check_node(node, text)
        return tree

    def _parse_text(self, text: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's own, about '5 is 5', '5[0]' or a backslash
                return ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            if text.count("(") > text.count(")"):
                raise ExpressionError(
                    Code.FORMULA_SYNTAX, f"missing ')' in {self.format_text(text)}", CLOSE_BRACKET_FIX
                ) from None
            found = f"{self.format_text(text)} is not a valid expression"
            raise ExpressionError(Code.FORMULA_SYNTAX, found, self.language) from None

    def _walk_nodes(self, tree: ast.expr, max_depth: int) -> Iterator[ast.AST]:
        """Iterate over all nodes, level by level; raise if nesting or numbers exceed the limits."""
        nodes: list[tuple[ast.AST, int]] = [(tree, 0)]
        for node, depth in nodes:  # grows while it is walked: a formula may nest deeper than Python's stack
            if depth > max_depth:
                found = f"an expression nested more than {max_depth} levels deep"
                raise ExpressionError(Code.TOO_LARGE, found, explain_raising_limit("formula_depth"))
            if isinstance(node, ast.Constant) and _is_number_too_large(node.value, self.max_number):
                raise ExpressionError(Code.TOO_LARGE, f"a number beyond {self.max_number:.0e}", "write a smaller one")
            nodes += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
            yield node

    def _check_node(self, node: ast.AST, text: str) -> None:
        if isinstance(node, ast.Call) and self.check_call is not None:
            self.check_call(node, text)
        is_refused = isinstance(node, ast.Constant) and not isinstance(node.value, self.constants)
        if is_refused or not isinstance(node, self.nodes):
            found = f"{self.format_node(node, text)} is not allowed"
            raise ExpressionError(Code.FORMULA_REFUSED, found, self.language)


def check_length(text: str) -> None:
    """Raise `ExpressionError` if a text is longer than the limit."""
    max_length = get_limit("formula_length")
    if len(text) > max_length:
        found = f"an expression of {len(text):,} characters; at most {max_length:,} are allowed"
        raise ExpressionError(Code.TOO_LARGE, found, explain_raising_limit("formula_length"))


def _is_number_too_large(value: Any, max_value: float) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return max_value < math.inf
    return isinstance(value, int) and abs(value) > max_value
