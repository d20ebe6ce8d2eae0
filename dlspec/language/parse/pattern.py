"""Patterns that pick a network's parameters, as `init`, `freeze` and `optimizer.groups` write them.

freeze: ["stem.*", {layer: BatchNorm2d}]
init: [{match: "*.weight", layer: Linear, type: normal_, std: 0.02}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, shown
from dlspec.language.expressions.expressions import Unknown, Wrong
from dlspec.language.problems import Problems

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


def read_patterns(raw: Any, path: KeyPath, problems: Problems) -> tuple[Pattern, ...]:
    """The patterns of a list, or a single one; what is none is a mistake."""
    if raw is None or isinstance(raw, Wrong):
        return ()
    if not isinstance(raw, list):
        return tuple(each for each in [_read(raw, path, problems)] if each)
    found = [_read(each, (*path, index), problems) for index, each in enumerate(raw)]
    return tuple(each for each in found if each)


def _read(raw: Any, path: KeyPath, problems: Problems) -> Pattern | None:
    if isinstance(raw, Unknown):
        return None
    if isinstance(raw, str) and raw:
        return Pattern(path, raw) if _is_match(raw, path, problems) else None
    if not isinstance(raw, dict) or not raw.keys() & set(KEYS):
        fix = 'write a pattern of names, "stem.*", or {match: "*.weight", layer: Linear}'
        problems.add(Code.WRONG_TYPE, path, f"{shown(raw)} picks no parameters", fix, at_value=True)
        return None
    match, layers = raw.get("match", "*"), _layers(raw.get("layer"), (*path, "layer"), problems)
    but, dims = raw.get("except", []), raw.get("dims")
    but = but if isinstance(but, list) else [but]
    if layers is None or not all(_is_match(each, (*path, "except"), problems) for each in but):
        return None
    if not _is_match(match, (*path, "match"), problems) or not _is_dims(dims, (*path, "dims"), problems):
        return None
    settings = {key: each for key, each in raw.items() if key not in KEYS}
    return Pattern(path, match, layers, dims, tuple(but), settings)


def _is_dims(raw: Any, path: KeyPath, problems: Problems) -> bool:
    if raw is None or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return True
    if not isinstance(raw, Unknown):
        found = f"dims is {shown(raw)}, wanted how many dimensions: 1 for biases and norms, 2 for matrices"
        problems.add(Code.WRONG_VALUE, path, found, at_value=True)
    return False


def _is_match(raw: Any, path: KeyPath, problems: Problems) -> bool:
    if isinstance(raw, Unknown):
        return False
    if not isinstance(raw, str) or not raw:
        found = f"{path[-1]} is {shown(raw)}, wanted a pattern of names"
        problems.add(Code.WRONG_VALUE, path, found, 'write one: "*.bias"', at_value=True)
        return False
    return True


def _layers(raw: Any, path: KeyPath, problems: Problems) -> tuple[str, ...] | None:
    names = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if all(isinstance(each, str) for each in names):
        return tuple(names)
    problems.add(
        Code.WRONG_VALUE, path, f"layer is {shown(raw)}, wanted a layer's name or a list of them", at_value=True
    )
    return None
