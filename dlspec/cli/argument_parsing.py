"""Parsing of command-line arguments; an unknown flag gives a one-line error, without argparse's usage text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dlspec.compat.argparse import is_known_flag
from dlspec.errors import UserError

OVERRIDE_FIX = "to change a setting write KEY=VALUE, without dashes: trainer.epochs=3"


class FlagParser(argparse.ArgumentParser):
    """Parser of a command's arguments, with the flags of its `parents`. `--help` is handled before parsing."""

    def __init__(self, command: str = "", parents: Sequence[argparse.ArgumentParser] = ()) -> None:
        super().__init__(prog=f"dlspec {command}".rstrip(), add_help=False, parents=list(parents))

    def error(self, message: str) -> NoReturn:
        """Raise an exception, where argparse would print its usage and end the process."""
        raise _InvalidArguments(message)


class _InvalidArguments(Exception):
    """Raised with argparse's message for arguments that can't be parsed."""


def parse_arguments(parser: FlagParser, argv: Sequence[str], fix: str = OVERRIDE_FIX) -> argparse.Namespace:
    """Parse the arguments of a command.

    Args:
        parser: the command's parser.
        argv: the arguments after the command.
        fix: what to write instead, printed with an error.

    Raises:
        UserError: names the unknown flag, or has argparse's message.
    """
    try:
        return parser.parse_intermixed_args(list(argv))
    except _InvalidArguments as error:
        unknown = next((word for word in argv if _is_unknown_flag(word, parser)), None)
        found = str(error) if unknown is None else f"unknown flag '{unknown}'"
        raise UserError(f"{found}; {fix}") from None


def _is_unknown_flag(word: str, parser: argparse.ArgumentParser) -> bool:
    return word.startswith("-") and not is_known_flag(parser, word.partition("=")[0])
