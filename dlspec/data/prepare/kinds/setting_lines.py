"""Format settings of `data` as arguments of the command line, for messages: quoted for a shell, as Hydra reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from dlspec.data.prepare.kinds.cells import is_number

DEFAULT_MISSING = ("", "NA", "N/A", "NaN", "null")  # of `data.missing`
# The names of columns that can be keys on the command line. Other ones, such as `größe`, can only be written in YAML.
KEY_ON_COMMAND_LINE = re.compile(r"[A-Za-z0-9_\-/+.$%*@?|\\()\[\]{}:=, \t]+")


def quote_argument(argument: str) -> str:
    """Put an argument in quotes for a shell."""
    return "'" + argument.replace("'", "'\\''") + "'"


def format_columns_line(name: str, kind: str, key: str = "columns") -> str:
    """Format the setting that says which kind a column is.

    Args:
        name: the column's name
        kind: the kind, with its settings in Hydra's syntax
        key: `columns` or `target`

    Returns:
        The argument; for a name that can't be written there, the line of a YAML file.
    """
    if not KEY_ON_COMMAND_LINE.fullmatch(name):
        return f"'{key}: {{{json.dumps(name, ensure_ascii=False)}: {kind}}}' in the YAML file of the data"
    return quote_argument(f"data.{key}={{{escape_key(name)}: {kind}}}")


def format_yaml_line(value: Any, key: str) -> str:
    """Format a setting of `data` as a line of its YAML file, for values that can't be written on the command line."""
    return f"'{key}: {json.dumps(value, ensure_ascii=False)}' in the YAML file of the data"


def can_be_key(cell: str) -> bool:
    """Whether a cell can be a key on the command line, and is read as text: `1.0`, `true` and `null` are not."""
    is_text = cell.lower() not in ("true", "false", "null", "nan", "inf", "-inf") and not is_number(cell)
    return is_text and KEY_ON_COMMAND_LINE.fullmatch(cell) is not None


def escape_key(name: str) -> str:
    """Escape the characters of a key that have a meaning in Hydra's syntax."""
    return re.sub(r"([\\()\[\]{}:=,\t])", r"\\\1", name)


def format_drop_line(*names: str) -> str:
    """Format the setting that leaves columns out."""
    if all(name.isascii() and name.isidentifier() and can_be_key(name) for name in names):
        return f"'data.drop=[{','.join(names)}]'"
    return quote_argument(f"data.drop=[{','.join(map(quote_value, names))}]")


def format_missing_line(cells: Iterable[str]) -> str:
    """Format the setting that lists which cells are missing, in addition to the default ones."""
    listed = ",".join(map(quote_value, [*DEFAULT_MISSING, *sorted(cells)]))
    return quote_argument(f"data.missing=[{listed}]")


def format_character_line(key: str, character: str) -> str:
    """Format a setting of one character: `decimal` or `thousands`."""
    return quote_argument(f"data.{key}={quote_value(character)}")


def quote_value(text: str) -> str:
    """Put a value in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
