"""Convert tokens back to text, with the preprocessing that a data set or checkpoint stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.kinds.kind import fitted_from_json
from dlspec.data.prepare.vocabulary import RESERVED

CHARACTERS = ("characters", "bytes")  # kinds of preprocessing whose tokens are characters or bytes, not words


TEXT_KINDS = ("words", "text", "text_bytes", "subwords", "text_target")


@dataclass(frozen=True)
class TextDecoder:
    """Converts tokens to text."""

    decode: Callable[[Sequence[int]], str]
    num_reserved: int = 0  # ids below this are not words: padding and the unknown word


def get_preprocessing_kind(saved: object) -> str:
    """Return the kind of a field's saved preprocessing, such as `words`; "" if it has none."""
    return str(saved.get("kind", "")) if isinstance(saved, Mapping) else ""


def make_decoder(saved: object) -> TextDecoder | None:
    """Make a decoder from a field's saved preprocessing; None if the field does not contain text."""
    kind = get_preprocessing_kind(saved)
    if kind in CHARACTERS:
        return TextDecoder(Alphabet.from_json(saved).decode)
    if kind not in TEXT_KINDS:
        return None
    return TextDecoder(fitted_from_json(saved).decode, RESERVED)
