"""What dlspec says when a user's input is wrong.

A `Problem` is one mistake: where it stands, what was found, and how to mend it. A `SpecError` carries all of them at
once; the command line prints it and exits with code 2, without a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any


class UserError(Exception):
    """A mistake of the user's: its text is ready to be read, and the exit code is 2."""


class DataError(UserError):
    """A data set that can't be opened as asked; `key` is the setting of `data` that it is about ('' for all of it)."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Place:
    """Where something was written: a file's line and column (from 1), or a command line's word."""

    source: str
    line: int = 0
    column: int = 0
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def excerpt(self) -> list[str]:
        """The line as it was written, and below it the caret."""
        if not self.text:
            return []
        start = max(self.column - 1, 0)
        shift, text = _window(self.text.rstrip(), start)
        width = max(1, min(self.width, len(text) - (start - shift)))
        return [f"    {text}", "    " + " " * (start - shift) + "^" * width]


def _window(text: str, start: int, width: int = 110) -> tuple[int, str]:
    """The part of a long line around `start`, and how far it was moved."""
    if len(text) <= width:
        return 0, text
    shift = max(0, start - width // 2)
    return shift, text[shift : shift + width]


@dataclass(frozen=True)
class Problem:
    """One mistake. `path` is the key's place in the config, `found` what is wrong, `fix` what to write instead.

    `note` is a line below all that, such as the shapes that lead to the mistake.
    """

    path: str
    found: str
    fix: str = ""
    place: Place | None = None
    note: str = ""

    def lines(self) -> list[str]:
        """As a terminal shows them: none is very long, and what would steer the terminal is a blank sign."""
        parts = [str(self.place) if self.place else "", self.path, self.found, self.fix]
        head = "   ".join(cut(part) for part in parts if part)
        note = [f"    {cut(self.note)}"] if self.note else []
        return [printable(each) for each in (head, *(self.place.excerpt() if self.place else []), *note)]


_STEERING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with a sign in the place of each character that a terminal would obey."""
    return _STEERING.sub("\ufffd", text)


def cut(text: str, most: int = 600) -> str:
    """The text, its middle left out where it is very long."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


MOST_SHOWN = 50
"""So many mistakes are shown."""


class SpecError(UserError):
    """Every mistake that was found in one look, each with its place."""

    def __init__(self, problems: Sequence[Problem], done: str = "nothing was run") -> None:
        self.problems = tuple(problems)
        self.done = done
        super().__init__(self.text())

    def text(self) -> str:
        count = len(self.problems)
        lines = [line for problem in self.problems[:MOST_SHOWN] for line in problem.lines()]
        if count > MOST_SHOWN:
            lines.append(f"... and {count - MOST_SHOWN:,} more")
        return "\n".join([*lines, f"{count} problem{'s' if count != 1 else ''}; {self.done}."])


def near(word: str, choices: Iterable[str]) -> str:
    """The choice that `word` was probably meant to be, or ''. Case is ignored: 'Relu' is near 'ReLU', not 'RNNCell'.

    A word that exactly one choice begins with stands for that one: 'F1' is near 'F1Score'; and one with two letters in
    the wrong order for the right one, however short: 'mpl' is near 'mlp'. 'nn.GRU' is 'GRU'.
    """
    return _near(word, tuple(choices))


@lru_cache(maxsize=2_000)  # one mistake may stand in a thousand places
def _near(word: str, choices: tuple[str, ...]) -> str:
    lowered = {choice.lower(): choice for choice in choices}
    found = [each for each in (*_swapped(word.lower()), word.lower().rpartition(".")[2]) if each in lowered]
    found = found or get_close_matches(word.lower(), lowered, n=1, cutoff=0.7)
    if not found and len(word) > 1:
        longer = [choice for choice in lowered if choice.startswith(word.lower())]
        found = longer if len(longer) == 1 else []
    return lowered[found[0]] if found else ""


def _swapped(word: str) -> list[str]:
    """The word with each two neighbours exchanged."""
    return [word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(min(len(word), 100) - 1)]


def suggest(word: str, choices: Iterable[str], most: int = 12) -> str:
    """'did you mean ...?', or what there is where nothing is near."""
    names = sorted(choices)
    guess = near(word, names)
    if guess:
        return f"did you mean '{guess}'?"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"there is: {', '.join(names[:most])}{more}" if names else ""


def shown(value: Any, most: int = 60) -> str:
    """A value as YAML would write it, cut off where it is long; text in quotes."""
    text = value if isinstance(value, str) else _flow(value)
    text = re.sub(r"\s+", " ", text) if "\n" in text else text
    text = text if len(text) <= most else text[: most - 3] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def _flow(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {_flow(each)}" for key, each in islice(value.items(), 20))
        return f"{{{inside}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(each) for each in value[:20])}]"
    return str(value)
