"""The target `text`: a text to be written, one token a step, with an end token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.class_table import MissingTarget, encode_missing_targets, read_missing_target
from dlspec.data.prepare.kinds.kind import (
    TARGET_KINDS,
    ColumnKind,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.splitters import Splitter, fit_vocabulary, note_texts, split_cells
from dlspec.data.prepare.kinds.text import DEFAULT_MAX_STEPS, MAX_STEPS, MAX_TOKENS, FittedText
from dlspec.data.prepare.vocabulary import MAX_LENGTH, MAX_WORDS, PADDING, RESERVED
from dlspec.layouts import Layout

END = RESERVED  # id of the end token: after padding and the unknown token, before the words


@register_kind("text", TARGET_KINDS)
class TextTarget(ColumnKind):
    """A text to be written."""

    role: ClassVar[Role] = "target"

    tokenizer: Splitter = Field("words", description="words, characters or given (lists)")
    vocab_size: int | None = Field(None, ge=4, le=MAX_WORDS, description="largest number of different tokens")
    max_length: int | None = Field(None, ge=1, lt=MAX_LENGTH, description="tokens kept of a text; the rest is cut off")
    min_count: int = Field(1, ge=1, description="tokens that are rarer than this in the training texts are unknown")
    lowercase: bool = Field(False, description="whether to write lower case only")
    missing: MissingTarget = Field("refuse", description="refuse a row without a text, drop it, or ignore its loss")

    @override
    def fit(
        self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = ""
    ) -> FittedTextTarget:
        texts = split_cells(column[training], self.tokenizer, self.lowercase)
        max_length = self.max_length or MAX_STEPS.get(self.tokenizer, DEFAULT_MAX_STEPS)
        limits = (max_length, (self.vocab_size or MAX_TOKENS[self.tokenizer]) - 1, self.min_count)
        return FittedTextTarget(FittedText(self.tokenizer, fit_vocabulary(texts, limits, self.lowercase)), self.missing)


@register_saved("text_target")
@dataclass(frozen=True)
class FittedTextTarget(FittedColumn):
    """A vocabulary to write with. Id 0 is padding, 1 an unknown token, 2 the end of the text."""

    text: FittedText
    missing: MissingTarget

    @property
    def layout(self) -> Layout:
        return "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.text.vocabulary.length + 1,)

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each id."""
        return ("<padding>", "<unknown>", "<end>", *self.text.vocabulary.words)

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode texts as tokens (N, T) with lengths, each with an end token."""
        vocabulary = self.text.vocabulary
        texts = split_cells(column, self.text.splitter, vocabulary.lowercase)
        tokens, lengths = vocabulary.encode_words([text or [] for text in texts])
        lengths = np.where([not text for text in texts], 0, lengths)  # an empty text is the end token alone
        values = np.full((len(tokens), *self.shape), PADDING, np.int64)
        values[:, :-1] = np.where(tokens >= END, tokens + 1, tokens)
        values[np.arange(len(values)), lengths] = END
        values[np.arange(values.shape[1]) > lengths[:, None]] = PADDING
        encoded = encode_missing_targets(values, texts, self.missing, {})
        notes = {key: count for key, count in note_texts(texts, vocabulary.length).items() if key == "cut"}
        return Encoded(values, lengths + 1, encoded.problems, notes, encoded.dropped, encoded.ignored)

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert tokens (N, T) to texts (N,), each up to its end token."""
        space = "" if self.text.splitter == "characters" else " "
        names, texts = np.array(("", "…", "", *self.text.vocabulary.words), object), np.empty(len(values), object)
        for row, tokens in enumerate(values):
            ends = np.flatnonzero((tokens == END) | (tokens == PADDING))
            texts[row] = space.join(names[tokens[: ends[0] if len(ends) else None]])
        return texts

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert tokens to a text, up to its end token."""
        return str(self.invert(np.array([tokens], np.int64))[0])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text.to_json(), "missing": self.missing}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedTextTarget:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("text", "missing"))
        text = values.values["text"]
        if not isinstance(text, Mapping) or text.get("kind") not in ("words", "text"):
            text = {"kind": ""}
        return cls(FittedText.from_json(text), read_missing_target(values))
