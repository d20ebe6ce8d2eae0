"""Splits whose images are kept after they were decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlspec.data.dataset import Split
from dlspec.data.images.image_cache import CacheSetting, cache_arrays
from dlspec.data.lazy_array import LazyArray, Values
from dlspec.errors import Code, DataError

FIELDS, TARGETS = "fields", "targets"


def cache_splits(splits: Sequence[Split], setting: CacheSetting, data: str) -> tuple[Sequence[Split], tuple[str, ...]]:
    """Keep the decoded rows of lazy arrays.

    Args:
        splits: the splits of one data set
        setting: `memory`, `disk`, False for no cache; `auto` for memory if they are small, else for the disk
        data: name of the data set

    Returns:
        The same splits, whose rows are kept as they are read, and lines for the user.

    Raises:
        DataError: if there is nothing to keep, or no room for it where the setting asks for it.
    """
    groups = {(FIELDS, name): _collect([each.tensors for each in splits], name) for name in splits[0].tensors}
    groups |= {(TARGETS, name): _collect([each.targets for each in splits], name) for name in splits[0].targets}
    lazy = {key: arrays for key, arrays in groups.items() if len(arrays) == len(splits)}
    if not lazy and setting != "auto":
        raise DataError("cache", "cache has no effect: the data have no images in files; remove cache", Code.UNUSED)
    cached, notes = cache_arrays(lazy, setting, data)
    if not cached:
        return splits, notes

    def replace_values(values: Mapping[str, Values], kind: str, number: int) -> dict[str, Values]:
        return {name: cached[kind, name][number] if (kind, name) in cached else each for name, each in values.items()}

    replaced = [
        Split(replace_values(each.tensors, FIELDS, number), replace_values(each.targets, TARGETS, number))
        for number, each in enumerate(splits)
    ]
    return replaced, notes


def _collect(splits: Sequence[Mapping[str, Values]], name: str) -> list[LazyArray]:
    """Return a field's or target's array of each split that has it lazily."""
    return [each for each in (values[name] for values in splits) if isinstance(each, LazyArray)]
