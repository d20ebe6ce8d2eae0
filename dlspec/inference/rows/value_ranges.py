"""Notice new rows whose numbers can't be those of the training: scaled already, or in another unit.

Such rows are predicted without a complaint, and wrongly. Training may have seen pixels from 0 to 255 while the new ones
lie between 0 and 1, or the other way round. A warning needs much: it is a line, and ordinary rows must not cause one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.number import FittedNumber
from dlspec.data.prepare.kinds.numbers import FittedNumbers
from dlspec.data.prepare.kinds.plain_kinds import Standardized
from dlspec.data.prepare.kinds.scales import LinearScale
from dlspec.inference.rows.input_columns import complete_columns

log = logging.getLogger("dlspec")
Floats = NDArray[np.float64]
MAX_CHECKED_ROWS = 1_000  # of a chunk: more take time and say the same
MIN_ROWS = 4  # fewer rows may have close numbers by chance
MIN_NUMBERS = 16  # of an array in all rows
MAX_CHECKED_COLUMNS = 200
MAX_SCALED = 10.0  # numbers that were scaled to mean 0 or to the range from 0 to 1 are not larger
TINY_SHARE = 0.05  # of the training's spread: what all numbers of a column lie within if they are scaled already
TINY_SHARE_OF_ARRAY = 0.15  # the same of images, whose range may be as small as 0 to 16
FAR = 10.0  # times the training's spread from its center: where no training number is
MIN_FAR_SHARE = 0.3  # of a column's numbers: a few may be outliers
MIN_FAR_SHARE_OF_ARRAY = 0.05  # the same of images, of which most pixels may be 0
OUTSIDE = 3.0  # times the spread from the center: where not all numbers of a column are
MIN_UNLIKE_SHARE = 0.4  # of the columns of numbers that vary: scaling concerns all of them


@dataclass(frozen=True)
class _Numbers:
    """The numbers of new rows that one scale belongs to."""

    name: str
    values: Floats  # without those that are missing
    center: float  # of the training numbers
    spread: float  # their standard deviation, or a part of their range
    trained: str  # where the training numbers lie, as text
    is_array: bool  # many numbers a row, which are judged without other columns

    @property
    def varies(self) -> bool:
        """Whether there are enough numbers that are not all equal."""
        enough = MIN_NUMBERS if self.is_array else MIN_ROWS
        return len(self.values) >= enough and bool(self.values.min() < self.values.max())

    @property
    def is_unlike(self) -> bool:
        """Whether these can't be numbers like those of the training."""
        low, high = float(self.values.min()), float(self.values.max())
        distances = np.abs(self.values - self.center) / self.spread
        looks_scaled = max(abs(low), abs(high)) <= MAX_SCALED
        tiny_share = TINY_SHARE_OF_ARRAY if self.is_array else TINY_SHARE
        if looks_scaled and high - low < tiny_share * self.spread:
            return True
        far_share = float((distances > FAR).mean())
        if self.is_array:
            return far_share > MIN_FAR_SHARE_OF_ARRAY
        return far_share > MIN_FAR_SHARE or (looks_scaled and float(distances.min()) > OUTSIDE)


class NumberCheck:
    """Warns once if the numbers of new rows can't be like those of the training."""

    def __init__(self) -> None:
        self._has_warned = False

    def warn_once(self, fitted: FittedTable, columns: Mapping[str, NDArray[Any]]) -> None:
        """Warn if some rows have such numbers, unless others had them before.

        Args:
            fitted: what the run fitted on its training rows
            columns: the cells of the rows by column
        """
        found = None if self._has_warned else describe_unlike_numbers(fitted, columns)
        if found is not None:
            self._has_warned = True
            log.warning("%s", found)


def describe_unlike_numbers(fitted: FittedTable, columns: Mapping[str, NDArray[Any]]) -> str | None:
    """Describe in one line how the numbers of some rows differ from those of the training; None if they do not.

    Args:
        fitted: what the run fitted on its training rows
        columns: the cells of the rows by column

    Raises:
        DataError: if a column is missing
    """
    columns = complete_columns(fitted, columns)
    names = islice(fitted.inputs, MAX_CHECKED_COLUMNS)
    found = [each for name in names for each in _list_numbers(name, fitted, columns[name])]
    varying = [each for each in found if each.varies]
    unlike = [each for each in varying if each.is_unlike]
    arrays = [each for each in unlike if each.is_array]
    single, all_single = ([each for each in some if not each.is_array] for some in (unlike, varying))
    if not arrays and (len(single) < 2 or len(single) < MIN_UNLIKE_SHARE * len(all_single)):
        return None
    return _format_line(arrays or single)


def _format_line(unlike: Sequence[_Numbers]) -> str:
    first = unlike[0]
    more = f" (and those of {len(unlike) - 1:,} more columns)" if len(unlike) > 1 else ""
    found = f"the numbers of '{first.name}'{more} lie between {first.values.min():.4g} and {first.values.max():.4g}"
    return f"{found}, those of the training {first.trained}; pass them as the training data were: dlspec scales them"


def _list_numbers(name: str, fitted: FittedTable, column: NDArray[Any]) -> Iterator[_Numbers]:
    """Yield the numbers of a column, by their scale."""
    kind = fitted.inputs[name]
    scaled, is_array = _find_scale(kind), not isinstance(kind, FittedNumber | Standardized)
    if scaled is None or (not is_array and len(column) < MIN_ROWS):
        return
    values = _read_numbers(kind, column[:: max(1, len(column) // MAX_CHECKED_ROWS)])
    names = fitted.stacks.get(name, ())
    centers, spreads = (np.broadcast_to(each, values.shape[1:]) for each in (scaled.shift, scaled.divisor))
    for at, (center, spread) in enumerate(zip(centers.tolist(), spreads.tolist(), strict=True)):
        numbers = values[:, at]
        shown = names[at] if len(names) == len(centers) else name
        trained = f"around {center:.4g} with a spread of {spread:.4g}"
        if isinstance(kind, FittedArray):
            trained = f"between {center - spread:.4g} and {center + spread:.4g}"
        yield _Numbers(shown, numbers[~np.isnan(numbers)], center, spread, trained, is_array)


def _find_scale(kind: FittedColumn) -> LinearScale | None:
    """Return center and spread of a column's training numbers; None if they are not known."""
    if isinstance(kind, FittedArray):
        return _find_array_scale(kind)
    scale = kind.scale if isinstance(kind, FittedNumber | FittedNumbers | Standardized) else None
    is_known = isinstance(scale, LinearScale) and not (np.all(scale.shift == 0) and np.all(scale.divisor == 1))
    return scale if is_known and isinstance(scale, LinearScale) else None


def _find_array_scale(kind: FittedArray) -> LinearScale | None:
    low, high = kind.range or ((0.0, kind.divisor) if kind.divisor != 1 else (0.0, 0.0))
    if kind.tokens is not None or low >= high or not prod(kind.shape):
        return None
    return LinearScale(np.array([(low + high) / 2]), np.array([(high - low) / 2]))


def _read_numbers(kind: FittedColumn, column: NDArray[Any]) -> Floats:
    """Read cells as numbers (M, W), one column for each scale; NaN where they are missing or wrong."""
    if isinstance(kind, FittedArray):
        found = kind.apply(column)
        values = kind.invert(found.values)
        values[list(found.problems)] = np.nan
        return values.reshape(-1, 1)
    values = kind.read(column)
    if isinstance(kind, FittedNumbers):
        flat: Floats = kind.flatten(values)
        return flat
    return values.reshape(len(column), -1)
