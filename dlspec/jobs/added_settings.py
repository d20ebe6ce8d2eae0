"""Settings that were added after version 0.1.0. At its default none of them changes a job's hash.

So a sweep that an older version began is recognized, and what it has trained is not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AddedSetting:
    """A setting with its default, and the version that has it first.

    In `key`, `trainer.noise`, a `*` stands for any one key or number in a list and `**` for any number of them:
    `data.*.scale`, `model.**.Attention.window`.
    """

    key: str
    default: Any
    since: str


# A new setting of a spec gets a line here, unless it changes what older specs come to.
ADDED_SETTINGS: tuple[AddedSetting, ...] = ()


def drop_added_defaults(tree: Mapping[str, Any], added: Sequence[AddedSetting]) -> Mapping[str, Any]:
    """The tree without the settings that were added and stand at their default."""
    for setting in added:
        tree = _drop_default(tree, setting.key.split("."), setting.default)
    return tree


def _drop_default(value: Any, keys: Sequence[str], default: Any) -> Any:
    """`value` without the default at the place that the keys lead to, however many places there are."""
    if isinstance(value, Mapping):
        kept = {
            key: each
            for key, each in value.items()
            if not (_is_last_key(keys, str(key)) and _equals_default(each, default))
        }
        return {key: _drop_default_below(each, str(key), keys, default) for key, each in kept.items()}
    if isinstance(value, list | tuple):
        return [_drop_default_below(each, str(index), keys, default) for index, each in enumerate(value)]
    return value


def _drop_default_below(value: Any, key: str, keys: Sequence[str], default: Any) -> Any:
    for remaining in _get_remaining_keys(keys, key):
        value = _drop_default(value, remaining, default)
    return value


def _get_remaining_keys(keys: Sequence[str], key: str) -> list[Sequence[str]]:
    """What is left of the keys behind `key`, in each way to take it; nothing where it does not lead there."""
    if not keys:
        return []
    if keys[0] == "**":
        return [keys, *_get_remaining_keys(keys[1:], key)]
    return [keys[1:]] if keys[0] in ("*", key) else []


def _is_last_key(keys: Sequence[str], key: str) -> bool:
    return [] in [list(remaining) for remaining in _get_remaining_keys(keys, key)]


def _equals_default(value: Any, default: Any) -> bool:
    """Whether it is the default; True is not 1, and a tuple is a list."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return type(value) is type(default) and bool(value == default)
