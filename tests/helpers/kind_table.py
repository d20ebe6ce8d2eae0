"""A column of cells for every kind and setting: what the tests of kinds iterate over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds import COLUMN_KINDS, TARGET_KINDS, CellFormat, ColumnKind, FittedColumn, read_kind

TEXT = np.dtypes.StringDType(na_object=None)
TRAINING = np.arange(6)
PLAIN_NUMBERS = CellFormat()


def text_column(*cells: str | None) -> NDArray[Any]:
    return np.array(cells, dtype=TEXT)


def list_column(*cells: Any) -> NDArray[Any]:
    column = np.empty(len(cells), object)
    column[:] = cells
    return column


@dataclass(frozen=True)
class KindRow:
    """A kind as written, a column of eight rows, of which the first six are for training, and other cells."""

    written: Any
    column: NDArray[Any]
    others: Sequence[Any]  # cells that may stand in the rows that are not for training
    is_target: bool = False
    read: CellFormat = PLAIN_NUMBERS

    @property
    def kind(self) -> ColumnKind:
        return read_kind(self.written, TARGET_KINDS if self.is_target else COLUMN_KINDS, "columns.a")

    def fit(self, column: NDArray[Any] | None = None) -> FittedColumn:
        return self.kind.fit(self.column if column is None else column, TRAINING, read=self.read, name="a")

    def replace_cells(self, choose: Callable[[int], Any]) -> NDArray[Any]:
        """The column with other cells in the rows that are not for training."""
        column = self.column.copy()
        for row in range(len(TRAINING), len(column)):
            column[row] = choose(row)
        return column


NUMBERS = text_column("1", "2.5", None, "-4", "1e2", "0.1", "7", None)
PLAIN = text_column("1", "2.5", "3", "-4", "1e2", "0.1", "7", "8")
WORDS = text_column("red", "green", "red", None, "blue", "red", "green", "pink")
DATES = text_column(
    "2024-02-29", "2023-12-31", None, "1999-07-01", "2020-01-01", "2021-11-11", "2022-06-06", "2022-06-07"
)
TIMES = text_column(*(f"2024-02-{day:02d} {2 * day:02d}:30" for day in range(1, 9)))
TEXTS = text_column("Free money now!", "hello you", None, "Call me, call me", "a", "you are free", "ünïcode 字", "b c")
LISTS = list_column([1, 2, 3], [4.5, 5, 6], None, [0, 0, 1], [2, 2, float("nan")], [9, 8, 7], [1, 1, 1], [3, 2, 1])
RAGGED = list_column([1, 2, 3], [4.5], None, [0, 0], [2, 2, 5, 5], [9], [1, 1, 1], [3])
STEPS = list_column([[1, 2], [3, 4]], [[5, 6]], [[0, 0]], [[1, 0]], [[2, 2]], [[1, 1]], [[4, 4]], [[3, 3], [1, 2]])
PIXELS = np.arange(64.0).reshape(8, 8) ** 2
MATRIX = np.array([[str(row + 1), str(row * row)] for row in range(8)], dtype=TEXT)
GERMAN = text_column("1.234,5", "2,5", None, "-4", "100", "0,1", "7", "8")
DOLLARS = text_column("$1,234", "-$5", "$0.5", None, "12 $", "3", "$4", "$5")
LEVELS = text_column("low", "mid", "high", None, "low", "low", "high", "mid")
CLASSES = text_column("no", "yes", "no", "no", "yes", "no", "yes", "no")
DIGITS = text_column("1", "3", "2", "10", "2", "1", "3", "10")
GAPS = text_column("a", "b", None, "a", "b", "a", "b", None)
LABELS = text_column("a|b", "b", "c", "a", "a|c", "b", "c|b", "a")
TAGS = list_column(["O", "B", "I"], ["O"], ["B"], ["B", "I"], ["O", "O"], ["O"], ["B", "I", "O"], ["O"])

IMAGES = list_column(*(np.arange(24, dtype=np.uint8).reshape(4, 6) * (row + 1) for row in range(8)))
COLOURS = list_column(*(np.arange(72, dtype=np.uint8).reshape(4, 6, 3) * (row + 1) for row in range(8)))
MASKS = list_column(*((np.arange(24, dtype=np.uint8).reshape(4, 6) + row) % 3 for row in range(8)))

BIG = ("1e30", "-1e30", "0", None)
NEW_TEXTS = ("a very much longer text than any of the others, with new words " * 9, None)
NEW_LISTS = ([100.0, 200.0, -300.0], None)

KIND_ROWS: dict[str, KindRow] = {
    **{f"number {scale}": KindRow({"number": {"scale": scale}}, NUMBERS, BIG)
       for scale in ("standard", "quantile", "log", "minmax", "none")},
    **{f"number {missing}": KindRow({"number": {"missing": missing}}, NUMBERS, BIG)
       for missing in ("mean", "zero", "drop", "refuse")},
    "number without gaps": KindRow("number", PLAIN, BIG),
    "number clipped": KindRow({"number": {"clip": [0, 5]}}, NUMBERS, BIG),
    "number at least": KindRow({"number": {"clip": [0, None], "scale": "log"}}, NUMBERS, BIG),
    "number in order": KindRow({"number": {"values": ["low", "mid", "high"]}}, LEVELS, ("low", "mid", None)),
    "number stripped": KindRow({"number": {"strip": "$"}}, DOLLARS, ("$9,999", None), read=CellFormat(".", ",")),
    "number in German": KindRow("number", GERMAN, ("9.999,9", None), read=CellFormat(",", ".")),
    "number of floats": KindRow("number", np.array([1.0, 2, np.nan, 4, 5, 6, 7, 8]), (1e30, np.nan)),
    "number of integers": KindRow("number", np.arange(8), (10**9, 0)),
    "category": KindRow("category", WORDS, ("new", None, "red")),
    "category of many": KindRow({"category": {"max_values": 1}}, WORDS, ("new", None, "red")),
    "category rare": KindRow({"category": {"min_count": 2}}, WORDS, ("new", None, "red")),
    "category hashed": KindRow({"category": {"max_values": 1, "hash": 3}}, WORDS, ("new", None, "red")),
    "category of numbers": KindRow("category", np.array([1.0, 2, np.nan, 1, 1, 2, 3, 4]), (9.0, np.nan)),
    "date": KindRow("date", DATES, ("1800-01-01", None, "2100-12-31T23:59:59Z")),
    "date with times": KindRow("date", TIMES, ("1800-01-01", None, "2100-12-31T23:59:59Z")),
    "date parts": KindRow({"date": {"parts": ["month", "year"]}}, DATES, ("1800-01-01", None)),
    "date format": KindRow({"date": {"format": "%d/%m/%y"}},
                           text_column(*(f"{day}/12/99" for day in range(1, 9))), ("01/01/50", None)),
    **{f"text {name}": KindRow({"text": {"tokenizer": name}}, TEXTS, NEW_TEXTS)
       for name in ("words", "characters", "bytes", "given", "bpe")},
    "text cut": KindRow({"text": {"max_length": 2, "vocab_size": 5, "min_count": 2, "lowercase": False}},
                        TEXTS, NEW_TEXTS),
    "text of lists": KindRow({"text": {"tokenizer": "given"}}, TAGS, (["new"] * 9, None)),
    "numbers": KindRow("numbers", LISTS, NEW_LISTS),
    "numbers ragged": KindRow("numbers", RAGGED, NEW_LISTS),
    "numbers of steps": KindRow("numbers", STEPS, ([[9.0, 9.0]] * 5, None)),
    "numbers minmax": KindRow({"numbers": {"scale": "minmax"}}, LISTS, NEW_LISTS),
    "numbers of an image": KindRow({"numbers": {"shape": [2, 2, 2]}}, PIXELS, (np.full(8, 1e6),)),
    "numbers divided": KindRow({"numbers": {"like": "p*", "divide": 16}}, MATRIX, (["1e9", "2"], ["7", "7"])),
    "numbers as text": KindRow("numbers", text_column(*(f"{row} 2, {row * row}" for row in range(8))), ("9 9 9", None)),
    "image": KindRow("image", IMAGES, (np.full((4, 6), 255, np.uint8), None)),
    "image standard": KindRow({"image": {"scale": "standard", "size": [3, 5], "store": [4, 6]}}, IMAGES,
                              (np.full((4, 6), 255, np.uint8), b"no image")),
    "image imagenet": KindRow({"image": {"scale": "imagenet", "size": 8, "resize": "fit"}}, COLOURS,
                              (np.full((4, 6, 3), 255, np.uint8),)),
    "image mean and std": KindRow({"image": {"scale": {"mean": 0.5, "std": [2.0, 1, 1, 1]}, "mode": "rgba"}}, COLOURS,
                                  (np.full((4, 6, 3), 255, np.uint8), None)),
    "class": KindRow("class", CLASSES, ("yes", "no"), is_target=True),
    "class of numbers": KindRow({"class": {"missing": "ignore"}}, DIGITS, ("10", "3"), is_target=True),
    "class listed": KindRow({"class": {"classes": ["b", "a"], "missing": "drop"}}, GAPS, ("a", "b", None),
                            is_target=True),
    "class mapped": KindRow({"class": {"classes": {"red": "warm", "*": "cold"}, "missing": "ignore"}}, WORDS,
                            ("new", None, "red"), is_target=True),
    "value": KindRow("value", PLAIN, BIG[:3], is_target=True),
    **{f"value {scale}": KindRow({"value": {"scale": scale, "missing": "ignore"}}, NUMBERS, BIG, is_target=True)
       for scale in ("quantile", "log", "minmax", "none")},
    "value clipped": KindRow({"value": {"clip": [None, 3], "missing": "drop"}}, NUMBERS, BIG, is_target=True),
    "labels": KindRow("labels", LABELS, ("a", "b|c"), is_target=True),
    "labels of lists": KindRow({"labels": {"missing": "none"}}, TAGS, (["O"], [], None), is_target=True),
    "tags": KindRow({"tags": {"missing": "ignore"}}, TAGS, (["O"] * 9, None), is_target=True),
    "text to write": KindRow({"text": {"missing": "ignore"}}, TEXTS, NEW_TEXTS, is_target=True),
    "characters to write": KindRow({"text": {"tokenizer": "characters", "missing": "drop"}}, TEXTS, NEW_TEXTS,
                                   is_target=True),
    "mask": KindRow("mask", MASKS, (np.ones((4, 6), np.uint8), np.zeros((4, 6), np.uint8)), is_target=True),
    "mask mapped": KindRow({"mask": {"classes": {0: "a", 1: "b", 2: None}, "size": [6, 6], "resize": "fit"}}, MASKS,
                           (np.ones((4, 6), np.uint8), None), is_target=True),
    "image to predict": KindRow({"image": {"scale": "half", "missing": "drop"}}, COLOURS,
                                (np.full((4, 6, 3), 255, np.uint8), None), is_target=True),
    "numbers to predict": KindRow({"numbers": {"missing": "ignore"}}, LISTS, NEW_LISTS, is_target=True),
}  # fmt: skip
