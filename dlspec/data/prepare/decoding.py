"""From tokens back to text, by what a data set keeps of its preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.vocabulary import RESERVED, Vocabulary

CHARACTERS = ("characters", "bytes")
"""The kinds of tokens of which each is a character or a part of one."""


@dataclass(frozen=True)
class TextDecoder:
    """`decode` makes a text of tokens; ids below `reserved` (padding, an unknown word) stand for none."""

    decode: Callable[[Sequence[int]], str]
    num_reserved: int = 0


def find_kind(saved: object) -> str:
    """The kind that a field's saved preprocessing names; '' where there is none."""
    return str(saved.get("kind", "")) if isinstance(saved, Mapping) else ""


def make_decoder(saved: object) -> TextDecoder | None:
    """The decoder of a field's saved preprocessing; None where that tells nothing of tokens."""
    kind = find_kind(saved)
    if kind == "words":
        words = Vocabulary.from_json(saved).words
        named = dict(enumerate(words, RESERVED))
        return TextDecoder(lambda tokens: " ".join(named.get(each, "…") for each in tokens), RESERVED)
    if kind in CHARACTERS:
        return TextDecoder(Alphabet.from_json(saved).decode)
    return None
