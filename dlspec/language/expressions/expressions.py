"""`$name` and `$(4 * width)`: formulas over params, parsed and walked, never given to `eval`.

Only numbers, strings, lists and the operations listed here exist in them; what could grow without end (powers,
repeated lists, long text) has a limit.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dlspec.errors import Code, shown
from dlspec.language.expressions.grammar import ARITHMETIC, COMPARISONS, SIGNS, Grammar, Operators, check_length
from dlspec.language.expressions.grammar import ExpressionError as ExpressionError
from dlspec.limits import how_to_raise, limit

MAX_EXPONENT = 1_000
MAX_NUMBER = 10**18
MAX_DIGITS = 100

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


def find_unknowns(value: Any) -> set[str]:
    """The keys of what is not known yet in a value, through lists and mappings."""
    if isinstance(value, Unknown):
        return {value.key}
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {key for child in children for key in find_unknowns(child)}


def make_divisible(value: float, divisor: int = 8) -> int:
    """`value` rounded to a multiple of `divisor`, never down by more than a tenth (MobileNet, arXiv:1801.04381)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > MAX_DIGITS:
        raise ExpressionError(Code.TOO_LARGE, f"more than {MAX_DIGITS} digits to round to")
    return round(value, digits)


def _prod(numbers: Any) -> Any:
    """Of numbers alone: text times a number grows without end."""
    if not all(isinstance(each, int | float) for each in numbers):
        raise ExpressionError(Code.FORMULA_FAILED, "prod takes a list of numbers")
    return math.prod(numbers)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": _round,
    "int": int,
    "len": len,
    "sum": sum,
    "prod": _prod,
    "make_divisible": make_divisible,
}

LANGUAGE = f"formulas have params, numbers, text, lists, + - * / // % **, comparisons, if else, {', '.join(FUNCTIONS)}"

_COMPARE: Operators = {
    **COMPARISONS,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_UNARY: Operators = {**SIGNS, ast.Not: operator.not_}


def formula_of(value: Any) -> str | None:
    """The formula that a value is: 'width' for '$width', '4 * width' for '$(4 * width)', None for anything else."""
    if not isinstance(value, str) or not value.startswith("$") or value.startswith("$$") or is_unclosed(value):
        return None
    if found := _NAME.match(value):
        return found[1]
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


def evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    """The formula's value, `Unknown` where it needs one that is; raises `ExpressionError`."""
    tree = parse(text)
    if isinstance(tree, ast.Name) and tree.id in scope:
        return scope[tree.id]
    try:
        return _value(tree, scope)
    except _NeedsUnknown as needed:
        return needed.unknown
    except ExpressionError as error:
        raise ExpressionError(error.finding.code, f"{shown(text)}: {error.finding.found}", error.finding.fix) from None
    except (TypeError, ZeroDivisionError, IndexError, ValueError, OverflowError) as error:
        raise ExpressionError(Code.FORMULA_FAILED, f"{shown(text)}: {_reworded(str(error))}") from None


def _reworded(message: str) -> str:
    """Python's complaint in the words of YAML."""
    message = re.sub(r"unsupported operand type\(s\) for (.+): (.+)", r"\1 can't take \2", message)
    words = {
        "'str'": "text",
        "'int'": "a whole number",
        "'float'": "a number",
        "'NoneType'": "null",
        "'list'": "a list",
    }
    for python, plain in words.items():
        message = message.replace(python, plain)
    return message


class _NeedsUnknown(Exception):
    def __init__(self, unknown: Unknown) -> None:
        self.unknown = unknown


def _value(node: ast.expr | None, scope: Mapping[str, Any]) -> Any:
    match node:
        case None:
            return None
        case ast.Constant(value=value):
            return _limited(value)
        case ast.Name(id=name):
            return _lookup(name, scope)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return _limited([_value(item, scope) for item in items])
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY[type(sign)](_value(operand, scope))
        case ast.BinOp(left=left, op=sign, right=right):
            return _binary(type(sign), _value(left, scope), _value(right, scope))
        case ast.BoolOp(op=sign, values=parts):
            return _boolean(isinstance(sign, ast.And), parts, scope)
        case ast.Compare():
            return _compare(node, scope)
        case ast.IfExp(test=test, body=body, orelse=otherwise):
            return _value(body if _value(test, scope) else otherwise, scope)
        case ast.Subscript(value=value, slice=index):
            return _item(_value(value, scope), index, scope)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _limited(FUNCTIONS[name](*[_value(each, scope) for each in arguments]))
    raise ExpressionError(Code.FORMULA_REFUSED, "this can't stand in a formula", LANGUAGE)


def _lookup(name: str, scope: Mapping[str, Any]) -> Any:
    if name in CONSTANTS:
        return CONSTANTS[name]
    if name not in scope:
        raise ExpressionError(Code.UNKNOWN_PARAM, f"no param '{name}'")
    unknown = _unknown_in(scope[name])
    if unknown is not None:
        raise _NeedsUnknown(unknown)
    return scope[name]


def _unknown_in(value: Any) -> Unknown | None:
    """The first unknown in a value, however deep."""
    if isinstance(value, Unknown):
        return value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for child in children if (found := _unknown_in(child)) is not None), None)


def _binary(sign: type[ast.operator], left: Any, right: Any) -> Any:
    if sign not in ARITHMETIC:
        raise ExpressionError(Code.FORMULA_REFUSED, f"no operator {sign.__name__} in a formula", LANGUAGE)
    if sign is ast.Pow and (abs(right) > MAX_EXPONENT or abs(left) > MAX_NUMBER):
        raise ExpressionError(Code.TOO_LARGE, f"a power beyond {MAX_EXPONENT:,}")
    if sign is ast.Mod and isinstance(left, str):
        raise ExpressionError(Code.FORMULA_FAILED, "text has no '%' in a formula")
    if sign is ast.Mult:
        _check_size(max(_size(left) * _times(right), _size(right) * _times(left)))
    return _limited(ARITHMETIC[sign](left, right))


def _check_size(size: int) -> None:
    most = limit("formula_size")
    if size > most:
        raise ExpressionError(
            Code.TOO_LARGE, f"a list or text of more than {most:,} items", how_to_raise("formula_size")
        )


def _size(value: Any) -> int:
    """How much a value holds, whatever it holds counted too: a list of long lists is long."""
    if isinstance(value, list):
        return len(value) + sum(_size(each) for each in value)
    return len(value) if isinstance(value, str) else 0


def _times(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0


def _limited(value: Any) -> Any:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        raise ExpressionError(Code.FORMULA_FAILED, "the result is no finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ExpressionError(Code.TOO_LARGE, f"a number beyond {MAX_NUMBER:.0e}")
    if isinstance(value, list | str):
        _check_size(_size(value))
    return value


def _boolean(is_and: bool, parts: list[ast.expr], scope: Mapping[str, Any]) -> Any:
    result: Any = is_and
    for part in parts:
        result = _value(part, scope)
        if bool(result) != is_and:
            return result
    return result


def _compare(node: ast.Compare, scope: Mapping[str, Any]) -> bool:
    left = _value(node.left, scope)
    for sign, part in zip(node.ops, node.comparators, strict=True):
        if type(sign) not in _COMPARE:
            raise ExpressionError(Code.FORMULA_REFUSED, "write '== null' instead of 'is'")
        right = _value(part, scope)
        if not _COMPARE[type(sign)](left, right):
            return False
        left = right
    return True


def _item(value: Any, index: ast.expr, scope: Mapping[str, Any]) -> Any:
    if not isinstance(value, list | str):
        raise ExpressionError(Code.FORMULA_FAILED, f"{shown(value)} has no items")
    if isinstance(index, ast.Slice):
        return value[slice(*(_value(part, scope) for part in (index.lower, index.upper, index.step)))]
    return value[_value(index, scope)]
