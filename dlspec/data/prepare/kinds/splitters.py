"""Split cells into the tokens of a vocabulary: words, characters, or tokens that the file already lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import list_cells, list_lists
from dlspec.data.prepare.vocabulary import Vocabulary, split_words

Splitter = Literal["words", "characters", "given"]
SPLITTERS: tuple[Splitter, ...] = get_args(Splitter)
Texts = list[list[str] | None]  # None is a missing cell


def split_cells(column: NDArray[Any], splitter: Splitter, lowercase: bool) -> Texts:
    """Split the cells of a column.

    Args:
        column: the cells (N,): texts, or lists of tokens
        splitter: how to split a text; `given` splits it only at spaces, and leaves lists as they are
        lowercase: whether to convert to lower case first

    Returns:
        The tokens of each cell.
    """
    if splitter == "given":
        return [None if cell is None else [_name_token(token) for token in cell] for cell in list_lists(column)]
    return [None if cell is None else _split_text(cell, splitter, lowercase) for cell in list_cells(column)]


def _name_token(token: object) -> str:
    return str(int(token)) if isinstance(token, float) and token.is_integer() else str(token)


def _split_text(text: str, splitter: Splitter, lowercase: bool) -> list[str]:
    if splitter == "words":
        return split_words(text, lowercase)
    return list(text.lower() if lowercase else text)


def find_length(texts: Sequence[list[Any] | None], max_length: int) -> int:
    """Return the length of the longest text, from 1 to `max_length`."""
    return max(1, min(max_length, max((len(text) for text in texts if text is not None), default=1)))


def fit_vocabulary(texts: Texts, settings: tuple[int, int, int], lowercase: bool) -> Vocabulary:
    """Make a vocabulary of the training texts.

    Args:
        texts: the tokens of each training text
        settings: largest length, largest number of ids, and how often a token must occur
        lowercase: whether the texts were converted to lower case

    Returns:
        The vocabulary.
    """
    max_length, vocab_size, min_count = settings
    known = [text for text in texts if text is not None]
    return Vocabulary.fit(known, find_length(texts, max_length), lowercase, vocab_size, min_count)


def count_cut(texts: Sequence[list[Any] | None], length: int) -> int:
    """Count the texts that are longer than `length`."""
    return sum(text is not None and len(text) > length for text in texts)


def note_texts(texts: Sequence[list[Any] | None], length: int) -> dict[str, int]:
    """Count the missing and the cut texts; zero is left out."""
    counts = {"missing": sum(text is None for text in texts), "cut": count_cut(texts, length)}
    return {key: count for key, count in counts.items() if count}


def pad_ids(ids: Sequence[Sequence[int]], length: int, padding: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut or pad lists of ids, none of them empty, to one length.

    Args:
        ids: the ids of each row
        length: number of steps
        padding: id of padding

    Returns:
        The ids (N, length), and the number of real ones in each row (N,).
    """
    lengths = np.array([min(len(each), length) for each in ids], np.int64)
    padded = np.full((len(ids), length), padding, np.int64)
    for row, each in enumerate(ids):
        padded[row, : lengths[row]] = each[:length]
    return padded, lengths
