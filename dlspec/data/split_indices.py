"""Split rows into training, validation and test: seeded, stratified by class, with equal samples kept together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
TRAIN, VALIDATION, TEST = 0, 1, 2
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True)
class SplitIndices:
    """The row indices of each split, ascending. `train` is never empty; the others may be."""

    train: IntArray
    validation: IntArray
    test: IntArray


@dataclass(frozen=True)
class SplitPlan:
    """How rows are split."""

    seed: int
    validation: float  # fraction of the rows; 0 for no validation rows
    test: float  # fraction of the rows; 0 for no test rows
    limit: int | None = None  # at most this many rows in each split, in the classes' proportions


def split_rows(
    count: int, plan: SplitPlan, classes: IntArray | None = None, groups: IntArray | None = None
) -> SplitIndices:
    """Split rows into training, validation and test.

    A fraction above 0 gets at least one row if there are enough. The test rows do not depend on the validation
    fraction.

    Args:
        count: number of rows, at least 1
        plan: the seed, the fractions and the limit
        classes: class of each row, numbered from 0; every split has them in equal proportions, and the training split
            has at least one row of each
        groups: group of each row, numbered from 0; rows of one group go to the same split, and the fractions are
            fractions of the groups

    Returns:
        The row indices of each split.
    """
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    strata = np.zeros(count, np.int64) if classes is None else classes
    unit_of_row = np.arange(count) if groups is None else groups
    stratum = strata if groups is None else _find_rarest_classes(strata, groups)

    part = np.full(len(stratum), TRAIN)
    for number, share in ((TEST, plan.test), (VALIDATION, plan.validation)):
        _choose_split(part, number, share, stratum, generator)

    part_of_row = part[unit_of_row]
    rows = [np.flatnonzero(part_of_row == number) for number in (TRAIN, VALIDATION, TEST)]
    return SplitIndices(*(limit_rows(each, strata[each], plan.limit, generator) for each in rows))


def _choose_split(part: IntArray, number: int, share: float, stratum: IntArray, generator: np.random.Generator) -> None:
    """Move a share of the units from training to the split of this number, in the classes' proportions."""
    free = np.flatnonzero(part == TRAIN)
    chosen = choose_proportionally(stratum[free], _count_split_rows(len(stratum), share), 1, generator)
    part[free[chosen]] = number


def number_folds(test: float, folds: int, seed: int, classes: IntArray, groups: IntArray) -> tuple[IntArray, IntArray]:
    """Choose the test rows, then divide the others into folds of equal size with the classes in equal proportions.

    Args:
        test: fraction of the groups for the test; these rows are in no fold
        folds: number of folds
        seed: seed of the split
        classes: class of each row, numbered from 0
        groups: group of each row, numbered from 0; rows of one group are in the same fold

    Returns:
        The fold of each row (N,), and whether the row is a test row (N,).
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    stratum = _find_rarest_classes(classes, groups)
    part = np.full(len(stratum), TRAIN)
    _choose_split(part, TEST, test, stratum, generator)
    fold = np.full(len(stratum), -1)
    for number in range(folds):
        free = np.flatnonzero((part == TRAIN) & (fold < 0))
        chosen = choose_proportionally(stratum[free], round(len(free) / (folds - number)), 0, generator)
        fold[free[chosen]] = number
    return fold[groups], part[groups] == TEST


def limit_rows(rows: IntArray, classes: IntArray, limit: int | None, generator: np.random.Generator) -> IntArray:
    """Choose at most `limit` of the rows, in the proportions of their classes.

    Args:
        rows: the rows to choose from
        classes: class of each of these rows
        limit: largest number of rows; None for all of them
        generator: source of randomness

    Returns:
        The chosen rows, in their order in `rows`.
    """
    if limit is None or len(rows) <= limit:
        return rows
    return rows[choose_proportionally(classes, limit, 0, generator)]


def choose_proportionally(
    classes: IntArray, count: int, keep_per_class: int, generator: np.random.Generator
) -> IntArray:
    """Choose positions at random, in proportion to the classes.

    Args:
        classes: class of each position, numbered from 0
        count: number of positions to choose, fewer if `keep_per_class` does not leave enough
        keep_per_class: number of positions of each class that are never chosen
        generator: source of randomness

    Returns:
        The chosen positions, ascending.
    """
    sizes = np.bincount(classes)
    quota = _divide_quota(sizes, count, np.maximum(sizes - keep_per_class, 0))
    order = generator.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[classes[order]]
    chosen: IntArray = np.sort(order[rank < quota[classes[order]]])
    return chosen


def _divide_quota(class_sizes: IntArray, count: int, max_counts: IntArray) -> IntArray:
    """Divide `count` among the classes by the largest-remainder method, at most `max_counts` for each."""
    total = min(count, int(max_counts.sum()))
    exact_counts = total * class_sizes / max(1, class_sizes.sum())
    quota: IntArray = np.minimum(np.floor(exact_counts).astype(np.int64), max_counts)
    while (missing := total - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < max_counts)
        neediest = open_classes[np.argsort((quota - exact_counts)[open_classes], kind="stable")]
        quota[neediest[:missing]] += 1
    return quota


def _find_rarest_classes(classes: IntArray, groups: IntArray) -> IntArray:
    """Return one class for each group: the rarest among its rows, so that rare classes are split in proportion."""
    by_rarity = np.argsort(np.bincount(classes), kind="stable")
    rarity = np.empty_like(by_rarity)
    rarity[by_rarity] = np.arange(len(by_rarity))
    rarest = np.full(int(groups.max()) + 1, len(by_rarity))
    np.minimum.at(rarest, groups, rarity[classes])
    classes_of_groups: IntArray = by_rarity[rarest]
    return classes_of_groups


def _count_split_rows(count: int, share: float) -> int:
    return max(1, round(count * share)) if share > 0 else 0
