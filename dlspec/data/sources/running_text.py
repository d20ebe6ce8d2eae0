"""A running text as windows of characters or bytes, each of which is followed by the next one."""

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

MAX_LENGTH = 10**6


@data_source("text")
class RunningText(SplitSource):
    """Text files: field `text`, tokens (length,); target `next`, the same one step on.

    The parts lie one after another: training, validation, test. Training windows begin `stride` apart, those of the
    other parts stand side by side, so that each character is judged once; what is left at a part's end is left out. The
    vocabulary is the text's own characters, numbered from 0 in Unicode's order, or the 256 bytes: nothing is padding or
    unknown, and no id is kept for it. With no `path` the text is the Python documentation that the interpreter has.
    """

    stated: ClassVar[tuple[str, ...]] = ("num_classes", "vocab_size", "shape")

    path: str | None = Field(None, description="a text file in UTF-8, or a folder of some; null: Python's own topics")
    files: str = Field("*.txt", min_length=1, description="which files of a folder and those below, in their order")
    unit: Literal["characters", "bytes"] = Field("characters", description="what a token is")
    length: int = Field(64, ge=1, le=MAX_LENGTH, description="how many tokens a sample has")
    stride: int | None = Field(
        None, ge=1, description="from one training window's start to the next's: null is length, 1 every position"
    )
    test: float = Field(0.1, ge=0, lt=1, description="share of the text, its end, kept aside for the final test")
    split_seed: int = Field(0, ge=0, description="always 0: the parts lie one after another, and nothing is drawn")

    @field_validator("split_seed")
    @classmethod
    def _check_seed(cls, seed: int) -> int:
        if seed:
            raise ValueError("a text's parts lie one after another, and no seed decides them: leave it out")
        return seed

    def open(self) -> Dataset:
        """In some 30 ms for a million characters, of which 8 MB are kept: windows are views of one long tensor."""
        import torch

        from dlspec.data import dataset
        from dlspec.data.prepare.alphabet import Alphabet

        text = self._read_text()
        if not text:
            raise DataError("path", f"'{self.path}' holds no text")
        alphabet = Alphabet.fit(text, self.length)
        if len(alphabet) == 1:
            raise DataError("path", f"'{self.path}' holds one character only, again and again; two are wanted")
        tokens = torch.from_numpy(alphabet.encode(text))
        field = dataset.Field("text", (self.length,), "tokens", vocab_size=len(alphabet))
        target = dataset.Target("next", "classes", (self.length,), alphabet.names, next_of="text")
        preprocessing = {"text": alphabet.to_json()}
        return dataset.Dataset(self.source_name, (field,), (target,), *self._split_tokens(tokens), preprocessing)

    def _read_text(self) -> str | bytes:
        from dlspec.data.files.text_files import read_bytes, read_python_docs, read_text

        if self.path is None:
            return read_python_docs() if self.unit == "characters" else read_python_docs().encode()
        return read_text(self.path, self.files) if self.unit == "characters" else read_bytes(self.path, self.files)

    def _split_tokens(self, tokens: Tensor) -> tuple[Split, Split, Split]:
        """The text's beginning, the validation part behind it, and the end."""
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
            found = f"the {name} part has {shortest:,} {self.unit}, too few for {self.length:,} and one more"
            raise DataError("length", f"{found}: try {f'data.length={shortest - 1}' if shortest > 1 else 'more text'}")

    def _make_windows(self, tokens: Tensor, stride: int) -> Split:
        """(N, length) views that begin `stride` apart, each with the same one step on; of no tokens none."""
        from dlspec.data.dataset import Split

        pair = (tokens[:-1], tokens[1:])
        text, next_tokens = (
            each.unfold(0, self.length, stride)[: self.limit] if len(each) else each.reshape(0, self.length)
            for each in pair
        )
        return Split({"text": text}, {"next": next_tokens})
