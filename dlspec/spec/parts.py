"""The four ways to write a part, made into one.

ReLU                                    its name
{Conv2d: {out_channels: 32}}            its name and its settings
{Linear: 10}                            its name and one value
{type: Adam, lr: 1e-3}                  flat
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.spec.mistakes import Mistakes
from dlspec.spec.yaml_files import KeyPath

# Keys that an entry of `layers` may have beside its layer's name or among its settings.
ENTRY_KEYS = ("name", "from", "repeat", "if", "tie", "share", "parametrize", "layout")


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclass(frozen=True)
class Part:
    """A layer, loss, optimizer, ... as written: its type, its settings, and where each stands."""

    type: str
    path: KeyPath
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_path: KeyPath = ()
    value: Any = NOTHING
    keys: Mapping[str, Any] = field(default_factory=dict)

    def where(self, setting: str) -> KeyPath:
        """The path of one setting."""
        return (*self.settings_path, setting) if setting in self.settings else self.settings_path

    def __str__(self) -> str:
        return self.type


def parse_part(raw: Any, path: KeyPath, mistakes: Mistakes, *, kind: str, is_entry: bool = False) -> Part | None:
    """The part that `raw` spells, or None where it spells none and `mistakes` says why."""
    if isinstance(raw, str) and raw.strip():
        return _from_name(raw.strip(), path, mistakes, kind)
    if not isinstance(raw, dict) or not raw:
        fix = f"write a {kind}'s name, or NAME: {{setting: value}}"
        mistakes.add(path, f"{_shown(raw)} is no {kind}", fix, at_value=True)
        return None
    keys = {key: value for key, value in raw.items() if is_entry and key in ENTRY_KEYS}
    rest = {key: value for key, value in raw.items() if key not in keys}
    if "type" in rest:
        return _flat(rest, path, keys, mistakes, kind)
    if len(rest) == 1:
        return _named(*next(iter(rest.items())), path, keys, mistakes, is_entry)
    _no_single_name(rest, path, keys, mistakes, kind)
    return None


def _from_name(name: str, path: KeyPath, mistakes: Mistakes, kind: str) -> Part | None:
    if name.replace("_", "a").replace("$", "a").replace(".", "a").isalnum() or name.startswith("$("):
        return Part(name, path, settings_path=path)
    word = name.split("(")[0].split(" ")[0].strip(",:")
    fix = f"write '{word}: {{setting: value}}'" if word else f"write a {kind}'s name"
    mistakes.add(path, f"'{name}' is no {kind}'s name", fix, at_value=True)
    return None


def _flat(rest: dict[str, Any], path: KeyPath, keys: dict[str, Any], mistakes: Mistakes, kind: str) -> Part | None:
    name = rest["type"]
    if not isinstance(name, str):
        mistakes.add((*path, "type"), f"{_shown(name)} is no {kind}'s name", "write a name", at_value=True)
        return None
    settings = {key: value for key, value in rest.items() if key != "type"}
    return Part(name, path, settings, path, keys=keys)


def _named(
    name: str, inner: Any, path: KeyPath, keys: dict[str, Any], mistakes: Mistakes, is_entry: bool
) -> Part | None:
    inside = (*path, name)
    if inner is None:
        return Part(name, path, settings_path=inside, keys=keys)
    if not isinstance(inner, dict):
        return Part(name, path, settings_path=inside, value=inner, keys=keys)
    among = {key: value for key, value in inner.items() if is_entry and key in ENTRY_KEYS}
    for key in among.keys() & keys.keys():
        mistakes.add((*inside, key), f"'{key}' stands beside {name} and among its settings", "keep one")
    settings = {key: value for key, value in inner.items() if key not in among}
    return Part(name, path, settings, inside, keys={**keys, **among})


def _no_single_name(rest: dict[str, Any], path: KeyPath, keys: dict[str, Any], mistakes: Mistakes, kind: str) -> None:
    if "share" in keys and not rest:
        mistakes.add((*path, "share"), "'share' is not there yet", "write the layer again for weights of its own")
    elif not rest:
        mistakes.add(path, f"no {kind}'s name", f"write one beside {', '.join(keys)}")
    else:
        names = ", ".join(str(key) for key in rest)
        fix = f"write one {kind} an entry, its settings below it: {next(iter(rest))}: {{...}}"
        mistakes.add(path, f"{len(rest)} keys where one {kind}'s name is wanted: {names}", fix)


def _shown(raw: Any) -> str:
    if raw is None:
        return "nothing"
    text = str(raw)
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'"
