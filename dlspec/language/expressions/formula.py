"""What `Formula: mu + exp(logvar / 2)` may say: parsed and checked here, computed in `parts/layers/formula_layer.py`.

Nothing is evaluated as text. Only the functions and operations listed here exist; the batch, dimension 0, can't be
reached by an index, a `dim` or a size; and what could grow without end has a limit.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from dlspec.errors import Code, format_value
from dlspec.language.expressions.evaluation import MAX_NUMBER
from dlspec.language.expressions.formula_checks import check_operand
from dlspec.language.expressions.formula_tree import FORMULA_LANGUAGE, find_output_names, format_node
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
    """The formula's tree, every part of it allowed; raises `ExpressionError` for what the language does not have."""
    check_length(text)
    return _parse_formula(text, get_limit("formula_depth"), get_limit("formula_size"))


@lru_cache(maxsize=1_000)  # a layer asks for its tree several times; the limits are part of the key
def _parse_formula(text: str, max_depth: int, max_size: int) -> ast.expr:
    for sign, fix in (("$", "write the name of one of the params"), ("#", "comments stand outside of a formula")):
        if sign in text:
            raise ExpressionError(Code.FORMULA_SYNTAX, f"'{sign}' can't stand in {format_value(text)}", fix)
    tree = _GRAMMAR.parse(" ".join(text.split()), max_depth)
    check_operand(tree)
    if not find_output_names(tree):
        raise ExpressionError(
            Code.FORMULA_REFUSED, f"{format_value(text)} reads no output", "name one, or write _ for the one before"
        )
    return tree
