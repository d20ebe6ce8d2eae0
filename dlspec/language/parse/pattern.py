"""Patterns that pick a network's parameters, as `init`, `freeze` and `optimizer.groups` write them.

freeze: ["stem.*", {layer: BatchNorm2d}]
init: [{match: "*.weight", layer: Linear, type: normal_, std: 0.02}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, format_value
from dlspec.language.expressions.evaluator import InvalidValue, UnknownValue
from dlspec.language.problems import Problems

PATTERN_KEYS = ("match", "layer", "dims", "except")


@dataclass(frozen=True)
class ParameterPattern:
    """Which parameters: those whose names in the state dict `match` (fnmatch), in layers of these types; () is any.

    `dims` is how many dimensions they have, where that counts; names that match one of `but` are left out.
    `settings` are what stands beside, not looked at here.
    """

    path: KeyPath
    match: str = "*"
    layers: tuple[str, ...] = ()
    dims: int | None = None
    exclude: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_patterns(raw: Any, path: KeyPath, problems: Problems) -> tuple[ParameterPattern, ...]:
    """The patterns of a list, or a single one; what is none is a mistake."""
    if raw is None or isinstance(raw, InvalidValue):
        return ()
    if not isinstance(raw, list):
        return tuple(each for each in [_read_pattern(raw, path, problems)] if each)
    found = [_read_pattern(each, (*path, index), problems) for index, each in enumerate(raw)]
    return tuple(each for each in found if each)


def _read_pattern(raw: Any, path: KeyPath, problems: Problems) -> ParameterPattern | None:
    if isinstance(raw, UnknownValue):
        return None
    if isinstance(raw, str) and raw:
        return ParameterPattern(path, raw) if _is_valid_match(raw, path, problems) else None
    if not isinstance(raw, dict) or not raw.keys() & set(PATTERN_KEYS):
        fix = 'write a pattern of names, "stem.*", or {match: "*.weight", layer: Linear}'
        problems.add(Code.WRONG_TYPE, path, f"{format_value(raw)} picks no parameters", fix, at_value=True)
        return None
    match, layers = raw.get("match", "*"), _read_layer_names(raw.get("layer"), (*path, "layer"), problems)
    exclude, dims = raw.get("except", []), raw.get("dims")
    exclude = exclude if isinstance(exclude, list) else [exclude]
    if layers is None or not all(_is_valid_match(each, (*path, "except"), problems) for each in exclude):
        return None
    if not _is_valid_match(match, (*path, "match"), problems) or not _is_valid_dims(dims, (*path, "dims"), problems):
        return None
    settings = {key: each for key, each in raw.items() if key not in PATTERN_KEYS}
    return ParameterPattern(path, match, layers, dims, tuple(exclude), settings)


def _is_valid_dims(raw: Any, path: KeyPath, problems: Problems) -> bool:
    if raw is None or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return True
    if not isinstance(raw, UnknownValue):
        found = f"dims is {format_value(raw)}, wanted how many dimensions: 1 for biases and norms, 2 for matrices"
        problems.add(Code.WRONG_VALUE, path, found, at_value=True)
    return False


def _is_valid_match(raw: Any, path: KeyPath, problems: Problems) -> bool:
    if isinstance(raw, UnknownValue):
        return False
    if not isinstance(raw, str) or not raw:
        found = f"{path[-1]} is {format_value(raw)}, wanted a pattern of names"
        problems.add(Code.WRONG_VALUE, path, found, 'write one: "*.bias"', at_value=True)
        return False
    return True


def _read_layer_names(raw: Any, path: KeyPath, problems: Problems) -> tuple[str, ...] | None:
    names = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if all(isinstance(each, str) for each in names):
        return tuple(names)
    problems.add(
        Code.WRONG_VALUE, path, f"layer is {format_value(raw)}, wanted a layer's name or a list of them", at_value=True
    )
    return None
