"""The words of the training texts and their token ids. Checkpoints store them to encode new texts.

A word is a run of letters, digits and underscores. Every other character except spaces is a separate word:
"Don't go!" becomes don ' t go !
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
    """Split a text into words and punctuation marks."""
    return WORD.findall(text.lower() if lowercase else text)


@dataclass(frozen=True)
class Vocabulary:
    """The words with an id. Id 0 is padding and id 1 an unknown word."""

    words: tuple[str, ...]  # in the order of their ids, from 2
    length: int  # tokens in each encoded text; longer texts are cut, shorter ones padded
    lowercase: bool = True  # whether texts are converted to lower case first

    def __len__(self) -> int:
        """Number of ids, including the two reserved ones."""
        return len(self.words) + RESERVED

    @classmethod
    def fit(cls, texts: Iterable[Words], length: int, lowercase: bool, max_tokens: int, min_count: int) -> Vocabulary:
        """Make a vocabulary of the most frequent words; equally frequent ones are in alphabetical order.

        Args:
            texts: the training texts, each as a list of words
            length: tokens in each encoded text
            lowercase: whether the words are in lower case
            max_tokens: largest number of ids, including the two reserved ones
            min_count: leave out words that occur fewer times than this

        Returns:
            The vocabulary.
        """
        counts = Counter(chain.from_iterable(texts))
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls(tuple(word for _, word in frequent[: max_tokens - RESERVED]), length, lowercase)

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split texts into words and encode them, see `encode_words`."""
        return self.encode_words([split_words(text, self.lowercase) for text in texts])

    def encode_words(self, texts: Sequence[Words]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Encode texts given as lists of words.

        Longer texts are cut to `length`, shorter ones padded with 0. An empty text becomes one unknown word.

        Returns:
            The tokens (N, length) and the number of real tokens of each text (N,).
        """
        ids = {word: number for number, word in enumerate(self.words, RESERVED)}
        cut = [text[: self.length] or ("",) for text in texts]
        lengths = np.fromiter(map(len, cut), np.int64, len(cut))
        flat = np.fromiter((ids.get(word, UNKNOWN) for word in chain.from_iterable(cut)), np.int64, int(lengths.sum()))
        tokens = np.full((len(cut), self.length), PADDING, np.int64)
        tokens[np.arange(self.length) < lengths[:, None]] = flat
        return tokens, lengths

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values for `Dataset.preprocessing`."""
        return {"kind": "words", "length": self.length, "lowercase": self.lowercase, "words": list(self.words)}

    @classmethod
    def from_json(cls, saved: object) -> Vocabulary:
        """Rebuild a vocabulary from the result of `to_json`; DataError if that is damaged."""
        if not isinstance(saved, Mapping) or set(saved) != {"kind", "length", "lowercase", "words"}:
            raise _make_saved_error("expected kind, length, lowercase and words")
        if saved["kind"] != "words" or type(saved["lowercase"]) is not bool:
            raise _make_saved_error("kind must be 'words', and lowercase true or false")
        if type(saved["length"]) is not int or not 0 < saved["length"] <= MAX_LENGTH:
            raise _make_saved_error(f"length must be 1 to {MAX_LENGTH:,}")
        return cls(_check_words(saved["words"]), saved["length"], saved["lowercase"])


def _check_words(words: object) -> tuple[str, ...]:
    if not isinstance(words, list) or len(words) > MAX_WORDS:
        raise _make_saved_error(f"words must be a list of at most {MAX_WORDS:,} words")
    if not all(isinstance(word, str) and 0 < len(word) <= MAX_WORD_CHARACTERS for word in words):
        raise _make_saved_error(f"each word must be a string of 1 to {MAX_WORD_CHARACTERS:,} characters")
    if len(set(words)) != len(words):
        raise _make_saved_error("a word is listed twice")
    return tuple(words)


def _make_saved_error(why: str) -> DataError:
    return DataError("", f"the saved vocabulary can't be used: {why}")
