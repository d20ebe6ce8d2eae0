"""Settings that were added after version 0.1.0. At its default value, none of them changes a job's hash.

So a sweep that an older version started can be resumed without training its finished jobs again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AddedSetting:
    """A setting that was added after version 0.1.0."""

    # The dotted path, such as `trainer.noise`. `*` matches any one key or list index, `**` any number of them:
    # `data.*.scale`, `model.**.Attention.window`.
    key: str
    default: Any
    since: str  # the first version that has it


# A new setting of a spec gets a line here, unless its default changes the results of older specs.
ADDED_SETTINGS: tuple[AddedSetting, ...] = (
    AddedSetting("trainer.sampling", None, "0.2.0"),
    AddedSetting("data.augment", None, "0.2.0"),
    AddedSetting("trainer.steps_per_call", "auto", "0.2.0"),
)


def drop_added_defaults(tree: Mapping[str, Any], added: Sequence[AddedSetting]) -> Mapping[str, Any]:
    """Return the tree without the added settings that have their default value."""
    for setting in added:
        tree = _drop_default(tree, setting.key.split("."), setting.default)
    return tree


def _drop_default(value: Any, key_pattern: Sequence[str], default: Any) -> Any:
    """Return `value` without the default, at every path that matches the keys."""
    if isinstance(value, Mapping):
        kept = {
            key: each
            for key, each in value.items()
            if not (_is_last_key(key_pattern, str(key)) and _equals_default(each, default))
        }
        return {key: _drop_default_below(each, str(key), key_pattern, default) for key, each in kept.items()}
    if isinstance(value, list | tuple):
        return [_drop_default_below(each, str(index), key_pattern, default) for index, each in enumerate(value)]
    return value


def _drop_default_below(value: Any, key: str, keys: Sequence[str], default: Any) -> Any:
    for remaining in _get_remaining_keys(keys, key):
        value = _drop_default(value, remaining, default)
    return value


def _get_remaining_keys(keys: Sequence[str], key: str) -> list[Sequence[str]]:
    """Return the keys that remain after `key`, once for each way to match it (`**` has two); [] without a match."""
    if not keys:
        return []
    if keys[0] == "**":
        return [keys, *_get_remaining_keys(keys[1:], key)]
    return [keys[1:]] if keys[0] in ("*", key) else []


def _is_last_key(keys: Sequence[str], key: str) -> bool:
    return [] in [list(remaining) for remaining in _get_remaining_keys(keys, key)]


def _equals_default(value: Any, default: Any) -> bool:
    """Whether a value equals the default, with the same type; lists and tuples count as the same type."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return type(value) is type(default) and bool(value == default)
