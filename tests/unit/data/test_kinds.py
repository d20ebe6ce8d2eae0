"""Every kind of column: fitted on training rows alone, saved and read back, the same as a module, inverted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlspec.data.images.image_array import FileArray
from dlspec.data.prepare.decoding import make_decoder
from dlspec.data.prepare.kinds import COLUMN_KINDS, TARGET_KINDS, FittedColumn, fitted_from_json, read_kind
from dlspec.data.prepare.kinds.kind import Encoded
from dlspec.data.prepare.kinds.user_kinds import UserKind
from dlspec.errors import Code, DataError
from helpers.kind_table import KIND_ROWS, TEXTS, KindRow, list_column, text_column

ROWS = pytest.mark.parametrize("name", KIND_ROWS)


def save(fitted: FittedColumn) -> Any:
    return json.loads(json.dumps(fitted.to_json(), allow_nan=False))


def encode(fitted: FittedColumn, column: NDArray[Any]) -> Encoded:
    """Encode a column, with all images that can be read in memory; zeros for the others."""
    encoded = fitted.apply(column)
    if not isinstance(encoded.values, FileArray):
        return encoded
    loaded, problems = encoded.values.load()
    values = loaded[:].numpy()
    values[list(problems)] = 0
    return replace(encoded, values=values, problems={**problems, **encoded.problems})


def assert_equal(found: Encoded, expected: Encoded) -> None:
    assert found.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.lengths is None) == (expected.lengths is None)
    if found.lengths is not None:
        np.testing.assert_array_equal(found.lengths, expected.lengths)
    assert (found.problems, found.notes) == (expected.problems, expected.notes)
    for key in ("dropped", "ignored"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))


def test_every_kind_has_a_row() -> None:
    for registry, is_target in ((COLUMN_KINDS, False), (TARGET_KINDS, True)):
        kinds = {type(row.kind) for row in KIND_ROWS.values() if row.is_target == is_target}
        assert kinds == {kind for kind in registry.values() if not issubclass(kind, UserKind)}


@ROWS
def test_statistics_come_from_training_rows_alone(name: str) -> None:
    row = KIND_ROWS[name]
    saved = save(row.fit())
    for shift in range(len(row.others)):
        others = row.replace_cells(lambda index, shift=shift: row.others[(index + shift) % len(row.others)])  # type: ignore[misc]
        assert save(row.fit(others)) == saved


@ROWS
def test_what_is_encoded_fits_its_description(name: str) -> None:
    row = KIND_ROWS[name]
    fitted = row.fit()
    encoded = encode(fitted, row.column)
    assert encoded.values.shape == (8, *fitted.shape)
    assert np.isfinite(encoded.values).all()
    if fitted.feature_names:
        assert len(fitted.feature_names) == fitted.shape[0] and len(set(fitted.feature_names)) == fitted.shape[0]
    if fitted.layout == "tokens" and not row.is_target:
        assert fitted.vocab_size is not None and 0 <= encoded.values.min() <= encoded.values.max() < fitted.vocab_size
    if encoded.lengths is not None:
        assert 1 <= encoded.lengths.min() <= encoded.lengths.max() <= fitted.shape[0]


@ROWS
def test_a_batch_is_encoded_row_by_row(name: str) -> None:
    row = KIND_ROWS[name]
    fitted = row.fit()
    whole = encode(fitted, row.column)
    for index in range(len(row.column)):
        single = encode(fitted, row.column[index : index + 1])
        np.testing.assert_array_equal(single.values[0], whole.values[index])


@ROWS
def test_no_rows_are_encoded_as_no_rows(name: str) -> None:
    fitted = KIND_ROWS[name].fit()
    assert encode(fitted, KIND_ROWS[name].column[:0]).values.shape == (0, *fitted.shape)


@ROWS
def test_a_module_computes_the_same(name: str) -> None:
    row = KIND_ROWS[name]
    fitted = row.fit()
    module = fitted.module()
    if module is None:
        assert row.is_target or fitted.layout == "tokens"
        return
    for column in (row.column, row.replace_cells(lambda index: row.others[index % len(row.others)])):
        encoded = encode(fitted, column)
        good = [index for index in range(len(column)) if index not in encoded.problems]
        if fitted.kind == "image":  # which reads only what can be read
            column = column[good]
            encoded, good = encode(fitted, column), list(range(len(column)))
        found = module(torch.from_numpy(fitted.read(column)))
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy()[good], encoded.values[good], rtol=1e-6, atol=1e-6)


# ---- saved and read back ---------------------------------------------------------------------------------------------


@ROWS
def test_saved_and_read_back(name: str) -> None:
    row = KIND_ROWS[name]
    fitted = row.fit()
    again = fitted_from_json(save(fitted))
    assert again.to_json() == fitted.to_json()
    others = row.replace_cells(lambda index: row.others[index % len(row.others)])
    for column in (row.column, others):
        assert_equal(encode(again, column), encode(fitted, column))


NUMBER_CELLS = st.one_of(st.none(), st.floats(-1e30, 1e30).map(repr), st.integers(-(10**9), 10**9).map(str))
WORD_CELLS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
DATE_CELLS = st.one_of(st.none(), st.datetimes().map(lambda date: date.isoformat()))
CELLS: dict[str, tuple[Any, bool, st.SearchStrategy[Any]]] = {
    **{f"number {scale}": ({"number": {"scale": scale}}, False, NUMBER_CELLS)
       for scale in ("standard", "quantile", "log", "minmax", "none")},
    "category": ({"category": {"hash": 5, "max_values": 3}}, False, WORD_CELLS),
    "date": ("date", False, DATE_CELLS),
    **{f"text {name}": ({"text": {"tokenizer": name, "max_length": 6}}, False, WORD_CELLS)
       for name in ("words", "characters", "bytes", "given")},
    "numbers": ("numbers", False, st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=4)),
    "class": ({"class": {"classes": {"a": "x", "*": "y"}, "missing": "drop"}}, True, WORD_CELLS),
    "value": ({"value": {"scale": "quantile", "missing": "drop"}}, True, NUMBER_CELLS),
    "labels": ({"labels": {"classes": ["a", "b"]}}, True, WORD_CELLS),
    "tags": ({"tags": {"classes": {"a": "x", "*": "y"}}}, True, WORD_CELLS),
    "text to write": ({"text": {"max_length": 3}}, True, WORD_CELLS),
    "numbers to predict": ("numbers", True, st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
@settings(max_examples=25, deadline=None, database=None)
@given(data=st.data())
def test_any_cells_are_saved_and_read_back(name: str, data: st.DataObject) -> None:
    written, is_target, cells = CELLS[name]
    drawn = data.draw(st.lists(cells, min_size=2, max_size=12))
    column = list_column(*drawn) if name.startswith("numbers") else text_column(*drawn)
    try:
        kind = read_kind(written, TARGET_KINDS if is_target else COLUMN_KINDS, "columns.a")
        fitted = kind.fit(column, np.arange(len(column) // 2), name="a")
    except DataError as error:
        assert error.finding.code in (Code.BAD_DATA, Code.WRONG_VALUE)
        return
    encoded = fitted.apply(column)
    assert np.isfinite(encoded.values).all()
    assert_equal(fitted_from_json(save(fitted)).apply(column), encoded)


JUNK = (
    None,
    True,
    -1,
    0,
    10**30,
    1e300,
    "x",
    "",
    [],
    [[]],
    {},
    {"kind": "linear"},
    "\ud800",
    ["a", "a"],
    [True],
    [1e400],
)


def replace_values(saved: Any, junk: object) -> Iterator[Any]:
    """Every version of a JSON value in which one value, at any depth, is another."""
    yield junk
    items = saved.items() if isinstance(saved, dict) else list(enumerate(saved))[:3] if isinstance(saved, list) else ()
    for key, value in items:
        for other in replace_values(value, junk):
            changed = dict(saved) if isinstance(saved, dict) else list(saved)
            changed[key] = other
            yield changed


@ROWS
def test_a_damaged_file_is_an_error_or_still_encodes(name: str) -> None:
    row = KIND_ROWS[name]
    saved = save(row.fit())
    refused = 0
    for junk in JUNK:
        for changed in replace_values(saved, junk):
            try:
                fitted = fitted_from_json(changed)
            except DataError:
                refused += 1
                continue
            with np.errstate(all="ignore"):
                encode(fitted, row.column)
    assert refused > len(JUNK)


def test_a_missing_or_additional_key_is_damage() -> None:
    saved = save(KIND_ROWS["number standard"].fit())
    for changed in (
        {**saved, "more": 1},
        {key: each for key, each in saved.items() if key != "fill"},
        {**saved, "kind": "nmber"},
    ):
        with pytest.raises(DataError, match="the saved preparation can't be used"):
            fitted_from_json(changed)


# ---- targets are inverted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in KIND_ROWS if name.startswith("value")])
def test_values_are_reported_in_their_own_unit(name: str) -> None:
    row = KIND_ROWS[name]
    fitted = row.fit()
    known = [index for index, cell in enumerate(row.column) if cell is not None and index < 6]
    own = np.array([float(row.column[index]) for index in known])
    expected = np.minimum(own, 3) if name == "value clipped" else own
    np.testing.assert_allclose(fitted.invert(fitted.apply(row.column).values[known]), expected, rtol=1e-5)


def test_classes_labels_and_tags_are_named() -> None:
    for name, expected in (
        ("class", ["no", "yes", "no", "no", "yes", "no", "yes", "no"]),
        ("class of numbers", ["1", "3", "2", "10", "2", "1", "3", "10"]),
        ("class mapped", ["warm", "cold", "warm", None, "cold", "warm", "cold", "cold"]),
    ):
        fitted = KIND_ROWS[name].fit()
        assert fitted.invert(fitted.apply(KIND_ROWS[name].column).values).tolist() == expected
    labels = KIND_ROWS["labels"].fit()
    assert labels.invert(labels.apply(KIND_ROWS["labels"].column).values).tolist()[4:7] == [
        ["a", "c"],
        ["b"],
        ["b", "c"],
    ]
    tags = KIND_ROWS["tags"].fit()
    assert tags.invert(tags.apply(KIND_ROWS["tags"].column).values).tolist()[0] == ["O", "B", "I"]


def test_written_texts_end() -> None:
    row = KIND_ROWS["text to write"]
    fitted = row.fit()
    encoded = fitted.apply(row.column)
    assert fitted.invert(encoded.values).tolist()[:2] == ["Free money now !", "hello you"]
    assert encoded.lengths is not None and encoded.lengths.tolist() == [5, 3, 1, 6, 2, 4, 3, 3]
    assert encoded.values[1].tolist()[2:4] == [2, 0] and encoded.ignored.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("text words", "hello you … …"), ("text characters", "hello you"), ("text bytes", "hello you"),
     ("text bpe", "hello you"), ("text given", "hello you … …"), ("text to write", "hello you"),
     ("characters to write", "hello you")],
)  # fmt: skip
def test_texts_are_decoded(name: str, expected: str) -> None:
    fitted = KIND_ROWS[name].fit()
    decoder = make_decoder(save(fitted))
    assert decoder is not None
    encoded = fitted.apply(TEXTS)
    assert encoded.lengths is not None
    steps = fitted.shape[0] if expected.endswith("…") else int(encoded.lengths[1])
    assert decoder.decode(encoded.values[1].tolist()[:steps])[: len(expected)] == expected
    assert make_decoder(save(KIND_ROWS["number log"].fit())) is None


def test_a_list_of_numbers_is_reported_in_its_own_unit() -> None:
    row = KindRow(
        {"numbers": {"missing": "drop"}},
        list_column([1, 2], [3, 5], None, [5, 1], [0, 0], [9, 9], [4, 4], [2, 2]),
        (),
        True,
    )
    fitted = row.fit()
    np.testing.assert_allclose(
        fitted.invert(fitted.apply(row.column).values)[[0, 1, 6]], [[1, 2], [3, 5], [4, 4]], rtol=1e-6
    )


def test_math_of_the_table() -> None:
    """The rows really have what they are named for."""
    assert KIND_ROWS["number standard"].fit().feature_names == ("value", "missing")
    assert KIND_ROWS["number without gaps"].fit().feature_names == ("value",)
    assert KIND_ROWS["date"].fit().feature_names[-1] == "missing"
    assert "hour sin" not in KIND_ROWS["date"].fit().feature_names
    assert "hour sin" in KIND_ROWS["date with times"].fit().feature_names
    assert KIND_ROWS["numbers of an image"].fit().layout == "channels-first"
    assert KIND_ROWS["numbers ragged"].fit().shape == (4, 1)
    assert math.prod(KIND_ROWS["text bpe"].fit().shape) > 0
