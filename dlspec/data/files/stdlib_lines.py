"""Comments and code lines of the running Python's standard library: real text that is on every machine."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from dlspec.errors import Code, DataError

SKIPPED_NAMES = frozenset({"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__"})
LONG_STRING = re.compile(r'"""(?s:.*?)"""|' + r"'''(?s:.*?)'''")
GAP = r"[^\w\n]"
LONG_LINE = re.compile(rf"^[ \t]*+({GAP}*+\w++{GAP}++\w++{GAP}++\w.*)$", re.MULTILINE)
"""A line with at least three words, from its first character that is no space."""


def read_comments_and_code() -> tuple[list[str], list[str]]:
    """As many comments (without #) as lines of code, each line once, in the order of files and lines.

    A line has at least three words; docstrings, and code with a comment or a string with # behind it, are left out.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    lines = dict.fromkeys(line for file in _find_sources(folder) for line in _read_long_lines(file))
    texts = (line.lstrip("#!:; \t") for line in lines if line[0] == "#")
    comments = dict.fromkeys(text for text in texts if "#" not in text)
    code = [line for line in lines if "#" not in line and line not in comments]
    fewer = min(len(comments), len(code))
    if fewer == 0:
        raise DataError(
            "",
            f"no Python source files in '{folder}': this Python ships its library without them",
            Code.FILE_UNREADABLE,
        )
    return _pick_evenly(list(comments), fewer), _pick_evenly(code, fewer)


def _find_sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED_NAMES:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _find_sources(path)
        elif path.suffix == ".py":
            yield path


def _read_long_lines(file: Path) -> Iterator[str]:
    """The long lines, without the spaces around them and without long strings."""
    try:
        source = file.read_text("utf-8")
    except (OSError, UnicodeError):
        return
    yield from map(str.rstrip, LONG_LINE.findall(LONG_STRING.sub("", source)))


def _pick_evenly(lines: list[str], count: int) -> list[str]:
    """That many of the lines, at equal distances."""
    return [lines[index * len(lines) // count] for index in range(count)]
