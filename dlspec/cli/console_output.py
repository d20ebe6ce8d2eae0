"""Printing to terminals with any encoding."""

from __future__ import annotations

import sys

from dlspec.errors import replace_in_lines


def print_message(text: str) -> None:
    """Print a text without control characters, with '?' for what the terminal can't encode.

    Names of folders and texts from files may contain any bytes, and a terminal would act on some of them.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(replace_in_lines(text).encode(encoding, "replace").decode(encoding), flush=True)
