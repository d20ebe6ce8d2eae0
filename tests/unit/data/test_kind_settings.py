"""Kinds as a spec writes them, kinds of the user's own, tokenizer files, and cells that can't be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import dlspec
from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.kinds import COLUMN_KINDS, TARGET_KINDS, fitted_from_json, read_kind
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.data.prepare.vocabulary import Vocabulary
from dlspec.errors import Code, DataError
from dlspec.parts.registry import DuplicateNameError, Registry
from helpers.kind_table import KIND_ROWS, TEXTS, list_column, text_column

COLUMN = text_column("1", "2", "3", None)
TRAINING = np.arange(3)

WRONG: list[tuple[Any, str, Code]] = [
    ("numbr", "columns.a", Code.UNKNOWN_CHOICE),
    ("audio", "columns.a", Code.NOT_YET),
    ({"image": {"size": [4]}}, "columns.a.image.size", Code.WRONG_VALUE),
    ({"image": {"size": 0}}, "columns.a.image.size", Code.WRONG_VALUE),
    ({"image": {"store": 8}}, "columns.a.image", Code.WRONG_VALUE),
    ({"image": {"size": 9, "store": 8}}, "columns.a.image", Code.WRONG_VALUE),
    ({"image": {"scale": "imagent"}}, "columns.a.image.scale", Code.WRONG_VALUE),
    ({"image": {"scale": {"mean": 0}}}, "columns.a.image.scale", Code.WRONG_VALUE),
    ({"image": {"scale": {"mean": "x", "std": 1}}}, "columns.a.image.scale", Code.WRONG_VALUE),
    ({"image": {"resize": "crop"}}, "columns.a.image.resize", Code.WRONG_VALUE),
    ({"audio": {"rate": 16000}}, "columns.a", Code.NOT_YET),
    (3, "columns.a", Code.WRONG_TYPE),
    ([], "columns.a", Code.WRONG_TYPE),
    ({"number": {}, "date": {}}, "columns.a", Code.WRONG_TYPE),
    ({"number": 3}, "columns.a.number", Code.WRONG_TYPE),
    ({"number": {"scal": "log"}}, "columns.a.number", Code.UNKNOWN_KEY),
    ({"number": {"scale": "std"}}, "columns.a.number.scale", Code.WRONG_VALUE),
    ({"number": {"per": "group", "scale": "none"}}, "columns.a.number", Code.WRONG_VALUE),
    ({"number": {"clip": [3, 1]}}, "columns.a.number.clip", Code.WRONG_VALUE),
    ({"number": {"clip": [None, None]}}, "columns.a.number.clip", Code.WRONG_VALUE),
    ({"number": {"clip": 3}}, "columns.a.number.clip", Code.WRONG_VALUE),
    ({"number": {"values": ["low", "low"]}}, "columns.a.number", Code.WRONG_VALUE),
    ({"number": {"values": ["low"]}}, "columns.a.number", Code.WRONG_VALUE),
    ({"number": {"values": [True, False]}}, "columns.a.number.values.0", Code.WRONG_VALUE),
    ({"number": {"values": ["low", "high"], "strip": "$"}}, "columns.a.number", Code.WRONG_VALUE),
    ({"category": {"min_count": True}}, "columns.a.category.min_count", Code.WRONG_VALUE),
    ({"category": {"max_values": 0}}, "columns.a.category.max_values", Code.WRONG_VALUE),
    ({"category": {"hash": 0.5}}, "columns.a.category.hash", Code.WRONG_VALUE),
    ({"date": {"format": "%Q"}}, "columns.a.date.format", Code.WRONG_VALUE),
    ({"date": {"format": "day"}}, "columns.a.date.format", Code.WRONG_VALUE),
    ({"date": {"parts": ["yaer"]}}, "columns.a.date.parts.0", Code.WRONG_VALUE),
    ({"date": {"parts": ["year", "year"]}}, "columns.a.date.parts", Code.WRONG_VALUE),
    ({"date": {"parts": []}}, "columns.a.date.parts", Code.WRONG_VALUE),
    ({"text": {"tokenizer": "sentences"}}, "columns.a.text", Code.WRONG_VALUE),
    ({"text": {"tokenizer": "bytes", "vocab_size": 300}}, "columns.a.text", Code.WRONG_VALUE),
    ({"text": {"tokenizer": "bpe", "min_count": 2}}, "columns.a.text", Code.WRONG_VALUE),
    ({"text": {"tokenizer": "bpe", "vocab_size": 99}}, "columns.a.text", Code.WRONG_VALUE),
    ({"text": {"tokenizer": "given", "lowercase": True}}, "columns.a.text", Code.WRONG_VALUE),
    ({"numbers": {"divide": 0}}, "columns.a.numbers.divide", Code.WRONG_VALUE),
    ({"numbers": {"divide": 2, "scale": "none"}}, "columns.a.numbers", Code.WRONG_VALUE),
    ({"numbers": {"shape": [2, 0]}}, "columns.a.numbers.shape.1", Code.WRONG_VALUE),
]


@pytest.mark.parametrize(("written", "key", "code"), WRONG, ids=str)
def test_wrong_settings(written: Any, key: str, code: Code) -> None:
    with pytest.raises(DataError) as caught:
        read_kind(written, COLUMN_KINDS, "columns.a")
    assert (caught.value.key, caught.value.finding.code) == (key, code)


WRONG_TARGETS: list[tuple[Any, Code]] = [
    ({"mask": {"classes": ["a"]}}, Code.WRONG_VALUE),
    ({"mask": {"classes": ["a", "a"]}}, Code.WRONG_VALUE),
    ({"mask": {"classes": {"#ff0000": "a", "1": "b"}}}, Code.WRONG_VALUE),
    ({"mask": {"classes": {"#ff00": "a", "#00ff00": "b"}}}, Code.WRONG_VALUE),
    ({"image": {"scale": "standard"}}, Code.WRONG_VALUE),
    ("number", Code.UNKNOWN_CHOICE),
    ({"class": {"classes": ["a"]}}, Code.WRONG_VALUE),
    ({"class": {"classes": ["a", "a"]}}, Code.WRONG_VALUE),
    ({"class": {"classes": {"x": "a", "y": "a"}}}, Code.WRONG_VALUE),
    ({"class": {"classes": ["a", "b"], "positive": "a"}}, Code.WRONG_VALUE),
    ({"class": {"missing": "median"}}, Code.WRONG_VALUE),
    ({"value": {"scale": "unit"}}, Code.WRONG_VALUE),
]


@pytest.mark.parametrize(("written", "code"), WRONG_TARGETS, ids=str)
def test_wrong_settings_of_targets(written: Any, code: Code) -> None:
    with pytest.raises(DataError) as caught:
        read_kind(written, TARGET_KINDS, "target.a")
    assert caught.value.finding.code == code


def test_a_kind_without_settings() -> None:
    assert read_kind("number", COLUMN_KINDS, "") == read_kind({"number": None}, COLUMN_KINDS, "")


# ---- cells that can't be read, dropped and ignored rows --------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "is_target", "cell"),
    [("number", False, "x"), ("date", False, "2024-13-01"), ("value", True, "x"), ("numbers", False, "1 x"),
     ({"number": {"values": ["1", "2", "3"]}}, False, "4"), ({"class": {"classes": ["1", "2", "3"]}}, True, "4"),
     ({"labels": {"classes": ["1", "2", "3"]}}, True, "1|4"), ({"tags": {"classes": ["1", "2", "3"]}}, True, "1 4")],
)  # fmt: skip
def test_a_cell_that_can_not_be_read_is_listed_with_its_row(written: Any, is_target: bool, cell: str) -> None:
    good = text_column("2024-01-01", "2024-01-02") if written == "date" else text_column("1", "2", "3")
    kind = read_kind(written, TARGET_KINDS if is_target else COLUMN_KINDS, "")
    fitted = kind.fit(good, np.arange(len(good)))
    encoded = fitted.apply(np.concatenate([good, text_column(cell), good]))
    assert list(encoded.problems) == [len(good)] and np.isfinite(encoded.values).all()


def test_a_wrong_cell_takes_no_part_in_statistics() -> None:
    kind = read_kind({"number": {"missing": "mean"}}, COLUMN_KINDS, "")
    clean, dirty = text_column("1", "2", "6"), text_column("1", "x", "2", "6")
    assert kind.fit(dirty, np.arange(4)).to_json() == kind.fit(clean, np.arange(3)).to_json()


def test_a_number_far_from_the_training_rows_is_listed() -> None:
    column = text_column("0", "1e-52", "1")
    for written, is_target in (("number", False), ("value", True)):
        kind = read_kind(written, TARGET_KINDS if is_target else COLUMN_KINDS, "")
        encoded = kind.fit(column, np.arange(2)).apply(column)
        assert list(encoded.problems) == [2] and np.isfinite(encoded.values).all()
    lists = np.array([[0.0, 1], [1e-52, 2], [1, 3]])
    assert list(read_kind("numbers", COLUMN_KINDS, "").fit(lists, np.arange(2)).apply(lists).problems) == [2]


def test_letters_are_compared_in_one_form() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    kind = read_kind({"class": {"classes": [decomposed, "tea"]}}, TARGET_KINDS, "")
    for cells in (text_column(composed, "tea"), np.array([decomposed, "tea"], object)):
        assert kind.fit(cells, np.arange(2)).apply(cells).values.tolist() == [0, 1]


def test_missing_cells_are_dropped_refused_or_ignored() -> None:
    column = text_column("1", None, "2", "3", None)
    assert KIND_ROWS["number drop"].kind.find_rows_to_drop(column).tolist() == [1, 4]
    assert KIND_ROWS["number mean"].kind.find_rows_to_drop(column).tolist() == []
    for written, is_target, key in (
        ({"number": {"missing": "drop"}}, False, "dropped"),
        ({"value": {"missing": "drop"}}, True, "dropped"),
        ({"value": {"missing": "ignore"}}, True, "ignored"),
        ({"class": {"missing": "ignore"}}, True, "ignored"),
        ({"number": {"missing": "refuse"}}, False, "problems"),
        ("class", True, "problems"),
    ):
        kind = read_kind(written, TARGET_KINDS if is_target else COLUMN_KINDS, "")
        encoded = kind.fit(column, np.arange(5)).apply(column)
        assert list(getattr(encoded, key)) == [1, 4]


def test_what_training_never_saw_is_counted() -> None:
    number = read_kind("number", COLUMN_KINDS, "").fit(COLUMN, TRAINING)
    assert number.apply(text_column(None, "1", None)).notes == {"missing": 2}
    category = read_kind("category", COLUMN_KINDS, "").fit(COLUMN, TRAINING)
    assert category.apply(text_column(None, "9", "8", "1")).notes == {"unknown": 2, "missing": 1}
    text = read_kind({"text": {"max_length": 2}}, COLUMN_KINDS, "").fit(TEXTS, TRAINING)
    assert text.apply(text_column("a b c", "a", None)).notes == {"missing": 1, "cut": 1}


EMPTY = [
    "number",
    "category",
    "date",
    "numbers",
    *({"text": {"tokenizer": name}} for name in ("words", "bytes", "bpe")),
]


@pytest.mark.parametrize("written", EMPTY, ids=str)
def test_nothing_to_fit(written: Any) -> None:
    with pytest.raises(DataError) as caught:
        read_kind(written, COLUMN_KINDS, "").fit(text_column(None, None, "1"), np.arange(2), name="a")
    assert caught.value.key == "a" and caught.value.finding.code == Code.BAD_DATA


def test_a_constant_target() -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        read_kind("value", TARGET_KINDS, "").fit(text_column("2", "2", "3"), np.arange(2), name="y")


def test_no_category_is_frequent_enough() -> None:
    with pytest.raises(DataError, match="lower min_count to at most 1"):
        read_kind({"category": {"min_count": 3}}, COLUMN_KINDS, "").fit(COLUMN, TRAINING, name="a")


def test_too_many_one_hots() -> None:
    column = text_column(*(f"v{row}" for row in range(10_050)))
    fitted = read_kind({"category": {"max_values": 20_000}}, COLUMN_KINDS, "").fit(column, np.arange(len(column)))
    with pytest.raises(DataError) as caught:
        fitted.apply(column)
    assert caught.value.finding.code == Code.TOO_LARGE
    tokens = fitted.encode_tokens(column)  # type: ignore[attr-defined]
    assert tokens.values.shape == (10_050, 1) and fitted.vocab_size == 10_052


def test_cells_of_arrays_are_text() -> None:
    assert list_cells(np.array([1.0, 2.5, np.nan])) == ["1", "2.5", None]
    assert list_cells(np.array([True, False])) == ["true", "false"]
    assert list_cells(np.array([1, "a ", None, " ", 2.0], object)) == ["1", "a", None, None, "2"]
    assert list_cells(np.array(["2024-01-31T12:30", "NaT"], "datetime64[ns]")) == ["2024-01-31 12:30:00", None]


# ---- tokenizer files -------------------------------------------------------------------------------------------------


def test_a_tokenizer_file_is_read_and_kept(tmp_path: Path) -> None:
    trained = KIND_ROWS["text bpe"].fit()
    (tmp_path / "tokenizer.json").write_text(trained.to_json()["tokenizer"])
    written = {"text": {"tokenizer": str(tmp_path / "tokenizer.json")}}
    fitted = read_kind(written, COLUMN_KINDS, "").fit(TEXTS, np.arange(6))
    (tmp_path / "tokenizer.json").unlink()
    again = fitted_from_json(json.loads(json.dumps(fitted.to_json())))
    np.testing.assert_array_equal(again.apply(TEXTS).values, trained.apply(TEXTS).values)


def test_bpe_is_that_of_the_library_whatever_the_order_of_equal_runs() -> None:
    first, second = KIND_ROWS["text bpe"].fit(), KIND_ROWS["text bpe"].fit()
    assert first.to_json() == second.to_json()
    library = Tokenizer.from_str(first.to_json()["tokenizer"])
    encoded = first.apply(TEXTS)
    assert encoded.lengths is not None
    for row in (0, 1, 3):
        ids = library.encode(str(TEXTS[row])).ids
        assert encoded.values[row, : encoded.lengths[row]].tolist() == ids
        assert first.decode(ids) == TEXTS[row]


def test_a_tokenizer_with_special_tokens_keeps_them_in_cut_texts(tmp_path: Path) -> None:
    words = {"[PAD]": 5, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "hello": 4, "you": 0}
    specials = [{"id": words[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True} for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]  # fmt: skip
    around = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    processor = {"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": {
        name: {"id": name, "ids": [words[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}}  # fmt: skip
    content = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": specials, "normalizer": None,
               "pre_tokenizer": {"type": "Whitespace"}, "post_processor": processor, "decoder": None,
               "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    kind = read_kind({"text": {"tokenizer": str(tmp_path / "tokenizer.json"), "max_length": 4}}, COLUMN_KINDS, "")
    encoded = kind.fit(text_column("hello you", "you"), np.arange(2)).apply(text_column("hello you you", "you"))
    assert encoded.values.tolist() == [[1, 4, 0, 2], [1, 0, 2, 5]] and encoded.notes == {"cut": 1}


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"model": 1}', "\x00", "[" * 100_000])
def test_wrong_tokenizer_files(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    kind = read_kind({"text": {"tokenizer": str(tmp_path / "tokenizer.json")}}, COLUMN_KINDS, "")
    with pytest.raises(DataError):
        kind.fit(TEXTS, np.arange(6))


# ---- what version 0.1.0 saved ----------------------------------------------------------------------------------------


def test_what_version_010_saved_is_read() -> None:
    words = Vocabulary.fit([["a", "b"], ["b"]], 3, True, 10, 1)
    fitted = fitted_from_json(words.to_json())
    np.testing.assert_array_equal(fitted.apply(text_column("b a", "c")).values, words.encode(["b a", "c"])[0])
    assert fitted.to_json() == words.to_json()
    alphabet = Alphabet.fit("hello", 4)
    fitted = fitted_from_json(alphabet.to_json())
    encoded = fitted.apply(text_column("hello", "ol", "x"))
    assert encoded.values[0].tolist() == alphabet.encode("hell").tolist() and list(encoded.problems) == [2]
    assert fitted_from_json({"kind": "bytes", "length": 2}).apply(text_column("é")).values.tolist() == [[0xC3, 0xA9]]
    fitted = fitted_from_json({"kind": "standardize", "mean": [1.0, 2.0], "std": [2.0, 4.0]})
    assert fitted.apply(np.array([[3.0, 2.0]])).values.tolist() == [[1.0, 0.0]]
    single = fitted_from_json({"kind": "standardize", "mean": 1.0, "std": 2.0})
    assert single.invert(single.apply(text_column("3", "4")).values).tolist() == [3.0, 4.0]
    assert fitted_from_json({"kind": "divide", "by": 16.0}).apply(np.array([[8]])).values.tolist() == [[0.5]]


@pytest.mark.parametrize(
    "saved",
    [{"kind": "standardize", "mean": [1.0], "std": [1.0, 2.0]}, {"kind": "standardize", "mean": 1.0, "std": 0.0},
     {"kind": "divide", "by": 0}, {"kind": "divide", "by": "2"}, {"kind": "divide", "by": float("nan")},
     {"kind": ["divide"], "by": 2}, None, {"by": 2}],
)  # fmt: skip
def test_damaged_plain_preparation(saved: Any) -> None:
    with pytest.raises(DataError):
        fitted_from_json(saved)


# ---- kinds of the user's own -----------------------------------------------------------------------------------------


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the registries of kinds after a test."""
    for registry in (COLUMN_KINDS, TARGET_KINDS):
        copied = Registry("column kind", (), lambda each: each)
        for name in registry:
            copied.register(registry[name], name)
        monkeypatch.setattr(registry, "_classes", dict(copied._classes))
        monkeypatch.setattr(registry, "_described", {})
    yield


@pytest.mark.usefixtures("registries")
class TestOwnKinds:
    def test_a_function(self) -> None:
        @dlspec.column("hex", layout="features")
        def read_hex(cell: str) -> Any:
            return [int(digit, 16) for digit in cell]

        column = text_column("0f", "a1", "zz", "123", None, "ff")
        fitted = read_kind("hex", COLUMN_KINDS, "").fit(column, np.array([0, 1]))
        encoded = fitted.apply(column)
        assert encoded.values[[0, 1, 5]].tolist() == [[0, 15], [10, 1], [15, 15]]
        assert sorted(encoded.problems) == [2, 3, 4] and fitted.layout == "features"
        again = fitted_from_json(json.loads(json.dumps(fitted.to_json())))
        np.testing.assert_array_equal(again.apply(column).values, encoded.values)

    def test_a_class_with_settings_and_write(self) -> None:
        @dlspec.column("scaled")
        class Scaled:
            layout = "sequence"

            def __init__(self, factor: float = 2.0) -> None:
                self.factor = factor

            def read(self, cell: str) -> Any:
                return np.array([[float(part) * self.factor] for part in cell.split()])

            def write(self, values: Any) -> str:
                return " ".join(f"{value / self.factor:g}" for value in values[:, 0])

        column = text_column("1 2", "3", "4 5 6")
        fitted = read_kind({"scaled": {"factor": 3.0}}, TARGET_KINDS, "").fit(column, np.array([0, 1]))
        encoded = fitted.apply(column)
        assert encoded.values[:, :, 0].tolist() == [[3, 6], [9, 0], [12, 15]]
        assert encoded.lengths is not None and encoded.lengths.tolist() == [2, 1, 2] and encoded.notes == {"cut": 1}
        assert fitted.invert(encoded.values).tolist() == ["1 2", "3 0", "4 5"]
        assert fitted_from_json(json.loads(json.dumps(fitted.to_json()))).to_json() == fitted.to_json()
        for settings in ({"factr": 3.0}, {"factor": "x"}):
            with pytest.raises(DataError):
                read_kind({"scaled": settings}, COLUMN_KINDS, "columns.a")

    def test_tokens(self) -> None:
        @dlspec.column("letters", layout="tokens")
        def read_letters(cell: str) -> Any:
            return [ord(letter) - 97 for letter in cell]

        column = text_column("ab", "d", "z")
        fitted = read_kind("letters", COLUMN_KINDS, "").fit(column, np.array([0, 1]))
        assert fitted.vocab_size == 4 and fitted.apply(column).values.dtype == np.int64
        assert list(fitted.apply(column).problems) == [2]

    def test_names(self) -> None:
        with pytest.raises(DuplicateNameError):
            dlspec.column("number")(lambda cell: [0])
        with pytest.raises(DataError):
            dlspec.column("other", layout="rows")(lambda cell: [0])  # type: ignore[arg-type]
        with pytest.raises(DataError):
            dlspec.column("other")(type("NoRead", (), {}))

    def test_a_kind_that_is_not_registered(self) -> None:
        saved = {"kind": "column", "name": "gone", "settings": {}, "shape": [1], "layout": "features",
                 "has_lengths": False, "num_tokens": None}  # fmt: skip
        with pytest.raises(DataError) as caught:
            fitted_from_json(saved)
        assert caught.value.finding.code == Code.UNKNOWN_CHOICE

    def test_cells_that_differ_in_shape(self) -> None:
        @dlspec.column("digits_of")
        def read_digits(cell: str) -> Any:
            return [int(digit) for digit in cell]

        with pytest.raises(DataError, match="differ in shape"):
            read_kind("digits_of", COLUMN_KINDS, "").fit(text_column("12", "345"), np.arange(2))


def test_lists_of_other_sizes() -> None:
    fitted = KIND_ROWS["numbers of an image"].fit()
    assert list(fitted.apply(np.zeros((2, 7))).problems) == [0, 1]
    fitted = KIND_ROWS["numbers of steps"].fit()
    assert list(fitted.apply(list_column([[1, 2, 3]], [[1, 2]], [[1], [1, 2]])).problems) == [0, 2]
