"""Check what was saved of a preparation: a file from a stranger may contain any JSON value of any size."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from dlspec.errors import DataError, format_value

MAX_TEXT = 1_000_000  # characters of one saved string
MAX_ITEMS = 10_000_000  # of one saved list


def make_saved_error(why: str) -> DataError:
    """Make the error for a saved preparation that is damaged."""
    return DataError("", f"the saved preparation can't be used: {why}")


class SavedValues:
    """The saved JSON values of one column, checked when they are read."""

    def __init__(self, saved: object, keys: Collection[str]) -> None:
        if not isinstance(saved, Mapping) or set(saved) != {"kind", *keys}:
            raise make_saved_error(f"expected the keys {', '.join(['kind', *keys])}")
        self.values: Mapping[str, Any] = saved

    def get_choice(self, key: str, choices: Collection[str]) -> str:
        """Return a string that must be one of the choices."""
        value = self.values[key]
        if not isinstance(value, str) or value not in choices:
            raise make_saved_error(f"{key} must be one of {', '.join(choices)}, got {format_value(value)}")
        return value

    def get_flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.values[key]
        if not isinstance(value, bool):
            raise make_saved_error(f"{key} must be true or false, got {format_value(value)}")
        return value

    def get_integer(self, key: str, low: int, high: int) -> int:
        """Return a whole number within bounds.

        Args:
            key: key of the value
            low: smallest value
            high: largest value

        Returns:
            The value.
        """
        value = self.values[key]
        if type(value) is not int or not low <= value <= high:
            raise make_saved_error(f"{key} must be a whole number from {low:,} to {high:,}, got {format_value(value)}")
        return value

    def get_number(self, key: str) -> float:
        """Return a finite number."""
        return check_number(key, self.values[key])

    def get_numbers(self, key: str, max_items: int = MAX_ITEMS) -> tuple[float, ...]:
        """Return a list of finite numbers."""
        return tuple(check_number(key, each) for each in self._get_list(key, max_items))

    def get_text(self, key: str, max_length: int = MAX_TEXT) -> str:
        """Return a string."""
        return check_text(key, self.values[key], max_length)

    def get_texts(self, key: str, max_items: int = MAX_ITEMS) -> tuple[str, ...]:
        """Return a list of different strings."""
        texts = tuple(check_text(key, each) for each in self._get_list(key, max_items))
        if len(set(texts)) != len(texts):
            raise make_saved_error(f"{key} lists a value twice")
        return texts

    def _get_list(self, key: str, max_items: int) -> list[Any]:
        value = self.values[key]
        if not isinstance(value, list) or len(value) > max_items:
            raise make_saved_error(f"{key} must be a list of at most {max_items:,} values")
        return value


def check_number(key: str, value: object) -> float:
    """Return a saved number as a float; DataError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise make_saved_error(f"{key} must be a number, got {format_value(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise make_saved_error(f"{key} must be a finite number")
    return number


def check_text(key: str, value: object, max_length: int = MAX_TEXT) -> str:
    """Check a saved string.

    Args:
        key: its key, for the message
        value: the saved value
        max_length: largest number of characters

    Returns:
        The string.

    Raises:
        DataError: if it is not a string, too long, or can't be written as UTF-8.
    """
    if not isinstance(value, str) or len(value) > max_length:
        raise make_saved_error(f"{key} must be a string of at most {max_length:,} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise make_saved_error(f"{key} contains a lone surrogate")
    return value
