"""Patterns that pick a network's parameters, as `init`, `freeze` and `optimizer.groups` write them.

freeze: ["stem.*", {layer: BatchNorm2d}]
init: [{match: "*.weight", layer: Linear, type: normal_, std: 0.02}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import shown
from dlspec.spec.expressions import Unknown, Wrong
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.yaml_files import KeyPath

KEYS = ("match", "layer")


@dataclass(frozen=True)
class Pattern:
    """Which parameters: those whose names in the state dict `match` (fnmatch), in layers of these types; () is any.

    `settings` are what stands beside, not looked at here.
    """

    path: KeyPath
    match: str = "*"
    layers: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_patterns(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[Pattern, ...]:
    """The patterns of a list, or a single one; what is none is a mistake."""
    if raw is None or isinstance(raw, Wrong):
        return ()
    if not isinstance(raw, list):
        return tuple(each for each in [_read(raw, path, mistakes)] if each)
    found = [_read(each, (*path, index), mistakes) for index, each in enumerate(raw)]
    return tuple(each for each in found if each)


def _read(raw: Any, path: KeyPath, mistakes: Mistakes) -> Pattern | None:
    if isinstance(raw, Unknown):
        return None
    if isinstance(raw, str) and raw:
        return Pattern(path, raw) if _is_match(raw, path, mistakes) else None
    if not isinstance(raw, dict) or not raw.keys() & set(KEYS):
        fix = 'write a pattern of names, "stem.*", or {match: "*.weight", layer: Linear}'
        mistakes.add(path, f"{shown(raw)} picks no parameters", fix, at_value=True)
        return None
    match, layers = raw.get("match", "*"), _layers(raw.get("layer"), (*path, "layer"), mistakes)
    if layers is None or not _is_match(match, (*path, "match"), mistakes):
        return None
    return Pattern(path, match, layers, {key: each for key, each in raw.items() if key not in KEYS})


def _is_match(raw: Any, path: KeyPath, mistakes: Mistakes) -> bool:
    if isinstance(raw, Unknown):
        return False
    if not isinstance(raw, str) or not raw:
        mistakes.add(path, f"match is {shown(raw)}, wanted a pattern of names", 'write one: "*.bias"', at_value=True)
        return False
    return True


def _layers(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[str, ...] | None:
    names = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if all(isinstance(each, str) for each in names):
        return tuple(names)
    mistakes.add(path, f"layer is {shown(raw)}, wanted a layer's name or a list of them", at_value=True)
    return None
