"""The functions that expressions `$(...)` can call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dlspec.errors import Code
from dlspec.language.expressions.grammar import ExpressionError

MAX_DIGITS = 100


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, never down by more than 10 % (MobileNetV2, arXiv:1801.04381)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _round_limited(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > MAX_DIGITS:
        raise ExpressionError(Code.TOO_LARGE, f"round() to more than {MAX_DIGITS} digits")
    return round(value, digits)


def _multiply_all(numbers: Any) -> Any:
    """Compute the product of numbers. Strings are refused, because multiplying them can exhaust memory."""
    if not all(isinstance(each, int | float) for each in numbers):
        raise ExpressionError(Code.FORMULA_FAILED, "prod() expects a list of numbers")
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
