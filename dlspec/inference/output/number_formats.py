"""Write numbers of float32 with as few digits as give the same number again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRIED_DIGITS = (4, 6, 7, 8)  # nine always suffice; more than nine are written where these do not
MAX_EXPONENT = 15  # powers of ten up to 22 are exact


def shorten_float32(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return numbers whose decimals are short: 0.3 for the float32 that is 0.30000001192092896.

    Rounding a result to float32 gives the original again, bit by bit.
    """
    exact = values.astype(np.float64)
    result = exact.copy()
    with np.errstate(divide="ignore"):
        exponents = np.floor(np.log10(np.abs(exact)))
    left = np.flatnonzero(np.abs(exponents) < MAX_EXPONENT)
    for digits in _TRIED_DIGITS:
        shifts = digits - 1 - exponents[left]
        up, down = 10.0 ** np.clip(shifts, 0, None), 10.0 ** np.clip(-shifts, 0, None)
        rounded = np.round(exact[left] * up / down) / up * down
        is_same = rounded.astype(np.float32) == values[left]
        result[left[is_same]] = rounded[is_same]
        left = left[~is_same]
    return result


def list_values(values: Any) -> list[Any]:
    """Return the values of a column as Python's own types: floats with few digits, None for nan and infinities."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 1:
        return _list_numbers(values.astype(np.float64))
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if {float} != set(map(type, listed)) - {type(None)}:
        return listed
    return _list_numbers(np.array(listed, np.float64))  # None becomes nan


def _list_numbers(numbers: NDArray[np.float64]) -> list[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = numbers.astype(np.float32)
        is_narrow = bool(((narrow == numbers) | np.isnan(numbers)).all())
    short: list[Any] = shorten_float32(narrow).tolist() if is_narrow else numbers.tolist()
    finite = np.isfinite(numbers)
    if not finite.all():
        short = [value if is_finite else None for value, is_finite in zip(short, finite.tolist(), strict=True)]
    return short
