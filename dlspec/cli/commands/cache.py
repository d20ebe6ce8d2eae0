"""`cache`: show the cache of decoded images, and `cache clear` removes it. Without torch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.data.images.cache_files import (
    CacheFile,
    find_image_cache_folder,
    list_cache_files,
    remove_cache_files,
)
from dlspec.errors import replace_control_characters
from dlspec.formatting import format_age, format_bytes, format_table
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.limits import get_limit

HEADER = ("data", "images", "size of one", "on the disk", "last use", "file")
RIGHT_ALIGNED = ("images", "size of one", "on the disk", "last use")
FIX = "write python -m dlspec cache [clear] [--json]"


def main(argv: Sequence[str]) -> int:
    """List the files with decoded images, the most recently used first; or remove them."""
    parser = FlagParser("cache")
    parser.add_argument("action", nargs="?", choices=("clear",), metavar="clear")
    parser.add_argument("--json", action="store_true")
    arguments = parse_arguments(parser, argv, FIX)
    folder = find_image_cache_folder()
    files = remove_cache_files(folder) if arguments.action else list_cache_files(folder)
    if arguments.json:
        print_message(json.dumps([_make_record(each) for each in files], indent=2))
    elif arguments.action:
        print_message(f"removed {_count_files(files)} from '{folder}'" if files else f"no decoded images in '{folder}'")
    else:
        print_message(format_cache(files, str(folder)))
    return EXIT_OK


def format_cache(files: Sequence[CacheFile], folder: str) -> str:
    """Format a table of files, with their sum below.

    Args:
        files: the files, in this order
        folder: where they are
    """
    if not files:
        return f"no decoded images in '{folder}'"
    limit = format_bytes(get_limit("cache_bytes"))
    total = f"{_count_files(files)} of at most {limit} in '{folder}'; python -m dlspec cache clear removes them"
    return f"{format_table(HEADER, [_format_cells(each) for each in files], RIGHT_ALIGNED)}\n{total}"


def _count_files(files: Sequence[CacheFile]) -> str:
    size = format_bytes(sum(each.used_bytes for each in files))
    return f"{len(files):,} file{'s' if len(files) != 1 else ''}, {size}"


def _format_cells(file: CacheFile) -> list[str]:
    layout = file.layout
    described = ["(not complete)", "", ""]
    if layout is not None:
        shape = " x ".join(map(str, layout.shape))
        described = [replace_control_characters(layout.data), f"{layout.rows:,}", f"{shape} {layout.dtype}"]
    age = format_age(max(time.time() - file.last_use, 0))
    return [*described, format_bytes(file.used_bytes), f"{age} ago", replace_control_characters(file.path.name)]


def _make_record(file: CacheFile) -> dict[str, Any]:
    """Make a file's record for --json."""
    layout = file.layout
    described: dict[str, Any] = {"data": None, "images": None, "shape": None, "dtype": None}
    if layout is not None:
        described = {"data": layout.data, "images": layout.rows, "shape": layout.shape, "dtype": layout.dtype}
    return {"file": str(file.path), **described, "bytes": file.used_bytes, "last_use": file.last_use}
