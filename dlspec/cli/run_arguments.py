"""Arguments of commands that use a finished run: the run, the command's own words, and settings of new data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.config.overrides import parse_overrides, refuse_sweeps, value_location
from dlspec.config.saved_run import RUN_FIX
from dlspec.errors import Code, Problem, SpecError, UserError, suggest
from dlspec.formatting import format_override
from dlspec.jobs.run_resuming import find_run_folder

RUN, IMPORTS, DATA_PREFIX = "run", "imports", "data."


@dataclass(frozen=True)
class RunArguments:
    """What the arguments of such a command say."""

    folder: Path
    imports: tuple[str, ...] = ()  # modules that the run's spec may import
    words: Mapping[str, Any] = field(default_factory=dict)  # the command's own, such as `split`
    data: Mapping[str, Any] = field(default_factory=dict)  # settings of `data`, nested


def parse_run_arguments(command: str, argv: Sequence[str], allowed: Collection[str]) -> RunArguments:
    """Parse the arguments of a command that uses a finished run.

    Args:
        command: its name
        argv: the arguments after it; a word without `=` is the run's folder
        allowed: the command's own words

    Raises:
        SpecError: for an argument that is not a valid override, or an unknown word.
        UserError: if no run is named, or there is none.
    """
    parser = FlagParser(command)
    parser.add_argument("words", nargs="*", metavar="WORD=VALUE")
    words = parse_arguments(parser, argv, f"write WORD=VALUE, without dashes: {', '.join(allowed)}").words
    overrides = parse_overrides([each if "=" in each else format_override(RUN, each) for each in words])
    refuse_sweeps(overrides)
    folder, imports, own, data = None, (), dict[str, Any](), dict[str, Any]()
    for override in overrides:
        key, value = override.key_or_group.lstrip("+"), override.value()
        if key == RUN:
            folder = find_run_folder(str(value or ""), value_location(override))
        elif key == IMPORTS:
            imports = tuple(map(str, value if isinstance(value, list) else [value]))
        elif key in allowed:
            own[key] = value
        elif key.startswith(DATA_PREFIX):
            _set_nested(data, key.removeprefix(DATA_PREFIX).split("."), value)
        else:
            fix = suggest(key, [RUN, *allowed]) or f"{command} takes run, {', '.join(allowed)} and data.SETTING"
            raise SpecError(
                [Problem(Code.UNKNOWN_SETTING, key, f"not a word of {command}", fix, value_location(override))]
            )
    if folder is None:
        raise UserError(f"no run given; {RUN_FIX}")
    return RunArguments(folder, imports, own, data)


def _set_nested(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = settings.setdefault(key, {})
        settings = inner if isinstance(inner, dict) else settings
    settings[path[-1]] = value
