"""An entry of `layers` as plain values: which layer it names, and what becomes of it when another is laid over it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

# Keys that an entry may have beside its layer's name or among its settings.
ENTRY_KEYS = ("name", "from", "repeat", "if", "tie", "share", "parametrize", "layout")
# Keys of dlspec's own layers that hold one entry, a list of them, or entries by name.
_NESTED_ENTRY_KEYS = ("body", "shortcut", "merge")
_ENTRY_COLLECTION_KEYS = ("layers", "branches")


def is_entry(path: Sequence[Hashable]) -> bool:
    """Whether an entry stands at this path of a config: below some `layers`, by its index or name."""
    if "layers" not in path[:-1]:
        return False
    last, parent = path[-1], path[-2]
    return (
        last in _NESTED_ENTRY_KEYS or parent in _ENTRY_COLLECTION_KEYS or (isinstance(last, int) and parent != "repeat")
    )


def find_layer_name(entry: Any) -> tuple[str, str] | None:
    """How an entry says which layer it is (`type`, `share` or the layer's name as a key), and the name."""
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
    """The keys of an entry that name a layer."""
    return [str(key) for key in entry if key not in ENTRY_KEYS]


def names_other_part(base: Any, overlay: Any, path: Sequence[Hashable]) -> bool:
    """Whether `over` names another part than `before`, and so takes its place whole."""
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
    """What `<<: *merged` gives to the mapping `written`: where that names another part, only the keys beside a name."""
    if not names_other_part(merged, written, path):
        return merged
    return {key: value for key, value in merged.items() if key in ENTRY_KEYS and key != "share"}


def _looks_like_part(value: Mapping[str, Any]) -> bool:
    """Whether a mapping that may be anything is a part: {LeakyReLU: {negative_slope: 0.1}}."""
    return len(value) == 1 and str(next(iter(value)))[:1].isupper()


def _has_only_settings(overlay: Mapping[str, Any]) -> bool:
    """Whether what is laid over a flat entry sets something: {inplace: true} over {type: $activation}."""
    names = find_layer_keys(overlay)
    return "type" not in overlay and all(name[:1].islower() and overlay[name] is not None for name in names)
