"""`where`: choose rows by an expression over columns, such as `age >= 18 and label != "unsup"`.

It is dlspec's expression grammar with columns for names, computed for all rows at once. A column is compared as the
other side is written: with a number as numbers, with text as text. A missing cell equals null, and is neither smaller
nor larger than anything.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.tables.column_extraction import extract_columns as extract_columns
from dlspec.data.tables.column_values import MaskArray, NumberFormat, NumberSettings, TableColumn
from dlspec.data.tables.table import Table
from dlspec.data.tables.table_joins import join_tables as join_tables
from dlspec.errors import Code, DataError, format_value
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, ExpressionError, Grammar, check_length
from dlspec.limits import get_limit

LANGUAGE = (
    "a condition can contain columns, numbers, texts in quotes, null, lists, == != < <= > >=, in, and, or, not, "
    '+ - * /, len(COLUMN), column("a name with spaces")'
)
_CONSTANTS: Mapping[str, Any] = {"null": None, "None": None, "true": "true", "false": "false"}
_SWAPPED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def choose_rows(table: Table, where: str | None, numbers: NumberSettings | None = None) -> MaskArray:
    """Return which rows meet a condition, (N,).

    Args:
        table: the table
        where: the condition; None chooses all rows
        numbers: how numbers are written in the table; None: with a decimal point

    Raises:
        DataError: if the condition is not valid, or chooses no row.
    """
    if where is None:
        return np.ones(len(table), bool)
    try:
        tree = _parse(where)
        chosen = _Evaluation(table, numbers or NumberFormat()).evaluate_condition(tree)
    except ExpressionError as error:
        fix = f"; {error.finding.fix}" if error.finding.fix else ""
        raise DataError("where", error.finding.found + fix, error.finding.code) from None
    if not chosen.any():
        raise DataError("where", f"no row meets the condition {format_value(where)}", Code.NO_MATCH)
    return chosen


def _parse(text: str) -> ast.expr:
    check_length(text)
    return _GRAMMAR.parse(text.strip(), get_limit("formula_depth"))


def _check_call(node: ast.Call, text: str) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in ("len", "column") or len(node.args) != 1 or node.keywords:
        found = format_value(ast.get_source_segment(text, node) or text)
        raise ExpressionError(Code.UNKNOWN_FUNCTION, f"{found} is not allowed in a condition", LANGUAGE)


_LEAVES = (ast.Name, ast.Constant, ast.operator, ast.UAdd, ast.USub, ast.Not, ast.boolop, ast.cmpop, ast.expr_context)
_GRAMMAR = Grammar(
    nodes=(*_LEAVES, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.List, ast.Tuple, ast.Call),
    constants=(int, float, str, type(None)),
    language=LANGUAGE,
    format_node=lambda node, text: format_value(ast.get_source_segment(text, node) or text),
    check_call=_check_call,
    max_number=10**18,
)


class _Evaluation:
    """Computes an expression for all rows of a table."""

    def __init__(self, table: Table, numbers: NumberSettings) -> None:
        self._table, self._numbers = table, numbers

    def evaluate_condition(self, node: ast.expr) -> MaskArray:
        """Return which rows meet a condition."""
        match node:
            case ast.BoolOp(op=sign, values=parts):
                join: Callable[..., Any] = np.logical_and if isinstance(sign, ast.And) else np.logical_or
                return np.asarray(join.reduce([self.evaluate_condition(part) for part in parts]))  # type: ignore[attr-defined]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.evaluate_condition(operand)
            case ast.Compare(left=left, ops=signs, comparators=others):
                sides = [left, *others]
                masks = [self._compare(a, type(sign), b) for a, sign, b in zip(sides, signs, others, strict=False)]
                return np.asarray(np.logical_and.reduce(masks))
        fix = 'compare it: churned == "yes"' if isinstance(node, ast.Name) else LANGUAGE
        raise ExpressionError(Code.FORMULA_REFUSED, f"{format_value(ast.unparse(node))} is not a condition", fix)

    def _compare(self, left: ast.expr, sign: type[ast.cmpop], right: ast.expr) -> MaskArray:
        if sign in (ast.In, ast.NotIn):
            chosen = self._is_in(left, right)
            return ~chosen if sign is ast.NotIn else chosen
        if sign not in COMPARISONS:
            raise ExpressionError(Code.FORMULA_REFUSED, "'is' is not allowed in a condition", "write == null")
        a, b = self._evaluate(left), self._evaluate(right)
        if not isinstance(a, TableColumn) and isinstance(b, TableColumn):
            a, b, sign = b, a, _SWAPPED[sign]
        if isinstance(a, TableColumn):
            return a.compare(sign, b)
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            return self._compare_numbers(a, sign, b)
        found = f"{ast.unparse(left)} and {ast.unparse(right)} are the same in all rows"
        raise ExpressionError(Code.FORMULA_REFUSED, found, "name a column on one side")

    def _compare_numbers(self, left: Any, sign: type[ast.cmpop], right: Any) -> MaskArray:
        if isinstance(left, str) or isinstance(right, str):
            raise ExpressionError(Code.FORMULA_FAILED, "a computed number can't be compared with text", LANGUAGE)
        if left is None or right is None:
            is_missing = np.isnan(right if left is None else left)
            return np.asarray(is_missing if sign is ast.Eq else ~is_missing)
        return np.asarray(COMPARISONS[sign](left, right))

    def _is_in(self, left: ast.expr, right: ast.expr) -> MaskArray:
        if isinstance(right, ast.List | ast.Tuple):
            masks = [self._compare(left, ast.Eq, item) for item in right.elts]
            return np.asarray(np.logical_or.reduce(masks)) if masks else np.zeros(len(self._table), bool)
        item, column = self._evaluate(left), self._evaluate(right)
        if not isinstance(item, str) or not isinstance(column, TableColumn):
            fix = 'write COLUMN in ["a", "b"], or "a" in COLUMN'
            raise ExpressionError(Code.FORMULA_REFUSED, f"{format_value(ast.unparse(right))} is not a list", fix)
        return column.contains(item)

    def _evaluate(self, node: ast.expr) -> Any:
        """Return a column, computed numbers (N,), or a constant."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._look_up(name)
            case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str() as name)]):
                return self._get_column(name)
            case ast.Call(func=ast.Name(id="len"), args=[operand]):
                return self._require_column(operand).count_lengths()
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self._read_number(operand)
                return -number if isinstance(sign, ast.USub) else number
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
                return self._compute(type(sign), self._read_number(left), self._read_number(right))
        raise ExpressionError(Code.FORMULA_REFUSED, f"{format_value(ast.unparse(node))} is not a value", LANGUAGE)

    def _compute(self, sign: type[ast.operator], left: Any, right: Any) -> Any:
        with np.errstate(all="ignore"):  # 1 / 0 is infinite or NaN, and NaN is neither smaller nor larger than anything
            return ARITHMETIC[sign](np.asarray(left, np.float64), np.asarray(right, np.float64))

    def _read_number(self, node: ast.expr) -> Any:
        value = self._evaluate(node)
        if isinstance(value, TableColumn):
            return value.read_numbers()
        if isinstance(value, str) or value is None:
            found = f"{format_value(ast.unparse(node))} is not a number"
            raise ExpressionError(Code.FORMULA_FAILED, found, LANGUAGE)
        return value

    def _require_column(self, node: ast.expr) -> TableColumn:
        value = self._evaluate(node)
        if not isinstance(value, TableColumn):
            raise ExpressionError(Code.FORMULA_REFUSED, f"{format_value(ast.unparse(node))} is not a column", LANGUAGE)
        return value

    def _look_up(self, name: str) -> Any:
        if name in _CONSTANTS and name not in self._table.columns:
            return _CONSTANTS[name]
        return self._get_column(name)

    def _get_column(self, name: str) -> TableColumn:
        values: NDArray[Any] = self._table.get_column(name, "where")
        return TableColumn(self._table, name, values, self._numbers)
