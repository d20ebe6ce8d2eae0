"""Text that several rooms print: amounts, tables, errors in a line, the names of the commands."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

COMMANDS = {
    "train": "train and test (the default: the word may be left out); -m sweeps",
    "resume": "go on with a run from its newest checkpoint, or with a sweep: run=FOLDER|latest, sweep=FOLDER",
    "validate": "check a spec without opening data; says which checks had to wait for them",
    "summary": "the network's layers, parameters, multiply-adds and memory; --depth N folds, --graph FILE.svg draws",
    "status": "the runs below runs/ or FOLDER ...: which go on, how far they are, what resumes the others; --json",
    "report": "compare the runs below runs/ or FOLDER ...: leaderboard.csv and report.html; --output FOLDER",
    "compare": "what differs between runs in spec, environment and result: compare FOLDER FOLDER",
}
"""Each command with what it does, as `--help` says it."""


# ---- amounts ---------------------------------------------------------------------------------------------------------


def format_duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `1:05`, `2:01:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_count(value: float) -> str:
    """Three digits and a letter: `950`, `12.3k`, `1.2M`."""
    if value < 999.5:
        return f"{value:.0f}"
    for letter in "kMGTP":
        value /= 1000
        if value < 999.5:
            return f"{value:.3g}{letter}"
    return f"{value / 1000:.3g}E"


def format_bytes(count: float) -> str:
    """Bytes: `950 bytes`, `12.3 kB`, `1.2 GB`, `602 TB`."""
    short = format_count(count)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} bytes"


def format_number(value: float) -> str:
    """Four decimals, or four digits where those would show nothing or too much."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


# ---- tables ----------------------------------------------------------------------------------------------------------


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Collection[str] = ()) -> str:
    """The columns side by side, those named in `right` flush right; no spaces at a line's end."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in right_aligned else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


# ---- command lines ---------------------------------------------------------------------------------------------------

# What Hydra takes as a text without quotes.
_UNQUOTED = re.compile(r"(?!(null|true|false|inf|nan)\Z)([a-z_/]|\.\.?/)[\w./-]*", re.ASCII | re.IGNORECASE)


def format_override(key: str, value: str) -> str:
    """`key=value` as Hydra reads it: the value in quotes where that is needed."""
    if _UNQUOTED.fullmatch(value):
        return f"{key}={value}"
    escaped = re.sub(r'(\\*)("|\Z)', _escape_quote, value)
    return f'{key}="{escaped}"'


def _escape_quote(found: re.Match[str]) -> str:
    """Hydra reads backslashes as escapes in front of a quote only, the closing one too."""
    quote = '\\"' if found[2] else ""
    return 2 * found[1] + quote


# ---- errors ----------------------------------------------------------------------------------------------------------


def first_line(message: BaseException | str, max_length: int | None = None) -> str:
    """The first line of a text, or of what an error of somebody else's says; cut to `longest` letters."""
    return str(message).strip().partition("\n")[0][:max_length]
