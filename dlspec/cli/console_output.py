"""Printing to terminals with any encoding."""

from __future__ import annotations

import sys


def print_message(text: str) -> None:
    """Print a text, with '?' for characters that the terminal can't encode: a folder's name may be any bytes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
