"""Texts with one label each: from a CSV file, or lines of Python's standard library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from dlspec.data.sources.source import SplitSource, data_source, make_size_error
from dlspec.errors import DataError
from dlspec.limits import MAX_DATA_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset
    from dlspec.data.split_indices import SplitIndices


class TextSource(SplitSource):
    """Texts with one label each. The field `text` contains tokens with lengths; its vocabulary is the training words.

    Equal texts go to the same split, and every split has the classes in equal proportions. Classes are in alphabetical
    order, except that of two classes the rarer one is index 1, the positive class (spam, not ham).
    """

    max_tokens: int = Field(
        20_000, ge=3, le=10**6, description="largest vocabulary; includes 0 for padding and 1 for unknown words"
    )
    max_length: int = Field(200, ge=1, le=10**5, description="words kept of each text; the rest is cut off")
    min_count: int = Field(1, ge=1, description="words that are rarer than this in the training texts are unknown")
    lowercase: bool = Field(True, description="whether 'Free' and 'free' are the same word")

    def make_dataset(
        self, texts: Sequence[str], labels: Sequence[str], target_name: str, column: str = "text"
    ) -> Dataset:
        """Make a data set of texts and their labels.

        Args:
            texts: the texts
            labels: the class name of each text
            target_name: name of the target
            column: name of the column with the texts

        Returns:
            The data set, with the field `text`.

        Raises:
            DataError: if the labels do not look like classes, or the tokens would take too much memory.
        """
        from dlspec.data import dataset
        from dlspec.data.array_splits import make_splits
        from dlspec.data.prepare.vocabulary import Vocabulary, split_words

        classes, numbers = number_classes(labels)
        words = [split_words(text, self.lowercase) for text in texts]
        length = max(1, min(self.max_length, max(map(len, words))))
        _check_size(len(words), length)

        parts = self._split_texts(words, numbers)
        training = [words[row] for row in parts.train.tolist()]
        vocabulary = Vocabulary.fit(training, length, self.lowercase, self.max_tokens, self.min_count)
        tokens, lengths = vocabulary.encode_words(words)

        field = dataset.Field("text", (length,), "tokens", vocab_size=len(vocabulary), has_lengths=True)
        target = dataset.Target(target_name, "classes", (), classes)
        arrays = {"text": tokens, field.lengths: lengths}
        preprocessing = {"text": vocabulary.to_json()}
        splits = make_splits(arrays, {target_name: numbers}, parts)
        return dataset.Dataset(self.source_name, (field,), (target,), *splits, preprocessing,
                               column_names={"text": (column,)})  # fmt: skip

    def _split_texts(self, words: list[list[str]], classes: NDArray[np.int64]) -> SplitIndices:
        """Split the rows, with equal texts in one split: a training text must not occur in the test."""
        import numpy as np

        from dlspec.data.split_indices import SplitPlan, split_rows

        seen: dict[tuple[str, ...], int] = {}
        groups = np.array([seen.setdefault(tuple(text), len(seen)) for text in words], np.int64)
        plan = SplitPlan(self.split_seed, self.validation, self.test, self.limit)
        return split_rows(len(words), plan, classes, groups)


@data_source("text_csv")
class TextCsv(TextSource):
    """A CSV file with a header, one column of texts and one of labels. Empty lines are skipped."""

    path: str | None = Field(None, description="the CSV file")
    text: str = Field("text", description="the column of the texts")
    label: str = Field("label", description="the column of the class names")
    delimiter: str = Field(",", min_length=1, max_length=1, description="the character between cells")
    encoding: str = Field("utf-8", description="the file's encoding: utf-8, latin-1, cp1252, utf-16, ...")

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, delimiter: str) -> str:
        if delimiter in '"\r\n':
            raise ValueError("the delimiter can't be a quote or a line break; write for example ',', ';' or a tab")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(f"unknown encoding '{encoding}'; choose utf-8, latin-1, cp1252, utf-16, ...") from None
        return encoding

    def open(self) -> Dataset:
        from dlspec.data.files.csv_file import read_columns

        texts, labels = read_columns(self.path, self.text, self.label, self.delimiter, self.encoding)
        return self.make_dataset(texts, labels, self.label, self.text)


@data_source("python_lines")
class PythonLines(TextSource):
    """Lines of Python, each a comment (without its #) or code; target `kind`. About 35,000, half of each.

    The lines come from the standard library of the running Python, so other versions have slightly different lines.
    """

    max_length: int = Field(40, ge=1, le=10**5, description="words kept of each line; the rest is cut off")

    def open(self) -> Dataset:
        from dlspec.data.files.python_source_lines import read_comments_and_code

        comments, code = read_comments_and_code()
        labels = ["comment"] * len(comments) + ["code"] * len(code)
        return self.make_dataset(comments + code, labels, "kind")


def number_classes(labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Number the classes in alphabetical order; of two classes the rarer one is 1, unless both are equally frequent.

    Returns:
        The names of the classes, and the class index of each label (N,).
    """
    from collections import Counter

    import numpy as np

    counts = Counter(labels)
    names = sorted(counts)
    _check_spellings(names)
    if len(names) == 1:
        raise DataError("label", f"expected at least two classes, but every label is '{names[0]}'")
    if len(names) == 2:
        names.sort(key=lambda name: -counts[name])
    if len(names) > max(20, len(labels) // 2):
        found = f"{len(names):,} different labels in {len(labels):,} rows"
        raise DataError("label", f"{found}; check that data.label is the column of the class names")
    index = {name: number for number, name in enumerate(names)}
    return tuple(names), np.array([index[label] for label in labels], np.int64)


def _check_spellings(names: Sequence[str]) -> None:
    """Refuse classes that differ only in how a word or number is written: `ham` and `HAM`, `1` and `1.0`."""
    from dlspec.data.prepare.kinds.class_table import normalize_class

    first_spellings: dict[str | float, str] = {}
    for name in names:
        first = first_spellings.setdefault(normalize_class(name), name)
        if first != name:
            fix = "write one of them everywhere, or names that differ in more than that if they are two classes"
            raise DataError("label", f"the labels '{first}' and '{name}' differ only in their spelling; {fix}")


def _check_size(count: int, length: int) -> None:
    size = 8 * count * length
    if size > MAX_DATA_BYTES:
        fix = f"data.max_length={max(1, MAX_DATA_BYTES // (8 * count))}"
        raise make_size_error("max_length", f"{count:,} texts of up to {length:,} words take", size, fix)
