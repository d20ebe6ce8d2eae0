"""Comments and code lines of Python's standard library: real text that every machine has."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from dlspec.errors import Code, DataError

SKIPPED_NAMES = frozenset({"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__"})
LONG_STRING = re.compile(r'"""(?s:.*?)"""|' + r"'''(?s:.*?)'''")
GAP = r"[^\w\n]"
# A line with at least three words; the group starts at its first character that is not a space.
LONG_LINE = re.compile(rf"^[ \t]*+({GAP}*+\w++{GAP}++\w++{GAP}++\w.*)$", re.MULTILINE)


def read_comments_and_code() -> tuple[list[str], list[str]]:
    """Read equally many comments (without #) and lines of code, each line once, in the order of files and lines.

    Each line has at least three words. Docstrings and lines of code that contain a # are omitted.
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
            f"found no Python source files in '{folder}': this Python comes without the source of its library",
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
    """Yield the lines of at least three words, without surrounding spaces and without triple-quoted strings."""
    try:
        source = file.read_text("utf-8")
    except (OSError, UnicodeError):
        return
    yield from map(str.rstrip, LONG_LINE.findall(LONG_STRING.sub("", source)))


def _pick_evenly(lines: list[str], count: int) -> list[str]:
    """Pick `count` of the lines at equal distances."""
    return [lines[index * len(lines) // count] for index in range(count)]
