"""The four spellings of a part give the same part, and what spells none is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.parse.part import ENTRY_KEYS, NO_VALUE, Part, parse_part
from dlspec.language.problems import Problems, format_path

PATH = ("model", "layers", 0)


def parsed(raw: Any, *, is_entry: bool = True) -> Part:
    problems = Problems()
    part = parse_part(raw, PATH, problems, kind="layer", is_entry=is_entry)
    assert not problems.found
    assert part is not None
    return part


def test_four_spellings() -> None:
    assert parsed("ReLU") == Part("ReLU", PATH, settings_path=PATH)
    assert parsed({"ReLU": None}) == Part("ReLU", PATH, settings_path=(*PATH, "ReLU"))
    assert parsed({"Linear": 10}) == Part("Linear", PATH, settings_path=(*PATH, "Linear"), value=10)
    named = parsed({"Linear": {"out_features": 10, "bias": False}})
    flat = parsed({"type": "Linear", "out_features": 10, "bias": False})
    assert (named.type, named.settings) == (flat.type, flat.settings) == ("Linear", {"out_features": 10, "bias": False})
    assert (named.path_of("bias"), flat.path_of("bias")) == ((*PATH, "Linear", "bias"), (*PATH, "bias"))
    assert (named.path_of("device"), flat.path_of("device")) == ((*PATH, "Linear"), PATH)


def test_an_entrys_keys_stand_beside_or_among() -> None:
    beside = parsed({"Linear": 10, "name": "head"})
    among = parsed({"Linear": {"out_features": 10, "name": "head"}})
    flat = parsed({"type": "Linear", "out_features": 10, "name": "head"})
    assert [dict(each.keys) for each in (beside, among, flat)] == [{"name": "head"}] * 3
    assert [each.path_of("name") for each in (beside, among, flat)] == [
        (*PATH, "name"),
        (*PATH, "Linear", "name"),
        (*PATH, "name"),
    ]
    assert parsed({"Linear": {"name": "head"}}, is_entry=False).settings == {"name": "head"}


NAMES = st.from_regex(r"[A-Z][A-Za-z0-9]{0,8}", fullmatch=True)
SETTING_NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in (*ENTRY_KEYS, "type")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
SETTINGS = st.dictionaries(SETTING_NAMES, VALUES, max_size=4)
KEYS = st.dictionaries(st.sampled_from(ENTRY_KEYS), st.text(max_size=4), max_size=3)


def dumped(part: Part, spelling: str) -> Any:
    if spelling == "flat":
        return {"type": part.type, **part.settings, **part.keys}
    if spelling == "beside":
        return {**part.keys, part.type: dict(part.settings)}
    return {part.type: {**part.keys, **part.settings}}


@given(NAMES, SETTINGS, KEYS, st.sampled_from(["flat", "beside", "among"]))
def test_parsing_undoes_dumping(name: str, settings: dict[str, Any], keys: dict[str, Any], spelling: str) -> None:
    written = Part(name, PATH, settings, keys=keys)
    read = parsed(dumped(written, spelling))
    assert (read.type, read.settings, read.keys, read.value) == (name, settings, keys, NO_VALUE)
    for key in settings:
        where = (name, key) if spelling != "flat" else (key,)
        assert read.path_of(key) == (*PATH, *where)


@given(NAMES, VALUES.filter(lambda value: value is not None and not isinstance(value, dict)))
def test_one_value(name: str, value: Any) -> None:
    read = parsed({name: value})
    assert (read.type, read.settings, read.value) == (name, {}, value)


REFUSED: list[tuple[Any, str, str, str]] = [
    (None, "model.layers.0", "missing layer", "write a layer's name, or NAME: {setting: value}"),
    ("", "model.layers.0", "'' is not a valid layer", "write a layer's name, or NAME: {setting: value}"),
    (3, "model.layers.0", "3 is not a valid layer", "write a layer's name, or NAME: {setting: value}"),
    (False, "model.layers.0", "false is not a valid layer", "write a layer's name, or NAME: {setting: value}"),
    ({}, "model.layers.0", "{} is not a valid layer", "write a layer's name, or NAME: {setting: value}"),
    (
        ["A", None],
        "model.layers.0",
        "[A, null] is not a valid layer",
        "write a layer's name, or NAME: {setting: value}",
    ),
    ("Linear(10)", "model.layers.0", "'Linear(10)' is not a valid layer name", "write 'Linear: 10'"),
    ("Linear(a=3)", "model.layers.0", "'Linear(a=3)' is not a valid layer name", "write 'Linear: {setting: value}'"),
    ("(x)", "model.layers.0", "'(x)' is not a valid layer name", "write a layer's name, or NAME: {setting: value}"),
    ({"type": 3}, "model.layers.0.type", "3 is not a valid layer name", "write a layer's name"),
    ({"type": None, "a": 1}, "model.layers.0.type", "null is not a valid layer name", "write a layer's name"),
    ({"name": "a"}, "model.layers.0", "missing layer name", "add a layer's name next to 'name'"),
    (
        {"Linear": 10, "bias": False},
        "model.layers.0.bias",
        "expected one layer name, got 2 keys: Linear, bias",
        "write it as a setting: Linear: {bias: ...}",
    ),
    (
        {"Linear": 10, "ReLU": None, "name": "a"},
        "model.layers.0.ReLU",
        "expected one layer name, got 2 keys: Linear, ReLU",
        "write one layer per entry: Linear in one, ReLU in the next",
    ),
    (
        {"Linear": {"name": "a"}, "name": "b"},
        "model.layers.0.Linear.name",
        "'name' is written both next to Linear and in its settings",
        "keep one",
    ),
    (UnknownValue("data.shape"), "model.layers.0", "${data.shape} is not a valid layer name", "write a layer's name"),
    (
        {"type": UnknownValue("data.x")},
        "model.layers.0.type",
        "${data.x} is not a valid layer name",
        "write a layer's name",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "path", "found", "fix"), REFUSED, ids=lambda each: str(each)[:30])
def test_refused(raw: Any, path: str, found: str, fix: str) -> None:
    problems = Problems()
    parse_part(raw, PATH, problems, kind="layer", is_entry=True)
    assert [(format_path(each.path), each.found, each.fix) for each in problems.found] == [(path, found, fix)]


def test_nothing_more_is_said_of_what_was_told() -> None:
    problems = Problems()
    assert parse_part(InvalidValue("x"), PATH, problems, kind="layer") is None
    assert parse_part({"type": InvalidValue("x")}, PATH, problems, kind="layer") is None
    assert not problems
