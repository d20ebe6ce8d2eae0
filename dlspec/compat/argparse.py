"""Private parts of argparse's parsers (Python 3.11 and later)."""

from __future__ import annotations

from argparse import ArgumentParser


def is_known_flag(parser: ArgumentParser, flag: str) -> bool:
    """Whether the parser has a flag of this name; argparse has no public way to ask for it."""
    return flag in parser._option_string_actions
