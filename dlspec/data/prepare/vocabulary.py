"""Words and their numbers: what makes tokens of a text, and what a checkpoint keeps to do it again.

A word is a run of letters, digits and underscores; any other character that is no space is a word of its own:
"Don't go!" gives don ' t go !
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import DataError

WORD = re.compile(r"\w+|[^\w\s]")
PADDING, UNKNOWN, RESERVED = 0, 1, 2
MAX_WORDS = 1_000_000
MAX_LENGTH = 100_000
MAX_WORD_CHARACTERS = 1_000

Words = Sequence[str]


def split_words(text: str, lowercase: bool) -> list[str]:
    return WORD.findall(text.lower() if lowercase else text)


@dataclass(frozen=True)
class Vocabulary:
    """The known words, numbered from 2 in their order; 0 is padding, 1 an unknown word. Texts get `length` tokens."""

    words: tuple[str, ...]
    length: int
    lowercase: bool = True

    def __len__(self) -> int:
        """How many ids there are, the two reserved ones included."""
        return len(self.words) + RESERVED

    @classmethod
    def fit(cls, texts: Iterable[Words], length: int, lowercase: bool, max_tokens: int, min_count: int) -> Vocabulary:
        """Of the words that occur at least `min_count` times the most frequent, `max_tokens` ids at most.

        Words that are equally frequent are taken in alphabetical order.
        """
        counts = Counter(chain.from_iterable(texts))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls(tuple(word for _, word in frequent[: max_tokens - RESERVED]), length, lowercase)

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens (N, length), padded with 0, and lengths (N,) of each text, as `encode_words` gives them."""
        return self.encode_words([split_words(text, self.lowercase) for text in texts])

    def encode_words(self, texts: Sequence[Words]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens (N, length) and lengths (N,) of texts in words; what is too long is cut, an empty one is [1]."""
        ids = {word: number for number, word in enumerate(self.words, RESERVED)}
        cut = [text[: self.length] or ("",) for text in texts]
        lengths = np.fromiter(map(len, cut), np.int64, len(cut))
        flat = np.fromiter((ids.get(word, UNKNOWN) for word in chain.from_iterable(cut)), np.int64, int(lengths.sum()))
        tokens = np.full((len(cut), self.length), PADDING, np.int64)
        tokens[np.arange(self.length) < lengths[:, None]] = flat
        return tokens, lengths

    def to_json(self) -> dict[str, Any]:
        return {"kind": "words", "length": self.length, "lowercase": self.lowercase, "words": list(self.words)}

    @classmethod
    def from_json(cls, saved: object) -> Vocabulary:
        """What `to_json` gave; anything else is a `DataError`."""
        if not isinstance(saved, Mapping) or set(saved) != {"kind", "length", "lowercase", "words"}:
            raise _make_saved_error("kind, length, lowercase and words are wanted")
        if saved["kind"] != "words" or type(saved["lowercase"]) is not bool:
            raise _make_saved_error("kind must be 'words', lowercase true or false")
        if type(saved["length"]) is not int or not 0 < saved["length"] <= MAX_LENGTH:
            raise _make_saved_error(f"length must be 1 to {MAX_LENGTH:,}")
        return cls(_check_words(saved["words"]), saved["length"], saved["lowercase"])


def _check_words(words: object) -> tuple[str, ...]:
    if not isinstance(words, list) or len(words) > MAX_WORDS:
        raise _make_saved_error(f"words must be a list of at most {MAX_WORDS:,}")
    if not all(isinstance(word, str) and 0 < len(word) <= MAX_WORD_CHARACTERS for word in words):
        raise _make_saved_error(f"each word must be a text of 1 to {MAX_WORD_CHARACTERS:,} characters")
    if len(set(words)) != len(words):
        raise _make_saved_error("a word is listed twice")
    return tuple(words)


def _make_saved_error(why: str) -> DataError:
    return DataError("", f"the saved vocabulary can't be used: {why}")
