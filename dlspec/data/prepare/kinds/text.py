"""The kind `text`: tokens with lengths, of words, characters, bytes, BPE, given tokens or a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, list_cells
from dlspec.data.prepare.kinds.kind import (
    COLUMN_KINDS,
    SAVED_KINDS,
    ColumnKind,
    Encoded,
    FittedColumn,
    Role,
    Rows,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.setting_lines import format_drop_line
from dlspec.data.prepare.kinds.splitters import (
    SPLITTERS,
    Splitter,
    find_length,
    fit_vocabulary,
    note_texts,
    pad_ids,
    split_cells,
)
from dlspec.data.prepare.kinds.subwords import fit_subwords, read_tokenizer_file
from dlspec.data.prepare.vocabulary import MAX_LENGTH, MAX_WORDS, PADDING, RESERVED, UNKNOWN, Vocabulary
from dlspec.errors import Code, DataError, format_value
from dlspec.layouts import Layout

MAX_TOKENS = {"words": 20_000, "characters": 20_000, "given": 20_000, "bpe": 8_000}  # without `vocab_size`
MAX_STEPS = {"characters": 1_000, "bytes": 1_000}  # without `max_length`, by tokenizer
DEFAULT_MAX_STEPS = 200
MIN_BPE_TOKENS = 258  # one for each byte, padding, and an unknown token
BYTES = 256


@register_kind("text", COLUMN_KINDS)
class Text(ColumnKind):
    """A text, as tokens with lengths."""

    role: ClassVar[Role] = "field"

    tokenizer: str = Field("words", description="words, characters, bytes, bpe, given (lists), or a tokenizer.json")
    vocab_size: int | None = Field(None, ge=3, le=MAX_WORDS, description="largest number of different tokens")
    max_length: int | None = Field(None, ge=1, le=MAX_LENGTH, description="tokens kept of a text; the rest is cut off")
    min_count: int = Field(1, ge=1, description="tokens that are rarer than this in the training texts are unknown")
    lowercase: bool | None = Field(None, description="whether Free and free are one word; null: for words")

    @model_validator(mode="after")
    def _check_settings(self) -> Text:
        names = (*SPLITTERS, "bytes", "bpe")
        if self.tokenizer not in names and not self.tokenizer.endswith(".json"):
            found = f"tokenizer must be {', '.join(names)} or a tokenizer.json"
            raise ValueError(f"{found}, got {format_value(self.tokenizer)}")
        for key, tokenizers in (("vocab_size", MAX_TOKENS), ("min_count", SPLITTERS)):
            if key in self.model_fields_set and self.tokenizer not in tokenizers:
                raise ValueError(f"{key} has no effect with tokenizer {self.tokenizer}: remove it")
        if self.lowercase is not None and self.tokenizer not in ("words", "characters"):
            raise ValueError(f"lowercase has no effect with tokenizer {self.tokenizer}: remove it")
        if self.tokenizer == "bpe" and self.vocab_size is not None and self.vocab_size < MIN_BPE_TOKENS:
            raise ValueError(
                f"bpe needs a vocab_size of at least {MIN_BPE_TOKENS}: one token for each byte, and two more"
            )
        return self

    @property
    def splitter(self) -> Splitter | None:
        """How a text is split into the tokens of a vocabulary; None for bytes, BPE and tokenizer files."""
        return next((each for each in SPLITTERS if each == self.tokenizer), None)

    @property
    def max_steps(self) -> int:
        """Largest number of tokens of a text."""
        return self.max_length or MAX_STEPS.get(self.tokenizer, DEFAULT_MAX_STEPS)

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedColumn:
        if self.splitter is not None:
            lowercase = self.splitter == "words" if self.lowercase is None else self.lowercase
            texts = split_cells(column[training], self.splitter, lowercase)
            limits = (self.max_steps, self.vocab_size or MAX_TOKENS[self.tokenizer], self.min_count)
            return FittedText(self.splitter, _check_vocabulary(name, fit_vocabulary(texts, limits, lowercase)))
        cells = list_cells(column[training])
        if not any(cells):
            raise _make_empty_error(name)
        if self.tokenizer == "bytes":
            return FittedBytes(
                find_length([None if cell is None else [*cell.encode()] for cell in cells], self.max_steps)
            )
        content = None if self.tokenizer == "bpe" else read_tokenizer_file(self.tokenizer)
        return fit_subwords(cells, self.max_steps, self.vocab_size or MAX_TOKENS["bpe"], content)


def _check_vocabulary(name: str, vocabulary: Vocabulary) -> Vocabulary:
    if not vocabulary.words:
        raise _make_empty_error(name)
    return vocabulary


def _make_empty_error(name: str) -> DataError:
    found = f"the column '{name}' has no tokens in the training rows"
    return DataError(name, f"{found}; leave it out: {format_drop_line(name)}, or lower min_count", Code.BAD_DATA)


@register_saved("text")
@dataclass(frozen=True)
class FittedText(FittedColumn):
    """A vocabulary of words, characters or given tokens. Id 0 is padding, 1 an unknown token or an empty text."""

    splitter: Splitter
    vocabulary: Vocabulary

    @property
    def layout(self) -> Layout:
        return "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.vocabulary.length,)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode texts as tokens (N, T) with lengths; a missing text becomes one unknown token."""
        texts = split_cells(column, self.splitter, self.vocabulary.lowercase)
        tokens, lengths = self.vocabulary.encode_words([text or [] for text in texts])
        return Encoded(tokens, lengths, notes=note_texts(texts, self.vocabulary.length))

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert tokens to text; `…` stands for padding and unknown tokens."""
        named = dict(enumerate(self.vocabulary.words, RESERVED))
        return ("" if self.splitter == "characters" else " ").join(named.get(token, "…") for token in tokens)

    def to_json(self) -> dict[str, Any]:
        saved = self.vocabulary.to_json()
        if self.splitter == "words":  # as version 0.1.0 wrote it
            return saved
        return {**saved, "kind": self.kind, "splitter": self.splitter}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedText:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        if saved["kind"] == "words":
            return cls("words", Vocabulary.from_json(saved))
        values = SavedValues(saved, ("splitter", "length", "lowercase", "words"))
        splitter = values.get_choice("splitter", SPLITTERS)
        rest = {key: each for key, each in saved.items() if key != "splitter"}
        vocabulary = Vocabulary.from_json({**rest, "kind": "words"})
        return cls(next(each for each in SPLITTERS if each == splitter), vocabulary)


SAVED_KINDS["words"] = FittedText.from_json


@register_saved("text_bytes")
@dataclass(frozen=True)
class FittedBytes(FittedColumn):
    """The bytes of UTF-8: id 0 is padding, 1 an empty text, and a byte has its number plus 2."""

    length: int

    @property
    def layout(self) -> Layout:
        return "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def vocab_size(self) -> int:
        return RESERVED + BYTES

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode texts as tokens (N, T) with lengths."""
        texts = [None if cell is None else [*cell.encode()] for cell in list_cells(column)]
        ids = [[byte + RESERVED for byte in text or ()] or [UNKNOWN] for text in texts]
        tokens, lengths = pad_ids(ids, self.length, PADDING)
        return Encoded(tokens, lengths, notes=note_texts(texts, self.length))

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert tokens to text; bytes that are not valid UTF-8 become the replacement character."""
        return bytes(token - RESERVED for token in tokens if token >= RESERVED).decode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "length": self.length}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedBytes:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        return cls(SavedValues(saved, ("length",)).get_integer("length", 1, MAX_LENGTH))
