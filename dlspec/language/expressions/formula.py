"""Parse and check formulas such as `Formula: mu + exp(logvar / 2)`. `parts/layers/formula_layer.py` computes them.

Nothing is given to `eval`. Only the functions and operations listed here are supported, and numbers, sizes and nesting
have limits. That the batch (dimension 0) stays whole is checked by `formula_batch`: it depends on what the names mean.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from dlspec.errors import Code, format_value
from dlspec.language.expressions.evaluation import MAX_NUMBER
from dlspec.language.expressions.formula_checks import check_operand
from dlspec.language.expressions.formula_tree import FORMULA_LANGUAGE, format_node, is_number
from dlspec.language.expressions.grammar import ExpressionError, Grammar, check_length
from dlspec.limits import get_limit

_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Name, ast.Constant, ast.keyword)
_NODES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.List, ast.Tuple, ast.Subscript, ast.Slice)
_GRAMMAR = Grammar(
    nodes=(*_LEAVES, *_NODES, ast.Call, ast.Attribute),
    constants=(int, float, str, type(None), type(...)),
    language=FORMULA_LANGUAGE,
    format_node=format_node,
    max_number=MAX_NUMBER,
    unparses_nodes=True,
)


def parse_formula(text: str) -> ast.expr:
    """Parse a formula; raise `ExpressionError` if it contains anything that is not allowed."""
    check_length(text)
    return _parse_formula(text, get_limit("formula_depth"), get_limit("formula_size"))


@lru_cache(maxsize=1_000)  # a layer parses its formula more than once; the limits are part of the key
def _parse_formula(text: str, max_depth: int, max_size: int) -> ast.expr:
    for sign, fix in (("$", "write '$' only before a param's name"), ("#", "move the comment out of the formula")):
        if sign in text:
            raise ExpressionError(Code.FORMULA_SYNTAX, f"'{sign}' is not allowed in {format_value(text)}", fix)
    tree = _GRAMMAR.parse(" ".join(text.split()), max_depth)
    check_operand(tree)
    if is_number(tree):
        raise ExpressionError(
            Code.FORMULA_REFUSED, f"{format_value(text)} uses no output", "name one, or write _ for the previous one"
        )
    return tree
