"""Evaluate expressions such as `$(4 * width)` by walking their syntax tree, never with `eval`.

Only numbers, strings, lists and the operations listed here are supported. Powers, repeated lists and long strings have
limits, so that an expression can't exhaust memory.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from dlspec.errors import Code, format_value
from dlspec.language.expressions.expression_functions import EXPRESSION_FUNCTIONS
from dlspec.language.expressions.expression_parsing import (
    CONSTANTS,
    EXPRESSION_LANGUAGE,
    UnknownValue,
    list_children,
    parse_expression,
)
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, UNARY_SIGNS, ExpressionError, Operators
from dlspec.limits import explain_raising_limit, get_limit

MAX_EXPONENT = 1_000
MAX_NUMBER = 10**18

_COMPARE: Operators = {
    **COMPARISONS,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_UNARY_OPERATORS: Operators = {**UNARY_SIGNS, ast.Not: operator.not_}


def evaluate_expression(text: str, scope: Mapping[str, Any]) -> Any:
    """Evaluate an expression.

    Args:
        text: The expression, without `$(` and `)`.
        scope: Values of the params by name.

    Returns:
        The value, or an `UnknownValue` if the expression needs a value that is not known yet.

    Raises:
        ExpressionError: The expression can't be parsed or computed.
    """
    tree = parse_expression(text)
    if isinstance(tree, ast.Name) and tree.id in scope:
        return scope[tree.id]
    try:
        return _evaluate_node(tree, scope)
    except _UnknownValueNeeded as needed:
        return needed.unknown
    except ExpressionError as error:
        raise ExpressionError(
            error.finding.code, f"{format_value(text)}: {error.finding.found}", error.finding.fix
        ) from None
    except (TypeError, ZeroDivisionError, IndexError, ValueError, OverflowError) as error:
        raise ExpressionError(
            Code.FORMULA_FAILED, f"{format_value(text)}: {_reword_python_error(str(error))}"
        ) from None


def _reword_python_error(message: str) -> str:
    """Replace Python's type names in an error message by plain words."""
    message = re.sub(r"unsupported operand type\(s\) for (.+): (.+)", r"\1 can't be applied to \2", message)
    yaml_names = {
        "'str'": "a string",
        "'int'": "an integer",
        "'float'": "a float",
        "'NoneType'": "null",
        "'list'": "a list",
    }
    for python_name, yaml_name in yaml_names.items():
        message = message.replace(python_name, yaml_name)
    return message


class _UnknownValueNeeded(Exception):
    """The expression needs a value that is not known yet."""

    def __init__(self, unknown: UnknownValue) -> None:
        self.unknown = unknown


def _evaluate_node(node: ast.expr | None, scope: Mapping[str, Any]) -> Any:
    match node:
        case None:
            return None
        case ast.Constant(value=value):
            return _check_result(value)
        case ast.Name(id=name):
            return _look_up_name(name, scope)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return _check_result([_evaluate_node(item, scope) for item in items])
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY_OPERATORS[type(sign)](_evaluate_node(operand, scope))
        case ast.BinOp(left=left, op=sign, right=right):
            return _evaluate_binary(type(sign), _evaluate_node(left, scope), _evaluate_node(right, scope))
        case ast.BoolOp(op=sign, values=parts):
            return _evaluate_boolean(isinstance(sign, ast.And), parts, scope)
        case ast.Compare():
            return _evaluate_comparison(node, scope)
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            return _evaluate_node(body if _evaluate_node(test, scope) else otherwise, scope)
        case ast.Subscript(value=value, slice=index):
            return _evaluate_subscript(_evaluate_node(value, scope), index, scope)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _check_result(EXPRESSION_FUNCTIONS[name](*[_evaluate_node(each, scope) for each in arguments]))
    raise ExpressionError(Code.FORMULA_REFUSED, "this is not allowed in an expression", EXPRESSION_LANGUAGE)


def _look_up_name(name: str, scope: Mapping[str, Any]) -> Any:
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name not in scope:
        raise ExpressionError(Code.UNKNOWN_PARAM, f"unknown param '{name}'")
    unknown = _find_unknown(scope[name])
    if unknown is not None:
        raise _UnknownValueNeeded(unknown)
    return scope[name]


def _find_unknown(value: Any) -> UnknownValue | None:
    """Find the first unknown value in a value, at any depth."""
    if isinstance(value, UnknownValue):
        return value
    unknowns = (_find_unknown(child) for child in list_children(value))
    return next((each for each in unknowns if each is not None), None)


def _evaluate_binary(operator_type: type[ast.operator], left: Any, right: Any) -> Any:
    if operator_type not in ARITHMETIC:
        raise ExpressionError(
            Code.FORMULA_REFUSED, f"operator {operator_type.__name__} is not allowed", EXPRESSION_LANGUAGE
        )
    if operator_type is ast.Pow and (abs(right) > MAX_EXPONENT or abs(left) > MAX_NUMBER):
        raise ExpressionError(
            Code.TOO_LARGE, f"an exponent must not exceed {MAX_EXPONENT:,}, nor its base {MAX_NUMBER:.0e}"
        )
    if operator_type is ast.Mod and isinstance(left, str):
        raise ExpressionError(Code.FORMULA_FAILED, "'%' can't be applied to a string")
    if operator_type is ast.Mult:
        _check_size(max(_count_items(left) * _get_repeat_count(right), _count_items(right) * _get_repeat_count(left)))
    return _check_result(ARITHMETIC[operator_type](left, right))


def _check_size(size: int) -> None:
    max_size = get_limit("formula_size")
    if size > max_size:
        raise ExpressionError(
            Code.TOO_LARGE, f"the result has more than {max_size:,} items", explain_raising_limit("formula_size")
        )


def _count_items(value: Any) -> int:
    """Count the items of a list at all levels, or the characters of a string; 0 for other values."""
    if isinstance(value, list):
        return len(value) + sum(_count_items(each) for each in value)
    return len(value) if isinstance(value, str) else 0


def _get_repeat_count(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0


def _check_result(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        raise ExpressionError(Code.FORMULA_FAILED, "the result is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ExpressionError(Code.TOO_LARGE, f"a number beyond {MAX_NUMBER:.0e}")
    if isinstance(value, list | str):
        _check_size(_count_items(value))
    return value


def _evaluate_boolean(is_and: bool, operands: list[ast.expr], scope: Mapping[str, Any]) -> Any:
    result: Any = is_and
    for part in operands:
        result = _evaluate_node(part, scope)
        if bool(result) != is_and:
            return result
    return result


def _evaluate_comparison(node: ast.Compare, scope: Mapping[str, Any]) -> bool:
    left = _evaluate_node(node.left, scope)
    for sign, part in zip(node.ops, node.comparators, strict=True):
        if type(sign) not in _COMPARE:
            raise ExpressionError(
                Code.FORMULA_REFUSED, "this comparison is not allowed: write '== null' instead of 'is'"
            )
        right = _evaluate_node(part, scope)
        if not _COMPARE[type(sign)](left, right):
            return False
        left = right
    return True


def _evaluate_subscript(value: Any, index: ast.expr, scope: Mapping[str, Any]) -> Any:
    if not isinstance(value, list | str):
        raise ExpressionError(Code.FORMULA_FAILED, f"{format_value(value)} can't be indexed")
    if isinstance(index, ast.Slice):
        return value[slice(*(_evaluate_node(part, scope) for part in (index.lower, index.upper, index.step)))]
    return value[_evaluate_node(index, scope)]
