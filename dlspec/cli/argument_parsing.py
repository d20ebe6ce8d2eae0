"""Words that begin with a dash: what is no flag is told in a line, without argparse's usage text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dlspec.compat.argparse import is_known_flag
from dlspec.errors import UserError

OVERRIDE_FIX = "to change a setting write KEY=VALUE, without dashes: trainer.epochs=3"


class FlagParser(argparse.ArgumentParser):
    """The parser of a command's words. `--help` was answered before; `parents` have flags that it takes over."""

    def __init__(self, command: str = "", parents: Sequence[argparse.ArgumentParser] = ()) -> None:
        super().__init__(prog=f"dlspec {command}".rstrip(), add_help=False, parents=list(parents))

    def error(self, message: str) -> NoReturn:
        """Raise, where argparse would print its usage and end the process."""
        raise _InvalidArguments(message)


class _InvalidArguments(Exception):
    """What argparse says of words that it can't take."""


def parse_arguments(parser: FlagParser, argv: Sequence[str], fix: str = OVERRIDE_FIX) -> argparse.Namespace:
    """The parsed words; UserError names the one that is no flag, and says what to write."""
    try:
        return parser.parse_intermixed_args(list(argv))
    except _InvalidArguments as error:
        unknown = next((word for word in argv if _is_unknown_flag(word, parser)), None)
        found = str(error) if unknown is None else f"no flag '{unknown}'"
        raise UserError(f"{found}; {fix}") from None


def _is_unknown_flag(word: str, parser: argparse.ArgumentParser) -> bool:
    return word.startswith("-") and not is_known_flag(parser, word.partition("=")[0])
