"""The functions of `$(...)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dlspec.errors import Code
from dlspec.language.expressions.grammar import ExpressionError

MAX_DIGITS = 100


def make_divisible(value: float, divisor: int = 8) -> int:
    """`value` rounded to a multiple of `divisor`, never down by more than a tenth (MobileNet, arXiv:1801.04381)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _round_limited(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > MAX_DIGITS:
        raise ExpressionError(Code.TOO_LARGE, f"more than {MAX_DIGITS} digits to round to")
    return round(value, digits)


def _multiply_all(numbers: Any) -> Any:
    """Of numbers alone: text times a number grows without end."""
    if not all(isinstance(each, int | float) for each in numbers):
        raise ExpressionError(Code.FORMULA_FAILED, "prod takes a list of numbers")
    return math.prod(numbers)


EXPRESSION_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": _round_limited,
    "int": int,
    "len": len,
    "sum": sum,
    "prod": _multiply_all,
    "make_divisible": make_divisible,
}
