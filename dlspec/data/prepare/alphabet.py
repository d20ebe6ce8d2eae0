"""The characters of a text and their token ids. Checkpoints store them to encode and decode text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import DataError, format_value

Tokens = NDArray[np.int64]
BYTES = 256
NUM_CODE_POINTS = 0x110000  # of Unicode
MAX_LENGTH = 10**6


@dataclass(frozen=True)
class Alphabet:
    """The characters of the training text, or all 256 bytes. No id is reserved for padding or unknown characters."""

    characters: str  # in the order of their ids, from 0; "" for the 256 bytes of UTF-8
    length: int  # tokens in a sample

    def __len__(self) -> int:
        return len(self.characters) or BYTES

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each id: its character, or the number of its byte."""
        return tuple(self.characters) or tuple(str(number) for number in range(BYTES))

    @classmethod
    def fit(cls, text: str | bytes, length: int) -> Alphabet:
        """Make the alphabet of a text: its characters in Unicode order; for bytes, all 256."""
        if isinstance(text, bytes):
            return cls("", length)
        found = np.flatnonzero(np.bincount(_to_code_points(text)))
        return cls("".join(map(chr, found.tolist())), length)

    def encode(self, text: str | bytes) -> Tokens:
        """Convert a text to ids (N,); DataError if a character is not in the alphabet."""
        if isinstance(text, bytes):
            return np.frombuffer(text, np.uint8).astype(np.int64)
        if not self.characters:
            return self.encode(text.encode())
        points, known = _to_code_points(text), _to_code_points(self.characters)
        ids = np.full(NUM_CODE_POINTS, -1, np.int64)
        ids[known] = np.arange(len(known))
        tokens: Tokens = ids[points]
        if len(tokens) and tokens.min() < 0:
            unknown = text[int(tokens.argmin())]
            raise DataError(
                "", f"{format_value(unknown)} is not one of the {len(self)} characters of the training text"
            )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Convert ids to text; bytes that are not valid UTF-8 become the replacement character."""
        if not self.characters:
            return bytes(tokens).decode("utf-8", errors="replace")
        return "".join(self.characters[token] for token in tokens)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values for `Dataset.preprocessing`."""
        if not self.characters:
            return {"kind": "bytes", "length": self.length}
        return {"kind": "characters", "length": self.length, "characters": self.characters}

    @classmethod
    def from_json(cls, saved: object) -> Alphabet:
        """Rebuild an alphabet from the result of `to_json`; DataError if that is damaged."""
        kind = saved.get("kind") if isinstance(saved, Mapping) else None
        expected_keys = {"characters": {"kind", "length", "characters"}, "bytes": {"kind", "length"}}
        if not isinstance(saved, Mapping) or kind not in expected_keys or set(saved) != expected_keys[kind]:
            raise _make_saved_error("expected kind, length and characters, or kind and length for bytes")
        if type(saved["length"]) is not int or not 0 < saved["length"] <= MAX_LENGTH:
            raise _make_saved_error(f"length must be 1 to {MAX_LENGTH:,}")
        characters = saved.get("characters", "")
        if kind == "characters" and not (isinstance(characters, str) and 1 < len(characters) <= NUM_CODE_POINTS):
            raise _make_saved_error("characters must be a string of at least two characters")
        if re.search("[\ud800-\udfff]", characters):
            raise _make_saved_error("characters contain a lone surrogate")
        if len(set(characters)) != len(characters):
            raise _make_saved_error("a character is listed twice")
        return cls(characters, saved["length"])


def _to_code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def _make_saved_error(why: str) -> DataError:
    return DataError("", f"the saved characters can't be used: {why}")
