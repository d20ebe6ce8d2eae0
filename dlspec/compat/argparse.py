"""What dlspec reads of a parser's private parts (Python 3.11 and later)."""

from __future__ import annotations

from argparse import ArgumentParser


def is_known_flag(parser: ArgumentParser, flag: str) -> bool:
    """Whether the parser has a flag of that name; argparse tells it in no public way. Tested in test_command_line."""
    return flag in parser._option_string_actions
