"""Remembered sections of YAML give the bytes that PyYAML gives for the whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dlspec.compat.hydra import format_yaml
from dlspec.compat.pyyaml import SectionDumper
from helpers.paths import ROOT

dump_plainly = partial(yaml.dump, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True)

SHARED = [1, 2]
DAY = date(2026, 1, 2)
UNUSUAL: list[Any] = [
    {},
    {"a": {}},
    {"a": {"b": {}, "c": []}, "d": None},
    [{"a": 1}],
    "text",
    {"a": SHARED, "b": SHARED},
    {"a": {"b": DAY, "c": {"d": DAY}}},
    {"true": {"a": 1}, "1": {"b": 2}, 1: {"b": 2}},
    {True: {"b": 2}},
    {"a: b": {"c": 1}, "": {"d": ""}, "#": {"e": "#"}},
    {"k" * 200: {"l" * 200: {"m": "n " * 200}}, "two\nlines": {"x": "two\nlines\n\n"}},
    {"a": {"b": "two\nlines\n"}, "c": "\n"},
    {"ü": {"\u2028": "\x07", "emoji": "😀"}},
    {"number": {"like": "1e3", "octal": "0o7", "yes": "yes", "null": "null"}, "nan": {"x": float("nan"), "y": 1e-05}},
]


def read_configs() -> Iterator[Any]:
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        yield yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("values", [UNUSUAL, [*read_configs()]], ids=["unusual", "conf"])
def test_each_value_after_others(values: list[Any]) -> None:
    dumper = SectionDumper(dump_plainly)
    for value in [*values, *reversed(values)]:
        assert dumper.dump(value) == dump_plainly(value)


KEYS = st.one_of(st.sampled_from("abc"), st.text(max_size=3), st.integers(0, 1), st.booleans())
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.floats(), st.text(max_size=5))
MAPPINGS = st.dictionaries(
    KEYS, st.recursive(SCALARS, lambda each: st.lists(each, max_size=2) | st.dictionaries(KEYS, each, max_size=3))
)


@settings(max_examples=100, deadline=None)
@given(st.lists(MAPPINGS, max_size=4))
def test_any_values(values: list[Any]) -> None:
    dumper = SectionDumper(dump_plainly)
    for value in values:
        assert dumper.dump(value) == dump_plainly(value)


def test_only_what_differs_is_dumped_again() -> None:
    dumped: list[Any] = []

    def dump(value: Any) -> str:
        dumped.append(value)
        return str(dump_plainly(value))

    dumper = SectionDumper(dump)
    dumper.dump({"model": {"layers": [1]}, "optimizer": {"type": "Adam", "lr": 0.1}})
    dumped.clear()
    changed = {"model": {"layers": [1]}, "optimizer": {"type": "Adam", "lr": 0.2}}
    assert dumper.dump(changed) == dump_plainly(changed)
    assert dumped == [{"optimizer": {"lr": 0.2}}]


def test_a_name_that_is_not_utf8_after_one_that_is() -> None:
    assert format_yaml({"data": {"path": "ü"}}) == "data:\n  path: ü\n"
    assert format_yaml({"data": {"path": "\udcfc"}}) == 'data:\n  path: "\\uDCFC"\n'
