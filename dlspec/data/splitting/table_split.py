"""Split the rows of a table: by files, conditions, a column, a hash, time, folds or shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.split_indices import (
    TEST,
    TRAIN,
    VALIDATION,
    IntArray,
    SplitIndices,
    SplitPlan,
    limit_rows,
    number_folds,
    split_rows,
)
from dlspec.data.splitting.conditions import format_cell, match_rows
from dlspec.data.splitting.moments import read_moments
from dlspec.data.splitting.row_numbers import Columns, hash_rows, join_groups, number_equal_rows, number_values
from dlspec.data.splitting.rule_effects import check_effects
from dlspec.data.splitting.split_column import FREE, read_split_column
from dlspec.data.splitting.split_rules import HASH as HASH
from dlspec.data.splitting.split_rules import Condition
from dlspec.data.splitting.split_rules import SplitRules as SplitRules
from dlspec.errors import Code, DataError, format_value, suggest

DEFAULT_VALIDATION, DEFAULT_TEST = 0.1, 0.2
SPLIT_NAMES = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True)
class SplitTable:
    """The rows to split."""

    columns: Columns
    inputs: Sequence[str]  # the columns that the network sees; rows that are equal in them go to one split
    classes: IntArray | None = None  # class of each row, from 0, to stratify by
    split_of_file: IntArray | None = None  # by row: the split whose `path` the row comes from; FREE for other rows
    id: str = ""  # a column that identifies a row

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class TableSplit:
    """The rows of each split, and what the user should know about them."""

    rows: SplitIndices
    notes: tuple[str, ...] = ()


def split_table(table: SplitTable, rules: SplitRules) -> TableSplit:
    """Split the rows of a table.

    Files, conditions and a split column decide first. The other rows are placed by hash, time, folds or shares.

    Raises:
        DataError: if a column does not exist, or no row remains for training.
    """
    _check_columns(table, rules)
    split, overlap_notes = _place_by_rules(table, rules)
    free, reduced = np.flatnonzero(split == FREE), _reduce_rules(rules, split)
    if len(free):
        split[free] = _choose_placement(rules)(_take(table, free), reduced)
    check_effects(table.columns, rules, reduced, split, has_free=bool(len(free)))
    _check_splits(split, rules)
    return TableSplit(_limit_splits(split, table, rules), (*overlap_notes, *_find_leaks(table, split, rules)))


def _check_columns(table: SplitTable, rules: SplitRules) -> None:
    named = {"time": [rules.time], "group": rules.group, "split": [rules.split if rules.split != HASH else ""],
             "folds": [rules.folds if isinstance(rules.folds, str) else ""]}  # fmt: skip
    for key, names in named.items():
        for name in names:
            if name and name not in table.columns:
                raise DataError(key, f"no column '{name}'; {suggest(name, table.columns)}", Code.UNKNOWN_FIELD)


# ---- rows whose split is written -------------------------------------------------------------------------------------


def _place_by_rules(table: SplitTable, rules: SplitRules) -> tuple[IntArray, list[str]]:
    """Return the split of each row that a file, condition or column decides, FREE for the others; and notes."""
    split = np.full(len(table), FREE) if table.split_of_file is None else table.split_of_file.copy()
    if rules.split and rules.split != HASH:
        split = read_split_column(rules.split, table.columns[rules.split])
    notes = []
    for key, number in (("test", TEST), ("validation", VALIDATION)):
        condition = getattr(rules, key)
        if isinstance(condition, Mapping):
            chosen = match_rows(key, table.columns, condition, rules.folder)
            taken = chosen & (split == TEST) & (number != TEST)
            if taken.any():
                notes.append(
                    f"{int(taken.sum()):,} rows match the conditions of validation and test: they are test rows"
                )
            split[chosen & ~taken] = number
    return _complete_written_splits(split, table, rules), notes


def _complete_written_splits(split: IntArray, table: SplitTable, rules: SplitRules) -> IntArray:
    """Free training rows of a split column or file where a share of them is still to be chosen."""
    is_written = bool(rules.split and rules.split != HASH)
    if is_written and (VALIDATION not in split or isinstance(rules.validation, float)) and rules.validation != 0:
        split = np.where(split == TRAIN, FREE, split)
    return split


def _reduce_rules(rules: SplitRules, split: IntArray) -> SplitRules:
    """Return the rules with the shares that the free rows are still split by."""
    return replace(
        rules,
        validation=_choose_share("validation", rules.validation, DEFAULT_VALIDATION, VALIDATION in split),
        test=_choose_share("test", rules.test, DEFAULT_TEST, TEST in split or _has_own_test(rules)),
    )


def _choose_share(key: str, written: float | Condition | None, default: float, is_placed: bool) -> float:
    if is_placed and isinstance(written, int | float) and written:
        found = f"{key} is the share {written:g}, but 'split' chooses these rows already; leave {key} out"
        raise DataError(key, found, Code.CONFLICT)
    if isinstance(written, int | float):
        return float(written)
    return 0.0 if is_placed or isinstance(written, Mapping) else default


def _has_own_test(rules: SplitRules) -> bool:
    """Whether a split column decides the test rows: if it names none, there are none."""
    return bool(rules.split and rules.split != HASH) and rules.test is None


# ---- rows that are placed by a method --------------------------------------------------------------------------------

Placement = Callable[[SplitTable, SplitRules], IntArray]


def _choose_placement(rules: SplitRules) -> Placement:
    if rules.folds is not None:
        return _place_by_folds
    if rules.split == HASH:
        return _place_by_hash
    return _place_by_time if rules.time else _place_by_shares


def _place_by_shares(table: SplitTable, rules: SplitRules) -> IntArray:
    plan = SplitPlan(rules.seed, _as_share(rules.validation), _as_share(rules.test))
    found = split_rows(len(table), plan, _renumber(table.classes), find_groups(table, rules.group))
    split = np.full(len(table), TRAIN)
    split[found.validation], split[found.test] = VALIDATION, TEST
    return split


def _place_by_folds(table: SplitTable, rules: SplitRules) -> IntArray:
    if isinstance(rules.folds, str):
        return _place_by_fold_column(table, rules)
    classes = np.zeros(len(table), np.int64) if table.classes is None else _renumber(table.classes)
    assert classes is not None
    groups = find_groups(table, rules.group)
    count = int(groups.max()) + 1
    if count < int(rules.folds or 0):
        raise DataError("folds", f"{rules.folds} folds need as many different rows or groups, got {count:,}")
    folds, is_test = number_folds(_as_share(rules.test), int(rules.folds or 0), rules.seed, classes, groups)
    return np.where(is_test, TEST, np.where(folds == rules.fold, VALIDATION, TRAIN))


def _place_by_fold_column(table: SplitTable, rules: SplitRules) -> IntArray:
    column = table.columns[str(rules.folds)]
    cells = sorted({str(cell) for cell in column.tolist() if cell is not None})
    wanted = format_cell(rules.fold)
    if wanted not in cells:
        found = f"'{rules.folds}' has no fold {format_value(rules.fold)}"
        raise DataError("fold", f"{found}; {suggest(wanted, cells)}", Code.WRONG_VALUE)
    if None in column.tolist():
        raise DataError("folds", f"'{rules.folds}' is empty in some rows; leave them out with where")
    is_fold = np.array([str(cell) == wanted for cell in column.tolist()])
    rest = np.flatnonzero(~is_fold)
    split = np.where(is_fold, VALIDATION, TRAIN)
    if _as_share(rules.test):
        split[rest] = _place_by_shares(_take(table, rest), replace(rules, validation=0.0))
    return split


def _place_by_hash(table: SplitTable, rules: SplitRules) -> IntArray:
    """Place each row by the hash of its group, id or content, so that a file that grows moves no row."""
    names = rules.group or ((table.id,) if table.id else tuple(table.inputs))
    if len(rules.group) > 1:
        raise DataError("split", "split=hash takes one group column: with two, a new row could join two groups")
    position = hash_rows(table.columns, names, rules.seed) / 2.0**64
    test, validation = _as_share(rules.test), _as_share(rules.validation)
    return np.where(position < test, TEST, np.where(position < test + validation, VALIDATION, TRAIN))


def _place_by_time(table: SplitTable, rules: SplitRules) -> IntArray:
    """Cut at one moment for all groups: rows of one moment stay together."""
    moments = read_moments("time", rules.time, table.columns[rules.time])
    ordered, count = np.sort(moments), len(moments)
    split = np.full(count, TRAIN)
    later = 0
    for number, share in ((TEST, _as_share(rules.test)), (VALIDATION, _as_share(rules.validation))):
        if share:
            later += max(1, round(count * share))
            split[(moments >= ordered[max(0, count - later)]) & (split == TRAIN)] = number
    return split


def find_groups(table: SplitTable, group: Sequence[str]) -> IntArray:
    """Number the groups of rows that must stay together: equal in all inputs, or in one of the group columns.

    An empty cell of a group column joins no rows.
    """
    equal = number_equal_rows(table.columns, table.inputs) if table.inputs else np.arange(len(table))
    return join_groups([equal, *(_number_groups(table.columns[name]) for name in group)])


def _number_groups(column: NDArray[Any]) -> IntArray:
    numbers, cells = number_values(column)
    if None not in cells:
        return numbers
    is_empty = numbers == cells.index(None)
    return np.where(is_empty, len(cells) + np.cumsum(is_empty), numbers)


def _as_share(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _renumber(classes: IntArray | None) -> IntArray | None:
    """Number the classes that occur from 0, in their order."""
    return None if classes is None else np.unique(classes, return_inverse=True)[1].astype(np.int64)


def _take(table: SplitTable, rows: IntArray) -> SplitTable:
    if len(rows) == len(table):
        return table
    columns = {name: column[rows] for name, column in table.columns.items()}
    return replace(table, columns=columns, classes=None if table.classes is None else table.classes[rows])


# ---- the result ------------------------------------------------------------------------------------------------------


def _check_splits(split: IntArray, rules: SplitRules) -> None:
    if not (split == TRAIN).any():
        key = "time" if rules.time else "validation"
        raise DataError(key, "no row is left for training; take fewer rows for validation and test")


def _limit_splits(split: IntArray, table: SplitTable, rules: SplitRules) -> SplitIndices:
    generator = np.random.Generator(np.random.PCG64([rules.seed, 1]))
    classes = np.zeros(len(split), np.int64) if table.classes is None else table.classes
    rows = (np.flatnonzero(split == number) for number in (TRAIN, VALIDATION, TEST))
    return SplitIndices(*(limit_rows(each, classes[each], rules.limit, generator) for each in rows))


def _find_leaks(table: SplitTable, split: IntArray, rules: SplitRules) -> Iterator[str]:
    """Yield a note for each split with rows that equal training rows or belong to groups of training rows."""
    if not (rules.split or rules.time or table.split_of_file is not None
            or isinstance(rules.validation, Mapping) or isinstance(rules.test, Mapping)
            or isinstance(rules.folds, str)):  # fmt: skip
        return  # shares and folds keep equal rows and groups together
    if table.inputs:
        yield from _count_shared(
            number_equal_rows(table.columns, table.inputs), split, "equal training rows in every input"
        )
    for name in () if rules.time else rules.group:
        shared = f"share their '{name}' with training rows"
        yield from _count_shared(_number_groups(table.columns[name]), split, shared)


def _count_shared(numbers: IntArray, split: IntArray, what: str) -> Iterator[str]:
    in_training = np.zeros(int(numbers.max(initial=-1)) + 1, np.bool_)
    in_training[numbers[split == TRAIN]] = True
    for number in (VALIDATION, TEST):
        shared = int((in_training[numbers] & (split == number)).sum())
        if shared:
            yield f"{shared:,} of {int((split == number).sum()):,} {SPLIT_NAMES[number]} rows {what}"
