"""Patterns that pick a network's parameters, as `init`, `freeze` and `optimizer.groups` write them.

freeze: ["stem.*", {layer: BatchNorm2d}]
init: [{match: "*.weight", layer: Linear, type: normal_, std: 0.02}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, shown
from dlspec.spec.expressions import Unknown, Wrong
from dlspec.spec.problems import Mistakes

KEYS = ("match", "layer", "dims", "except")


@dataclass(frozen=True)
class Pattern:
    """Which parameters: those whose names in the state dict `match` (fnmatch), in layers of these types; () is any.

    `dims` is how many dimensions they have, where that counts; names that match one of `but` are left out.
    `settings` are what stands beside, not looked at here.
    """

    path: KeyPath
    match: str = "*"
    layers: tuple[str, ...] = ()
    dims: int | None = None
    but: tuple[str, ...] = ()
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
        mistakes.add(Code.WRONG_TYPE, path, f"{shown(raw)} picks no parameters", fix, at_value=True)
        return None
    match, layers = raw.get("match", "*"), _layers(raw.get("layer"), (*path, "layer"), mistakes)
    but, dims = raw.get("except", []), raw.get("dims")
    but = but if isinstance(but, list) else [but]
    if layers is None or not all(_is_match(each, (*path, "except"), mistakes) for each in but):
        return None
    if not _is_match(match, (*path, "match"), mistakes) or not _is_dims(dims, (*path, "dims"), mistakes):
        return None
    settings = {key: each for key, each in raw.items() if key not in KEYS}
    return Pattern(path, match, layers, dims, tuple(but), settings)


def _is_dims(raw: Any, path: KeyPath, mistakes: Mistakes) -> bool:
    if raw is None or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return True
    if not isinstance(raw, Unknown):
        found = f"dims is {shown(raw)}, wanted how many dimensions: 1 for biases and norms, 2 for matrices"
        mistakes.add(Code.WRONG_VALUE, path, found, at_value=True)
    return False


def _is_match(raw: Any, path: KeyPath, mistakes: Mistakes) -> bool:
    if isinstance(raw, Unknown):
        return False
    if not isinstance(raw, str) or not raw:
        found = f"{path[-1]} is {shown(raw)}, wanted a pattern of names"
        mistakes.add(Code.WRONG_VALUE, path, found, 'write one: "*.bias"', at_value=True)
        return False
    return True


def _layers(raw: Any, path: KeyPath, mistakes: Mistakes) -> tuple[str, ...] | None:
    names = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if all(isinstance(each, str) for each in names):
        return tuple(names)
    mistakes.add(
        Code.WRONG_VALUE, path, f"layer is {shown(raw)}, wanted a layer's name or a list of them", at_value=True
    )
    return None
