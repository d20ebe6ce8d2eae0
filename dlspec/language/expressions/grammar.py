"""The core of both kinds of formula, `$(...)` and `Formula`: text becomes a tree that holds only what is allowed.

Python parses the text, and nothing of it is ever run. What each kind allows is its own `Grammar`; what the trees mean
is up to those that walk them.
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
    """A formula that can't be read or computed; its finding says which and why, and what may stand there."""

    def __init__(self, code: Code, found: str, fix: str = "") -> None:
        super().__init__(found)
        self.finding = Finding(code, found, fix)


@dataclass(frozen=True)
class Grammar:
    """What one kind of formula may hold, and how its messages show it.

    `nodes` are Python's names for what may stand there, `constants` the types of values; a number beyond `max_number`
    is refused where it is written. `language` says all that in a line. `format_node` is given a node and the text that it
    was parsed from; with `unparses_nodes` it writes the node anew, so that all bounds are checked before. `check_call`
    raises for functions that the kind does not have.
    """

    nodes: tuple[type[ast.AST], ...]
    constants: tuple[type, ...]
    language: str
    format_node: Callable[[ast.AST, str], str]
    format_text: Callable[[str], str] = format_value
    check_call: Callable[[ast.Call, str], None] | None = None
    max_number: float = math.inf
    unparses_nodes: bool = False

    def parse(self, text: str, max_depth: int) -> ast.expr:
        """The tree of a text, every node of it allowed; raises `ExpressionError`."""
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
            found = f"{self.format_text(text)} is no formula"
            raise ExpressionError(Code.FORMULA_SYNTAX, found, self.language) from None

    def _walk_nodes(self, tree: ast.expr, max_depth: int) -> Iterator[ast.AST]:
        """All nodes, by their depth; raises where depth or numbers are without end."""
        nodes: list[tuple[ast.AST, int]] = [(tree, 0)]
        for node, depth in nodes:  # grows while it is walked: a formula may nest deeper than Python's stack
            if depth > max_depth:
                found = f"a formula nested more than {max_depth} deep"
                raise ExpressionError(Code.TOO_LARGE, found, explain_raising_limit("formula_depth"))
            if isinstance(node, ast.Constant) and _exceeds(node.value, self.max_number):
                raise ExpressionError(Code.TOO_LARGE, f"a number beyond {self.max_number:.0e}", "write a smaller one")
            nodes += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
            yield node

    def _check_node(self, node: ast.AST, text: str) -> None:
        if isinstance(node, ast.Call) and self.check_call is not None:
            self.check_call(node, text)
        is_refused = isinstance(node, ast.Constant) and not isinstance(node.value, self.constants)
        if is_refused or not isinstance(node, self.nodes):
            found = f"{self.format_node(node, text)} can't stand in a formula"
            raise ExpressionError(Code.FORMULA_REFUSED, found, self.language)


def check_length(text: str) -> None:
    """Raises `ExpressionError` for a longer text than the limit."""
    max_length = get_limit("formula_length")
    if len(text) > max_length:
        found = f"a formula of {len(text):,} characters; {max_length:,} are allowed"
        raise ExpressionError(Code.TOO_LARGE, found, explain_raising_limit("formula_length"))


def _exceeds(value: Any, max_value: float) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return max_value < math.inf
    return isinstance(value, int) and abs(value) > max_value
