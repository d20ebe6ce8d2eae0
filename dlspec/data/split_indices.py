"""Which rows train, which validate, which test: seeded, in the classes' proportions, equal samples kept together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class SplitIndices:
    """The rows of each split, ascending. `train` is never empty; the others may be."""

    train: IntArray
    validation: IntArray
    test: IntArray


@dataclass(frozen=True)
class SplitPlan:
    """How rows are split: `validation` and `test` are shares, of which 0 makes an empty part.

    `limit` thins each part to so many rows, in proportion again.
    """

    seed: int
    validation: float
    test: float
    limit: int | None = None


def split_rows(
    count: int, plan: SplitPlan, classes: IntArray | None = None, groups: IntArray | None = None
) -> SplitIndices:
    """Parts of `count` (at least one) rows.

    With `classes` (a number from 0 for each row) every part has them in equal proportions, and the training part has
    at least one row of each. Rows of one group (numbers from 0) fall into the same part; the shares then are shares of
    the groups. A share above 0 gets at least one row where there are enough. The test part does not depend on the
    validation share.
    """
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    strata = np.zeros(count, np.int64) if classes is None else classes
    unit_of_row = np.arange(count) if groups is None else groups
    stratum = strata if groups is None else _find_rarest_classes(strata, groups)

    part = np.full(len(stratum), TRAIN)
    for number, share in ((TEST, plan.test), (VALIDATION, plan.validation)):
        free = np.flatnonzero(part == TRAIN)
        chosen = choose_proportionally(stratum[free], _count_split_rows(len(stratum), share), 1, generator)
        part[free[chosen]] = number

    part_of_row = part[unit_of_row]
    rows = [np.flatnonzero(part_of_row == number) for number in (TRAIN, VALIDATION, TEST)]
    return SplitIndices(*(limit_rows(each, strata[each], plan.limit, generator) for each in rows))


def limit_rows(rows: IntArray, classes: IntArray, limit: int | None, generator: np.random.Generator) -> IntArray:
    """At most `limit` of the rows, in their classes' proportions and in their order."""
    if limit is None or len(rows) <= limit:
        return rows
    return rows[choose_proportionally(classes, limit, 0, generator)]


def choose_proportionally(classes: IntArray, count: int, keep: int, generator: np.random.Generator) -> IntArray:
    """`count` positions in proportion to the classes, leaving at least `keep` of each class behind; ascending."""
    sizes = np.bincount(classes)
    quota = _divide_quota(sizes, count, np.maximum(sizes - keep, 0))
    order = generator.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[classes[order]]
    chosen: IntArray = np.sort(order[rank < quota[classes[order]]])
    return chosen


def _divide_quota(sizes: IntArray, count: int, max_counts: IntArray) -> IntArray:
    """How many of each class to take: the largest remainders get what rounding down leaves over."""
    total = min(count, int(max_counts.sum()))
    exact_counts = total * sizes / max(1, sizes.sum())
    quota: IntArray = np.minimum(np.floor(exact_counts).astype(np.int64), max_counts)
    while (missing := total - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < max_counts)
        neediest = open_classes[np.argsort((quota - exact_counts)[open_classes], kind="stable")]
        quota[neediest[:missing]] += 1
    return quota


def _find_rarest_classes(classes: IntArray, groups: IntArray) -> IntArray:
    """One class for each group: the rarest of its rows', so that a rare class is spread with care."""
    by_rarity = np.argsort(np.bincount(classes), kind="stable")
    rarity = np.empty_like(by_rarity)
    rarity[by_rarity] = np.arange(len(by_rarity))
    rarest = np.full(int(groups.max()) + 1, len(by_rarity))
    np.minimum.at(rarest, groups, rarity[classes])
    classes_of_groups: IntArray = by_rarity[rarest]
    return classes_of_groups


def _count_split_rows(count: int, share: float) -> int:
    return max(1, round(count * share)) if share > 0 else 0
