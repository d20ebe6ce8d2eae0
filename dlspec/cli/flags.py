"""Words that begin with a dash: what is no flag is told in a line, without argparse's usage text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dlspec.compat.argparse import is_known_flag
from dlspec.errors import UserError

SETTINGS = "to change a setting write KEY=VALUE, without dashes: trainer.epochs=3"


def parse_flags(parser: argparse.ArgumentParser, words: Sequence[str], fix: str = SETTINGS) -> argparse.Namespace:
    """The parsed words; UserError names the one that is no flag, and says what to write."""

    def refuse(message: str) -> NoReturn:
        unknown = next((word for word in words if _is_unknown(word, parser)), None)
        found = message if unknown is None else f"no flag '{unknown}'"
        raise UserError(f"{found}; {fix}")

    parser.error = refuse  # type: ignore[method-assign]  # argparse would print the usage and end the process
    return parser.parse_intermixed_args(list(words))


def _is_unknown(word: str, parser: argparse.ArgumentParser) -> bool:
    return word.startswith("-") and not is_known_flag(parser, word.partition("=")[0])
