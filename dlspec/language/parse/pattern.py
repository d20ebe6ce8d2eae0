"""Read patterns that select parameters of a network, as used in `init`, `freeze` and `optimizer.groups`.

freeze: ["stem.*", {layer: BatchNorm2d}]
init: [{match: "*.weight", layer: Linear, type: normal_, std: 0.02}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.errors import Code, KeyPath, format_value
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.problems import Problems

PATTERN_KEYS = ("match", "layer", "dims", "except")


@dataclass(frozen=True)
class ParameterPattern:
    """Selects parameters of a network. All conditions must be met."""

    path: KeyPath
    match: str = "*"  # pattern of names in the state dict, by fnmatch
    layers: tuple[str, ...] = ()  # types of layers; () is any
    dims: int | None = None  # number of dimensions; None is any
    exclude: tuple[str, ...] = ()  # patterns of names that are not selected
    settings: Mapping[str, Any] = field(default_factory=dict)  # the other keys, not checked here


def read_patterns(raw: Any, path: KeyPath, problems: Problems) -> tuple[ParameterPattern, ...]:
    """Read a list of patterns, or a single one; those that are not valid are reported and left out.

    Args:
        raw: The list or the pattern as written.
        path: Its path.
        problems: Collects what is wrong.
    """
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
        problems.add(Code.WRONG_TYPE, path, f"{format_value(raw)} is not a pattern of parameters", fix, at_value=True)
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
        found = (
            f"'dims' must be a number of dimensions (1 for biases and norms, 2 for matrices), got {format_value(raw)}"
        )
        problems.add(Code.WRONG_VALUE, path, found, at_value=True)
    return False


def _is_valid_match(raw: Any, path: KeyPath, problems: Problems) -> bool:
    if isinstance(raw, UnknownValue):
        return False
    if not isinstance(raw, str) or not raw:
        found = f"'{path[-1]}' must be a pattern of names, got {format_value(raw)}"
        problems.add(Code.WRONG_VALUE, path, found, 'write one: "*.bias"', at_value=True)
        return False
    return True


def _read_layer_names(raw: Any, path: KeyPath, problems: Problems) -> tuple[str, ...] | None:
    names = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if all(isinstance(each, str) for each in names):
        return tuple(names)
    problems.add(
        Code.WRONG_VALUE,
        path,
        f"'layer' must be a layer's name or a list of them, got {format_value(raw)}",
        at_value=True,
    )
    return None
