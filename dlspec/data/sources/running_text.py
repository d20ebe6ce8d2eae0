"""A long text, cut into windows of characters or bytes, with the next character or byte as target."""

from __future__ import annotations

from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from dlspec.data.sources.source import SplitSource, data_source
from dlspec.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from dlspec.data.dataset import Dataset, Split
    from dlspec.data.prepare.alphabet import Alphabet

MAX_LENGTH = 10**6


@data_source("text")
class RunningText(SplitSource):
    """Text files: field `text`, tokens (length,); target `next`, the same tokens one step later.

    The start of the text is for training, followed by the validation and test parts. Training windows start `stride`
    tokens apart. Validation and test windows do not overlap, so that each token counts once; an incomplete window at
    the end of a part is dropped. The vocabulary is the characters of the text, numbered from 0 in Unicode order, or
    the 256 bytes; no id is reserved for padding or unknown characters. Without `path` the text is Python's own help.
    """

    stated: ClassVar[tuple[str, ...]] = ("num_classes", "vocab_size", "shape")

    path: str | None = Field(None, description="a text file in UTF-8, or a folder of text files; null: Python's help")
    files: str = Field("*.txt", min_length=1, description="which files of the folder and its subfolders to read")
    unit: Literal["characters", "bytes"] = Field("characters", description="whether a token is a character or a byte")
    length: int = Field(64, ge=1, le=MAX_LENGTH, description="number of tokens in a sample")
    stride: int | None = Field(
        None, ge=1, description="steps between the starts of training windows; null: length, so they do not overlap"
    )
    test: float = Field(0.1, ge=0, lt=1, description="fraction of the text, at its end, for the final test")
    split_seed: int = Field(0, ge=0, description="always 0: the text is split in order, not at random")

    @field_validator("split_seed")
    @classmethod
    def _check_seed(cls, seed: int) -> int:
        if seed:
            raise ValueError("must be 0: a text is split in order, without a seed; remove the setting")
        return seed

    def open(self) -> Dataset:
        """Read and split the text: a million characters take 30 ms and 8 MB, as windows are views of one tensor."""
        import torch

        from dlspec.data import dataset
        from dlspec.data.prepare.alphabet import Alphabet

        text = self._read_text()
        if not text:
            raise DataError("path", f"'{self.path}' is empty; expected text")
        alphabet = Alphabet.fit(text, self.length)
        if len(alphabet) == 1:
            raise DataError("path", f"'{self.path}' must contain at least two different characters, got only one")
        tokens = torch.from_numpy(alphabet.encode(text))
        field = dataset.Field("text", (self.length,), "tokens", vocab_size=len(alphabet))
        target = dataset.Target("next", "classes", (self.length,), alphabet.names, next_of="text")
        preprocessing = {"text": alphabet.to_json()}
        return dataset.Dataset(self.source_name, (field,), (target,), *self._split_tokens(tokens), preprocessing)

    def read_windows(self, alphabet: Alphabet) -> Split:
        """Make windows of the whole text, which do not overlap, with the alphabet of an earlier run."""
        import torch

        tokens = torch.from_numpy(alphabet.encode(self._read_text()))
        self._check_parts({"new": tokens})
        return self._make_windows(tokens, self.length)

    def _read_text(self) -> str | bytes:
        from dlspec.data.files.text_files import read_bytes, read_python_docs, read_text

        if self.path is None:
            return read_python_docs() if self.unit == "characters" else read_python_docs().encode()
        return read_text(self.path, self.files) if self.unit == "characters" else read_bytes(self.path, self.files)

    def _split_tokens(self, tokens: Tensor) -> tuple[Split, Split, Split]:
        """Split the text in order: the start for training, then validation, and the end for the test."""
        shares = (0.0, 1 - self.validation - self.test, 1 - self.test, 1.0)
        ends = [int(share * len(tokens)) for share in shares]  # as nanoGPT's int(0.9 * n)
        train, validation, test = (tokens[begin:end] for begin, end in pairwise(ends))
        self._check_parts({"training": train, "validation": validation, "test": test})
        stride = self.stride or self.length
        return (
            self._make_windows(train, stride),
            self._make_windows(validation, self.length),
            self._make_windows(test, self.length),
        )

    def _check_parts(self, parts: dict[str, Tensor]) -> None:
        name, shortest = min(((name, len(part)) for name, part in parts.items() if len(part)), key=itemgetter(1))
        if shortest <= self.length:
            found = (
                f"the {name} split has {shortest:,} {self.unit}, but a window needs length + 1 = {self.length + 1:,}"
            )
            raise DataError("length", f"{found}; try {f'data.length={shortest - 1}' if shortest > 1 else 'more text'}")

    def _make_windows(self, tokens: Tensor, stride: int) -> Split:
        """Make windows (N, length) that start `stride` tokens apart, with the same one step later as target."""
        from dlspec.data.dataset import Split

        pair = (tokens[:-1], tokens[1:])
        text, next_tokens = (
            each.unfold(0, self.length, stride)[: self.limit] if len(each) else each.reshape(0, self.length)
            for each in pair
        )
        return Split({"text": text}, {"next": next_tokens})
