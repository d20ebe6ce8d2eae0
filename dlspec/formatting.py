"""Formatting that multiple rooms use: amounts, tables, errors on one line, and the list of commands."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dlspec.errors import CONTROL_CHARACTERS

# Each command and its line in `--help`.
COMMANDS = {
    "train": "train and test a model (the default command: 'train' may be omitted); -m starts a sweep",
    "resume": "resume a run from its newest checkpoint, or a sweep: run=FOLDER|latest, sweep=FOLDER",
    "validate": "check a spec without opening data; lists the checks that need the data",
    "summary": "show layers, parameters, multiply-adds and memory; --depth N groups layers, --graph FILE.svg draws",
    "inspect": "read data without training: columns, kinds and why, splits, what to check; --json, --write FILE.yaml,"
    " --picture FILE.png draws an augmented batch",
    "predict": "predict new rows: run=FOLDER|latest input=FILE output=FILE; columns=[...] probabilities=true",
    "generate": "generate text with a finished run: run=FOLDER|latest prompt='The first'; temperature=0.8 top_k=40",
    "export": "write a finished run as ONNX, torch.export or safetensors: run=FOLDER|latest output=model.onnx",
    "status": "list the runs below runs/ or FOLDER ...: state, progress, and the command that resumes each; --json",
    "report": "compare the runs below runs/ or FOLDER ... in leaderboard.csv and report.html; --output FOLDER;"
    " or write the page of one run, run.html: run=FOLDER",
    "evaluate": "metrics of a finished run with intervals: run=FOLDER|latest; split=test, data.path=NEW.csv, by=COLUMN",
    "cache": "show the cache of decoded images: data, size, last use; cache clear removes it; --json",
    "compare": "show how runs differ in spec, environment and results: compare FOLDER FOLDER",
}


# ---- amounts ---------------------------------------------------------------------------------------------------------


def format_duration(seconds: float) -> str:
    """Format a duration in seconds: `0.4 s`, `12 s`, `1:05`, `2:01:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_age(seconds: float) -> str:
    """Format an age in one rounded unit: `12 s`, `5 min`, `7 h`, `3 days`."""
    for name, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86_400:.0f} days"


def format_count(value: float) -> str:
    """Format a count with three digits and a unit prefix: `950`, `12.3k`, `1.2M`."""
    if value < 999.5:
        return f"{value:.0f}"
    for letter in "kMGTP":
        value /= 1000
        if value < 999.5:
            return f"{value:.3g}{letter}"
    return f"{value / 1000:.3g}E"


def format_bytes(count: float) -> str:
    """Format a number of bytes: `950 bytes`, `12.3 kB`, `1.2 GB`, `602 TB`."""
    short = format_count(count)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} bytes"


def format_number(value: float) -> str:
    """Format a number with four decimals, or with four significant digits if it is very small or large."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else format_digits(value)


def format_digits(value: float, digits: int = 4) -> str:
    """Format a number with some significant digits; the whole part of numbers below 1e9 is not rounded: `34063`."""
    return f"{value:.0f}" if 10**digits - 0.5 <= abs(value) < 1e9 else f"{value:.{digits}g}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Collection[str] = ()) -> str:
    """Format a table as text, without trailing spaces.

    Args:
        header: the name of each column.
        rows: the cells of each row, one for each column.
        right_aligned: the names of the columns to align at the right.

    Returns:
        The header and the rows, one line each.
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in right_aligned else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


# The start of cells that a spreadsheet would evaluate, which could even send data away. Some spreadsheets also read
# full-width forms of these characters (`NFKC` makes them the usual ones), and skip invisible characters before them.
_SPREADSHEET_FORMULA = re.compile(r"[\s\ufeff\u200b-\u200d\u2060]*[=+\-@|%\u2212]")


def quote_spreadsheet_formula(text: str) -> str:
    """Return the text of a cell, with a quote before it if a spreadsheet would evaluate it."""
    return f"'{text}" if _SPREADSHEET_FORMULA.match(unicodedata.normalize("NFKC", text[:100])) else text


# ---- command lines ---------------------------------------------------------------------------------------------------

# Strings that Hydra reads without quotes.
_UNQUOTED = re.compile(r"(?!(null|true|false|inf|nan)\Z)([a-z_/]|\.\.?/)[\w./-]*", re.ASCII | re.IGNORECASE)


def format_override(key: str, value: str) -> str:
    """Format an override `key=value` for Hydra, with the value in quotes if it needs them."""
    if _UNQUOTED.fullmatch(value):
        return f"{key}={value}"
    escaped = re.sub(r'(\\*)("|\Z)', _escape_quote, value)
    return f'{key}="{escaped}"'


def format_argument(key: str, value: Any) -> str:
    """Format a setting as an argument of the command line: its value as Hydra reads it, quoted for a shell.

    Args:
        key: the path of the setting, such as `data.delimiter`.
        value: a string, number, boolean, null, or a list or mapping of these.
    """
    return quote_for_shell(f"{key}={format_hydra_value(value)}")


def format_hydra_value(value: Any) -> str:
    """Format a string, number, boolean, null, list or mapping as Hydra reads it in an override."""
    if isinstance(value, Mapping):
        inside = (f"{_escape_key(str(key))}: {format_hydra_value(each)}" for key, each in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(format_hydra_value, value))}]"
    if isinstance(value, str):
        return format_override("", value)[1:]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _escape_key(key: str) -> str:
    """Escape the characters of a key that have a meaning in Hydra's syntax."""
    return re.sub(r"([\\()\[\]{}:=,\t])", r"\\\1", key)


def _escape_quote(found: re.Match[str]) -> str:
    """Double the backslashes before a quote, also the closing one: only there Hydra reads them as escapes."""
    quote = '\\"' if found[2] else ""
    return 2 * found[1] + quote


# Control characters, and bytes of a file's name that are not UTF-8.
_NOT_FOR_SHELLS = re.compile(rf"{CONTROL_CHARACTERS.pattern}|[\ud800-\udfff]")


def quote_for_shell(word: str) -> str:
    """Quote a word for a shell; control characters are written as escapes, which bash and zsh read."""
    if _NOT_FOR_SHELLS.search(word) is None:
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_NOT_FOR_SHELLS.sub(_escape_for_shell, text)}'"


def _escape_for_shell(found: re.Match[str]) -> str:
    """Write a character as its bytes: `\\x1b`; bytes of a file name that are not UTF-8 stay the same."""
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode(errors="surrogateescape"))


# ---- errors ----------------------------------------------------------------------------------------------------------


def first_line(message: BaseException | str, max_length: int | None = None) -> str:
    """Return the first line of a text or of an exception's message, cut to `max_length` characters."""
    return str(message).strip().partition("\n")[0][:max_length]
