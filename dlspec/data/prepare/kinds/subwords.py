"""Tokens of the tokenizers library: BPE trained on the training texts, or the user's own tokenizer.json.

Nothing is ever downloaded: a tokenizer.json is read from the file that the user named, and saved with the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dlspec.data.prepare.kinds.cells import Cells, list_cells
from dlspec.data.prepare.kinds.kind import Encoded, FittedColumn, register_saved
from dlspec.data.prepare.kinds.saved_values import SavedValues
from dlspec.data.prepare.kinds.splitters import find_length, pad_ids
from dlspec.data.prepare.vocabulary import MAX_LENGTH, PADDING, UNKNOWN
from dlspec.errors import Code, DataError
from dlspec.layouts import Layout

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MAX_FILE_BYTES = 100_000_000  # of a tokenizer.json; those of large vocabularies have 35 MB
MAX_IDS = 10_000_000
MIN_PAIR_COUNT = 2  # a pair that occurs only once does not help as a token
PADDING_NAMES = ("[PAD]", "<pad>", "<|padding|>", "<|pad|>")


def read_tokenizer_file(path: str) -> str:
    """Read a tokenizer.json; DataError if it is missing, too large or not JSON."""
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(
            "columns", f"the tokenizer '{path}' can't be read: {error.strerror}", Code.FILE_UNREADABLE
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise DataError("columns", f"the tokenizer '{path}' has more than {MAX_FILE_BYTES:,} bytes", Code.TOO_LARGE)
    try:
        return json.dumps(json.loads(content), ensure_ascii=False)
    except (ValueError, RecursionError):
        fix = "write the tokenizer.json of the tokenizers library"
        raise DataError("columns", f"the tokenizer '{path}' is not JSON; {fix}", Code.FILE_UNREADABLE) from None


def fit_subwords(cells: Cells, max_length: int, vocab_size: int, content: str | None) -> FittedSubwords:
    """Train BPE on the training texts, or load a tokenizer; then find the longest training text.

    Args:
        cells: the training texts
        max_length: largest number of tokens of a text
        vocab_size: largest number of tokens, for BPE
        content: content of a tokenizer.json; None to train BPE

    Returns:
        The tokenizer, with the length.
    """
    texts = [cell for cell in cells if cell is not None]
    tokenizer = train_bpe(texts, vocab_size) if content is None else load_tokenizer(content)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if special >= max_length:
        raise DataError("columns", f"max_length must be above the {special} special tokens that the tokenizer adds")
    encodings = tokenizer.encode_batch(texts)
    return FittedSubwords(tokenizer.to_str(), find_length([each.ids for each in encodings], max_length))


def train_bpe(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train BPE over the bytes of UTF-8. Id 0 is padding, 1 an empty text; equal texts give equal tokens."""
    _import_tokenizers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=["[PAD]", "[UNK]"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def load_tokenizer(content: str) -> Tokenizer:
    """Load the content of a tokenizer.json, without its own cutting and padding; DataError if it is damaged."""
    _import_tokenizers()
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content)
    except BaseException as error:
        # A panic of the library's Rust code is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError("columns", f"the tokenizer can't be loaded: {str(error)[:200]}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _import_tokenizers() -> None:
    # Its threads do not survive a fork, and dlspec forks jobs of a sweep.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        found = "the tokenizers library is not installed: pip install 'dlspec[text]'"
        raise DataError("columns", found, Code.NOT_INSTALLED) from None


@register_saved("subwords")
@dataclass(frozen=True)
class FittedSubwords(FittedColumn):
    """A tokenizer with its own ids, and the length of an encoded text."""

    content: str  # of its tokenizer.json
    length: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The loaded tokenizer, which cuts texts to the length."""
        tokenizer = load_tokenizer(self.content)
        tokenizer.enable_truncation(max(self.length, tokenizer.num_special_tokens_to_add(is_pair=False) + 1))
        return tokenizer

    @cached_property
    def padding(self) -> int:
        """Id of padding: the tokenizer's own, or 0."""
        ids = [self.tokenizer.token_to_id(name) for name in PADDING_NAMES]
        return next((each for each in ids if each is not None), PADDING)

    @property
    def layout(self) -> Layout:
        return "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @cached_property
    def _num_ids(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1

    @property
    def vocab_size(self) -> int:
        return self._num_ids

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode texts as tokens (N, T) with lengths; a missing text is encoded like an empty one."""
        cells = list_cells(column)
        encodings: list[Encoding] = self.tokenizer.encode_batch([cell or "" for cell in cells])
        unknown = UNKNOWN if self.vocab_size > UNKNOWN else PADDING
        tokens, lengths = pad_ids([each.ids or [unknown] for each in encodings], self.length, self.padding)
        counts = {
            "missing": sum(cell is None for cell in cells),
            "cut": sum(bool(each.overflowing) for each in encodings),
        }
        return Encoded(tokens, lengths, notes={key: count for key, count in counts.items() if count})

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert tokens to text."""
        return str(self.tokenizer.decode(list(tokens)))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "length": self.length, "tokenizer": self.content}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedSubwords:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, ("length", "tokenizer"))
        fitted = cls(values.get_text("tokenizer", MAX_FILE_BYTES), values.get_integer("length", 1, MAX_LENGTH))
        if fitted.vocab_size > MAX_IDS:
            raise DataError("", f"the saved tokenizer has ids above {MAX_IDS:,}")
        return fitted
