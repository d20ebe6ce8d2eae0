"""Which rows train, which validate, which test: seeded, in the classes' proportions, equal samples kept together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Parts:
    """The rows of each split, ascending. `train` is never empty; the others may be."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class SplitPlan:
    """How rows are split: `validation` and `test` are shares, of which 0 makes an empty part.

    `limit` thins each part to so many rows, in proportion again.
    """

    seed: int
    validation: float
    test: float
    limit: int | None = None


def split_rows(count: int, plan: SplitPlan, classes: Rows | None = None, groups: Rows | None = None) -> Parts:
    """Parts of `count` (at least one) rows.

    With `classes` (a number from 0 for each row) every part has them in equal proportions, and the training part has
    at least one row of each. Rows of one group (numbers from 0) fall into the same part; the shares then are shares of
    the groups. A share above 0 gets at least one row where there are enough. The test part does not depend on the
    validation share.
    """
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    strata = np.zeros(count, np.int64) if classes is None else classes
    unit_of_row = np.arange(count) if groups is None else groups
    stratum = strata if groups is None else _rarest_class(strata, groups)

    part = np.full(len(stratum), TRAIN)
    for number, share in ((TEST, plan.test), (VALIDATION, plan.validation)):
        free = np.flatnonzero(part == TRAIN)
        chosen = choose(stratum[free], _wanted(len(stratum), share), 1, generator)
        part[free[chosen]] = number

    part_of_row = part[unit_of_row]
    rows = [np.flatnonzero(part_of_row == number) for number in (TRAIN, VALIDATION, TEST)]
    return Parts(*(thin(each, strata[each], plan.limit, generator) for each in rows))


def thin(rows: Rows, classes: Rows, limit: int | None, generator: np.random.Generator) -> Rows:
    """At most `limit` of the rows, in their classes' proportions and in their order."""
    if limit is None or len(rows) <= limit:
        return rows
    return rows[choose(classes, limit, 0, generator)]


def choose(classes: Rows, count: int, keep: int, generator: np.random.Generator) -> Rows:
    """`count` positions in proportion to the classes, leaving at least `keep` of each class behind; ascending."""
    sizes = np.bincount(classes)
    quota = _quota(sizes, count, np.maximum(sizes - keep, 0))
    order = generator.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    rank = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[classes[order]]
    chosen: Rows = np.sort(order[rank < quota[classes[order]]])
    return chosen


def _quota(sizes: Rows, count: int, room: Rows) -> Rows:
    """How many of each class to take: the largest remainders get what rounding down leaves over."""
    wanted = min(count, int(room.sum()))
    share = wanted * sizes / max(1, sizes.sum())
    quota: Rows = np.minimum(np.floor(share).astype(np.int64), room)
    while (missing := wanted - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < room)
        neediest = open_classes[np.argsort((quota - share)[open_classes], kind="stable")]
        quota[neediest[:missing]] += 1
    return quota


def _rarest_class(classes: Rows, groups: Rows) -> Rows:
    """One class for each group: the rarest of its rows', so that a rare class is spread with care."""
    by_rarity = np.argsort(np.bincount(classes), kind="stable")
    rarity = np.empty_like(by_rarity)
    rarity[by_rarity] = np.arange(len(by_rarity))
    rarest = np.full(int(groups.max()) + 1, len(by_rarity))
    np.minimum.at(rarest, groups, rarity[classes])
    classes_of_groups: Rows = by_rarity[rarest]
    return classes_of_groups


def _wanted(count: int, share: float) -> int:
    return max(1, round(count * share)) if share > 0 else 0
