"""Characters and their numbers: what makes tokens of a running text, and what a checkpoint keeps to write one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import DataError, shown

Tokens = NDArray[np.int64]
BYTES = 256
MOST_CHARACTERS = 0x110000
"""So many code points has Unicode."""
MOST_LENGTH = 10**6


@dataclass(frozen=True)
class Alphabet:
    """The known characters, numbered from 0 in their order; '' are the 256 bytes of UTF-8. Windows have `length`.

    There is no padding and no unknown character, so no id is kept for them.
    """

    characters: str
    length: int

    def __len__(self) -> int:
        return len(self.characters) or BYTES

    @property
    def names(self) -> tuple[str, ...]:
        """What each id stands for."""
        return tuple(self.characters) or tuple(str(number) for number in range(BYTES))

    @classmethod
    def fit(cls, text: str | bytes, length: int) -> Alphabet:
        """Of every character that the text has, in Unicode's order; of bytes all."""
        if isinstance(text, bytes):
            return cls("", length)
        found = np.flatnonzero(np.bincount(_code_points(text)))
        return cls("".join(map(chr, found.tolist())), length)

    def encode(self, text: str | bytes) -> Tokens:
        """The ids (N,) of a text; a character that is not known is a `DataError`."""
        if isinstance(text, bytes):
            return np.frombuffer(text, np.uint8).astype(np.int64)
        if not self.characters:
            return self.encode(text.encode())
        points, known = _code_points(text), _code_points(self.characters)
        ids = np.full(MOST_CHARACTERS, -1, np.int64)
        ids[known] = np.arange(len(known))
        tokens: Tokens = ids[points]
        if len(tokens) and tokens.min() < 0:
            unknown = text[int(tokens.argmin())]
            raise DataError("", f"{shown(unknown)} is not among the {len(self)} characters that were learned")
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become the replacement character."""
        if not self.characters:
            return bytes(tokens).decode("utf-8", errors="replace")
        return "".join(self.characters[token] for token in tokens)

    def to_json(self) -> dict[str, Any]:
        if not self.characters:
            return {"kind": "bytes", "length": self.length}
        return {"kind": "characters", "length": self.length, "characters": self.characters}

    @classmethod
    def from_json(cls, saved: object) -> Alphabet:
        """What `to_json` gave; anything else is a `DataError`."""
        kind = saved.get("kind") if isinstance(saved, Mapping) else None
        wanted = {"characters": {"kind", "length", "characters"}, "bytes": {"kind", "length"}}
        if not isinstance(saved, Mapping) or kind not in wanted or set(saved) != wanted[kind]:
            raise _unusable("characters with their length, or bytes with theirs, are wanted")
        if type(saved["length"]) is not int or not 0 < saved["length"] <= MOST_LENGTH:
            raise _unusable(f"length must be 1 to {MOST_LENGTH:,}")
        characters = saved.get("characters", "")
        if kind == "characters" and not (isinstance(characters, str) and 1 < len(characters) <= MOST_CHARACTERS):
            raise _unusable("characters must be a text of at least two")
        if re.search("[\ud800-\udfff]", characters):
            raise _unusable("half a character stands alone")
        if len(set(characters)) != len(characters):
            raise _unusable("a character stands twice")
        return cls(characters, saved["length"])


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def _unusable(why: str) -> DataError:
    return DataError("", f"the saved characters can't be used: {why}")
