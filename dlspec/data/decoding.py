"""From tokens back to text, by what a data set keeps of its preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlspec.data.vocabulary import RESERVED, Vocabulary


@dataclass(frozen=True)
class Decoder:
    """`decode` makes a text of tokens; ids below `reserved` (padding, an unknown word) stand for none."""

    decode: Callable[[Sequence[int]], str]
    reserved: int = 0


def decoder_of(saved: object) -> Decoder | None:
    """The decoder of a field's saved preprocessing; None where that tells nothing of tokens."""
    kind = saved.get("kind") if isinstance(saved, Mapping) else None
    if kind == "words":
        words = Vocabulary.from_json(saved).words
        named = dict(enumerate(words, RESERVED))
        return Decoder(lambda tokens: " ".join(named.get(each, "…") for each in tokens), RESERVED)
    return None
