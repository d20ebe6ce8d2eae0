"""Read the settings that select parameters by patterns of their names: `init`, `freeze` and `optimizer.groups`.

init: [{match: "*.weight", layer: [Linear, Embedding], type: normal_, std: 0.02}]
freeze: ["stem.*", {match: "encoder.*", unfreeze_at_epoch: 4}]
optimizer: {type: AdamW, lr: 1e-3, groups: [{match: "*.bias", weight_decay: 0}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.parse.pattern import PATTERN_KEYS, ParameterPattern, read_patterns
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema
from dlspec.parts.torch.inits import INITS
from dlspec.parts.torch.torch_parts import LAYERS

UNFREEZE_KEY = "unfreeze_at_epoch"


@dataclass(frozen=True)
class Initialization:
    """Initialization of the parameters that match a pattern: a function of `torch.nn.init` and its settings."""

    pattern: ParameterPattern
    schema: Schema
    settings: Mapping[str, Any]


def read_inits(raw: Any, path: KeyPath, problems: Problems) -> tuple[Initialization, ...]:
    """Read the section `init`.

    Args:
        raw: The section as written.
        path: Its path in the spec.
        problems: Where everything wrong is reported.

    Returns:
        The initializations that could be read, in their order.
    """
    found = [_read_initialization(each, problems) for each in _read_checked_patterns(raw, path, problems)]
    return tuple(each for each in found if each)


def _read_initialization(pattern: ParameterPattern, problems: Problems) -> Initialization | None:
    if not pattern.settings:
        fix = 'add a function of torch.nn.init: {match: "*.weight", type: normal_, std: 0.02}'
        problems.add(Code.MISSING_NAME, pattern.path, f"no init function for '{pattern.match}'", fix, at_value=True)
        return None
    part = parse_part(dict(pattern.settings), pattern.path, problems, kind="init")
    if part is None:
        return None
    part = replace(part, path=part.path_of_name)
    found = INITS.read(part, problems)
    return None if found is None else Initialization(pattern, *found)


def read_freeze(raw: Any, path: KeyPath, problems: Problems) -> tuple[ParameterPattern, ...]:
    """Read the section `freeze`: patterns of parameters that are not trained.

    Args:
        raw: The section as written.
        path: Its path in the spec.
        problems: Where everything wrong is reported.

    Returns:
        The patterns. Their settings may contain `unfreeze_at_epoch`, the first epoch that trains the parameters.
    """
    patterns = _read_checked_patterns(raw, path, problems)
    for pattern in patterns:
        for key, value in pattern.settings.items():
            if key != UNFREEZE_KEY:
                fix = suggest(key, (*PATTERN_KEYS, UNFREEZE_KEY))
                problems.add(
                    Code.UNKNOWN_KEY, (*pattern.path, key), f"unknown key '{key}' in a pattern of 'freeze'", fix
                )
            elif not isinstance(value, int) or isinstance(value, bool) or value < 2:
                found = f"'{UNFREEZE_KEY}' must be a whole number >= 2 (epochs count from 1), got {format_value(value)}"
                problems.add(Code.WRONG_VALUE, (*pattern.path, key), found, at_value=True)
    return patterns


def read_groups(raw: Any, path: KeyPath, optimizer: Schema, problems: Problems) -> tuple[ParameterPattern, ...]:
    """Read `optimizer.groups`: patterns of parameters with their own optimizer settings.

    Args:
        raw: The groups as written.
        path: Their path in the spec.
        optimizer: Schema of the optimizer, which checks each group's settings.
        problems: Where everything wrong is reported.

    Returns:
        The patterns with their checked settings.
    """
    return tuple(
        replace(each, settings=optimizer.read(Part(optimizer.name, each.path, each.settings, each.path), problems))
        for each in _read_checked_patterns(raw, path, problems)
    )


def _read_checked_patterns(raw: Any, path: KeyPath, problems: Problems) -> tuple[ParameterPattern, ...]:
    patterns = read_patterns(raw, path, problems)
    for pattern in patterns:
        for name in (name for name in pattern.layers if name not in LAYERS):
            fix = suggest(name, LAYERS)
            problems.add(Code.UNKNOWN_LAYER, (*pattern.path, "layer"), f"unknown layer '{name}'", fix, at_value=True)
    return patterns
