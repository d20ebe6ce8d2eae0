"""Patterns with braces: `{label}/{n}_{stars}.txt` catches parts of a text by name.

A brace catches at least one character and as little as possible: the text up to the next place where what follows the
brace occurs. Matching takes one search for each brace, so that no pattern and no text can make it slow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize

from dlspec.errors import Code, DataError

_BRACE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[^\W\d]\w*(?:[ .-]\w+)*")
MAX_BRACES = 100


@dataclass(frozen=True)
class BracePattern:
    """A pattern as literal texts with braces between them."""

    text: str
    literals: tuple[str, ...]  # one more than there are names
    names: tuple[str, ...]  # '' for a star, which catches nothing
    excluded: str = ""  # a character that no brace catches, '' for none

    def match(self, text: str) -> dict[str, str] | None:
        """Return what the braces catch, or None if the text does not match. The text must be in NFC."""
        first, last = self.literals[0], self.literals[-1]
        if not self.names:
            return {} if text == first else None
        if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
            return None
        found: dict[str, str] = {}
        start, end = len(first), len(text) - len(last)
        for name, literal in zip(self.names[:-1], self.literals[1:-1], strict=True):
            stop = text.find(literal, start + (1 if name else 0), end)
            if stop < 0 or not self._catch(found, name, text[start:stop]):
                return None
            start = stop + len(literal)
        return found if self._catch(found, self.names[-1], text[start:end]) else None

    def match_from_right(self, text: str) -> dict[str, str] | None:
        """Return what at least one brace catches if the last ones are as short as possible; None for no match."""
        first, last = self.literals[0], self.literals[-1]
        if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
            return None
        found: dict[str, str] = {}
        start, end = len(first), len(text) - len(last)
        for name, literal in zip(self.names[:0:-1], self.literals[-2:0:-1], strict=True):
            place = text.rfind(literal, start, end - (1 if name else 0))
            if place < 0 or not self._catch(found, name, text[place + len(literal) : end]):
                return None
            end = place
        return found if not self.names or self._catch(found, self.names[0], text[start:end]) else None

    def _catch(self, found: dict[str, str], name: str, value: str) -> bool:
        if self.excluded and self.excluded in value:
            return False
        if not name:
            return True
        return bool(value) and found.setdefault(name, value) == value


def parse_braces(text: str, key: str, excluded: str = "", has_stars: bool = False) -> BracePattern:
    """Parse a pattern with braces.

    Args:
        text: the pattern
        key: the setting that contains it, for messages
        excluded: a character that no brace catches
        has_stars: whether `*` matches any text

    Returns:
        The pattern.

    Raises:
        DataError: for a brace that is not closed, a name that is not a word, or braces without text between them.
    """
    text = normalize("NFC", text)
    pieces = re.split(r"(\{[^{}]*\}|\*)" if has_stars else r"(\{[^{}]*\})", text)
    literals, names = tuple(pieces[::2]), tuple("" if each == "*" else each[1:-1] for each in pieces[1::2])
    stray = next((literal for literal in literals if "{" in literal or "}" in literal), None)
    if stray is not None:
        raise DataError(key, f"'{text}' has a brace without its partner; write {{NAME}}", Code.WRONG_VALUE)
    for name, piece in zip(names, pieces[1::2], strict=True):
        if piece != "*" and not _NAME.fullmatch(name):
            raise DataError(key, f"'{piece}' in '{text}' must contain a name, such as {{label}}", Code.INVALID_NAME)
    if not all(literals[1:-1]):
        found = f"'{text}' has two braces without text between them, so that it is open where one ends"
        raise DataError(key, f"{found}; write a text between them", Code.AMBIGUOUS)
    if len(names) > MAX_BRACES:
        raise DataError(key, f"'{text}' has more than {MAX_BRACES} braces", Code.TOO_LARGE)
    return BracePattern(text, literals, names, excluded)


def has_braces(text: str) -> bool:
    """Whether a text contains braces with a name."""
    return _BRACE.search(text) is not None
