"""Columns that are made of several others: `columns: {image: {numbers: {like: "pixel_*"}}}`.

`target: {kinds: {labels: {like: [toxic, insult]}}}` makes one target of several columns of yes or no.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.encoding.name_patterns import match_names
from dlspec.errors import Code, DataError

MAX_LISTED = 10  # names in a message
Stacks = Mapping[str, tuple[str, ...]]  # by new column: the columns that it is made of


def find_stacks(key: str, written: Mapping[str, Any], columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Find the new columns that kinds with `like` make.

    Args:
        key: the setting of `data` that contains the kinds, for messages
        written: kinds by column, as written
        columns: the names of the table's columns

    Raises:
        DataError: if a pattern matches nothing, or the new column has the name of another.
    """
    patterns = {name: _find_like(kind) for name, kind in written.items()}
    stacks: dict[str, tuple[str, ...]] = {}
    for name, like in patterns.items():
        if not like:
            continue
        if name in columns:
            found = f"'{name}' is a column already, so it can't be made of '{', '.join(like)}'"
            raise DataError(f"{key}.{name}", f"{found}; choose another name", Code.NAME_TAKEN)
        stacks[name] = tuple(match_names(f"{key}.{name}", like, columns))
    return stacks


def _find_like(kind: object) -> list[str]:
    settings = next(iter(kind.values())) if isinstance(kind, Mapping) and len(kind) == 1 else None
    like = settings.get("like") if isinstance(settings, Mapping) else None
    return [str(each) for each in like] if isinstance(like, list) else [str(like)] if like else []


def name_stacked_labels(targets: Mapping[str, Any], stacks: Stacks) -> dict[str, Any]:
    """Return the targets as written; labels that are several columns get the names of these as classes.

    Raises:
        DataError: if other classes are written.
    """
    return {name: _name_labels(name, each, stacks) if name in stacks else each for name, each in targets.items()}


def _name_labels(name: str, written: Any, stacks: Stacks) -> Any:
    settings = written.get("labels")
    if not isinstance(settings, Mapping):
        return written
    names = list(stacks[name])
    if settings.get("classes") not in (None, names):
        found = f"the classes of '{name}' are its columns, {', '.join(names[:MAX_LISTED])}"
        raise DataError(f"target.{name}.labels.classes", f"{found}; leave classes out", Code.CONFLICT)
    return {"labels": {**settings, "classes": names}}


def stack_columns(columns: Mapping[str, NDArray[Any]], members: Sequence[str]) -> NDArray[Any]:
    """Put columns of one type side by side: (N, W)."""
    return np.stack([columns[name] for name in members], axis=1)
