"""Printing for whatever terminal."""

from __future__ import annotations

import sys


def print_message(text: str) -> None:
    """Prints what the terminal has no sign for as a question mark: a folder's name may be any bytes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
