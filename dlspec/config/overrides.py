"""Overrides: parsed by Hydra's grammar, with their location on the command line and the kinds of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from dlspec.config.conf_files import GROUPS, PART_GROUPS
from dlspec.errors import Code, KeyPath, Problem, SourceLocation, SpecError
from dlspec.formatting import COMMANDS, format_override

# Hydra's settings that name a folder.
_QUOTED_KEY = re.compile(r"""[{,]\s*("[^"]*"|'[^']*')\s*:""")
FOLDER_KEYS = frozenset({"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"})


def command_line_location(text: str, start: int = 0, width: int = 0) -> SourceLocation:
    """Make the location of an argument on the command line.

    Args:
        text: the argument.
        start: index of the first character to mark.
        width: number of characters to mark, by default all.
    """
    return SourceLocation("command line", 0, start + 1, text, width or len(text))


def path_from_key(key: str) -> KeyPath:
    """Split a dotted key into a path: `model.layers.0.Conv2d` becomes `("model", "layers", 0, "Conv2d")`."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def value_location(override: Override) -> SourceLocation:
    """Make the location of an override's value, after the `=`."""
    line = override.input_line or ""
    start = line.find("=") + 1
    return command_line_location(line, start, max(len(line) - start, 1))


def format_choice(group: str, name: str) -> str:
    """Format `group=name` for Hydra; an unquoted `null` chooses nothing."""
    return f"{group}={name}" if name.lower() == "null" else format_override(group, name)


def parse_overrides(lines: Sequence[str]) -> list[Override]:
    """Parse overrides.

    Raises:
        SpecError: lists every argument that is not a valid override, with a fix.
    """
    parsed: list[Override] = []
    problems: list[Problem] = []
    for line in map(str, lines):  # `hydra.overrides`, which a user may set, can contain other values
        override = _parse_override(line)
        if override is None or not override.key_or_group:
            problems.append(_syntax_problem(line))
        else:
            parsed.append(override)
    if problems:
        raise SpecError(problems)
    return parsed


@lru_cache(maxsize=2_000)  # the jobs of a sweep share most overrides, and parsing one takes 0.3 ms
def _parse_override(line: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(line)
    except HydraException:
        return None


def _syntax_problem(line: str) -> Problem:
    key, equals, value = line.partition("=")
    fix = "put quotes around a value with spaces, commas or brackets: 'KEY=\"...\"'"
    if line in COMMANDS:
        fix = f"the command comes first: python -m dlspec {line} KEY=VALUE ..."
    elif not equals or not key:
        fix = "write KEY=VALUE"
    elif "[" in key:
        fix = "write the index after a dot: model.layers.0"
    elif re.search(r"\.-\d", key):
        fix = "write an index of 0 or more"
    elif re.search(r"\w\(", value):
        fix = "write a part with its settings in braces: {Linear: 10}"
    elif _QUOTED_KEY.search(value):
        file = f"conf/{key.split('.')[0]}/NAME.yaml"
        fix = f"keys in braces have no quotes here: leave them out, or write a key with such characters in {file}"
    elif not value.isascii():
        fix = "put quotes around a value with letters other than a to z: 'KEY=\"...\"'"
    return Problem(Code.OVERRIDE_SYNTAX, "", "not a valid override", fix, command_line_location(line))


def keep_folder_name(override: Override) -> Override:
    """Return an override of a folder with the text that was typed: Hydra reads `1e3` as 1000.0, and drops spaces."""
    key, equals, typed = str(override.input_line).partition("=")
    if override.key_or_group not in FOLDER_KEYS or not equals or override.is_sweep_override():
        return override
    value, stripped = override.value(), typed.strip()
    if value is None or isinstance(value, list | dict) or stripped[:1] in ("'", '"') or stripped == "":
        return override
    name = typed.replace(stripped, str(value) if isinstance(value, str) else stripped)
    return override if name == value else parse_overrides([format_override(key, name)])[0]


def refuse_sweeps(overrides: Sequence[Override]) -> None:
    """Refuse multiple values for one key outside of a sweep."""
    problems = [_multiple_values_problem(each) for each in overrides if each.is_sweep_override()]
    if problems:
        raise SpecError(problems)


def _multiple_values_problem(override: Override) -> Problem:
    key = override.key_or_group
    list_advice = "" if key in GROUPS and key != "metrics" else f", or write a list: {key}=[...]"
    fix = f"add -m to sweep over them{list_advice}"
    return Problem(Code.SEVERAL_VALUES, key, "multiple values", fix, command_line_location(override.input_line or ""))


def sets_value_not_choice(override: Override) -> bool:
    """Whether an override sets a group to a value (null, a mapping, a list of mappings), not to a name."""
    if override.is_delete() or override.is_sweep_override():
        return False
    value = override.value()
    return value is None or isinstance(value, dict) or (isinstance(value, list) and not all(map(_is_string, value)))


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def replaces_section(group: str, value: Any) -> bool:
    """Whether a value names a part, model or data set, so that it replaces the earlier choice completely."""
    if not isinstance(value, dict) or group == "metrics" or "type" in value or "layers" in value:
        return True
    only = next(iter(value.values())) if len(value) == 1 else 0
    return group in PART_GROUPS and (only is None or isinstance(only, dict))
