"""Entries of `layers` as plain YAML values: which layer an entry names, and what merging another entry into it does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

# Keys that an entry may have next to its layer's name or among the layer's settings.
FIRST_ENTRY_KEYS = ("name", "from", "repeat", "if", "tie", "share", "parametrize", "layout")
# Keys added after version 0.1.0: a setting of this name of a user's own layer takes its place.
LATER_ENTRY_KEYS = ("lengths_of",)
ENTRY_KEYS = (*FIRST_ENTRY_KEYS, *LATER_ENTRY_KEYS)
OWN_SETTINGS: dict[str, frozenset[str]] = {}  # by layer: the keys of `LATER_ENTRY_KEYS` that are settings of it
# Keys of containers whose value is one entry or a list of entries.
_NESTED_ENTRY_KEYS = ("body", "shortcut", "if_unequal", "merge")
# Keys whose value contains entries, by index or by name.
_ENTRY_COLLECTION_KEYS = ("layers", "branches")


def is_entry(path: Sequence[Hashable]) -> bool:
    """Whether this path of a config leads to an entry: somewhere below `layers`, by index or name."""
    if "layers" not in path[:-1]:
        return False
    last, parent = path[-1], path[-2]
    return (
        last in _NESTED_ENTRY_KEYS or parent in _ENTRY_COLLECTION_KEYS or (isinstance(last, int) and parent != "repeat")
    )


def is_entry_key(key: Hashable, layer: str = "") -> bool:
    """Whether a key belongs to the entry, and is not a setting of its layer."""
    return key in ENTRY_KEYS and key not in OWN_SETTINGS.get(layer, ())


def find_layer_name(entry: Any) -> tuple[str, str] | None:
    """Find the name of an entry's layer.

    Returns:
        Where the name is written ("type", "share", or "key" if the name itself is a key of the entry) and the name;
        None if the entry names no layer.
    """
    if isinstance(entry, str):
        return "key", entry
    if not isinstance(entry, dict):
        return None
    for key in ("type", "share"):
        if key in entry:
            return key, str(entry[key])
    names = find_layer_keys(entry)
    return ("key", ", ".join(names)) if names else None


def find_layer_keys(entry: Mapping[str, Any]) -> list[str]:
    """Return the keys of an entry that are not entry keys such as `name` or `repeat`, and so may name a layer."""
    return [str(key) for key in entry if key not in ENTRY_KEYS]


def names_different_part(base: Any, overlay: Any, path: Sequence[Hashable]) -> bool:
    """Whether `overlay` names a different part than `base`, and so replaces it instead of being merged with it.

    Args:
        base: The value that was written first.
        overlay: The value that is merged into it.
        path: Path of both values in the config.
    """
    if not isinstance(base, dict) or not isinstance(overlay, dict):
        return False
    if not is_entry(path) and not (_looks_like_part(base) and _looks_like_part(overlay)):
        return False
    old, new = find_layer_name(base), find_layer_name(overlay)
    if new is None or (old is not None and old[0] == "type" and _has_only_settings(overlay)):
        return False
    return old != new


def select_merged_keys(
    merged: Mapping[str, Any], written: Mapping[str, Any], path: Sequence[Hashable]
) -> Mapping[str, Any]:
    """Select the keys that `<<: *merged` adds to a mapping.

    If the mapping names a different part, only entry keys such as `name` and `repeat` are taken over.

    Args:
        merged: The mapping that `<<` refers to.
        written: The mapping that contains the `<<`.
        path: Path of `written` in the config.

    Returns:
        The keys and values of `merged` to add.
    """
    if not names_different_part(merged, written, path):
        return merged
    return {key: value for key, value in merged.items() if key in ENTRY_KEYS and key != "share"}


def _looks_like_part(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is probably a part, as in {LeakyReLU: {negative_slope: 0.1}}: one key, capitalized."""
    return len(value) == 1 and str(next(iter(value)))[:1].isupper()


def _has_only_settings(overlay: Mapping[str, Any]) -> bool:
    """Whether an overlay contains only settings, as in {inplace: true} merged into {type: $activation}."""
    names = find_layer_keys(overlay)
    return "type" not in overlay and all(name[:1].islower() and overlay[name] is not None for name in names)
