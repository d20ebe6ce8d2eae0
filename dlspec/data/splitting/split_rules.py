"""How a table is split, as written in `data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HASH = "hash"
Condition = Mapping[str, Any]


@dataclass(frozen=True)
class SplitRules:
    """How a table is split, as written in `data`."""

    seed: int = 0
    validation: float | Condition | None = None  # None: the default share, if nothing else chooses these rows
    test: float | Condition | None = None
    split: str = ""  # a column that names splits, or `hash`
    folds: int | str | None = None  # a number of folds, or a column that numbers them
    fold: int | str | None = None  # the fold that validates
    time: str = ""  # a column: training rows come before validation rows, and these before test rows
    group: tuple[str, ...] = ()  # columns: rows that share a value of either stay together
    limit: int | None = None  # at most this many rows in each split
    folder: Path = Path()  # where relative files of conditions start
