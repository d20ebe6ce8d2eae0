"""What a YAML file gives: values by YAML 1.2's core schema, the place of each, a refusal of all that is not plain."""

from __future__ import annotations

import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlspec.errors import SourceLocation, SpecError
from dlspec.language.yaml.event_reader import parse_scalar
from dlspec.language.yaml.yaml_files import load_yaml_file, load_yaml_text

SCALARS: list[tuple[str, Any]] = [
    ("1e-3", 0.001),
    ("1E3", 1000.0),
    ("1.", 1.0),
    (".5", 0.5),
    ("-0.5e-2", -0.005),
    ("+3", 3),
    ("0", 0),
    ("-7", -7),
    ("123456789012345678901234567890", 123456789012345678901234567890),
    ("1e3.5", "1e3.5"),
    ("e3", "e3"),
    (".", "."),
    ("+", "+"),
    ("on", "on"),
    ("off", "off"),
    ("yes", "yes"),
    ("No", "No"),
    ("y", "y"),
    ("3:30", "3:30"),
    ("0o17", "0o17"),
    ("0x1F", "0x1F"),
    ("017", "017"),
    ("1_000", "1_000"),
    ("2026-01-31", "2026-01-31"),
    ("=", "="),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("null", None),
    ("~", None),
    ("", None),
    ("NULL", None),
    ("None", "None"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("inf", "inf"),
    ("١", "١"),
    ("1" * 5000, "1" * 5000),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=lambda each: str(each)[:20])
def test_plain_scalars(text: str, value: Any) -> None:
    found = load_yaml_text(f"key: {text}", "f.yaml").tree["key"]
    assert (type(found), found) == (type(value), value) == (type(parse_scalar(text)), parse_scalar(text))


def test_not_a_number() -> None:
    assert math.isnan(parse_scalar(".nan"))


@given(st.integers() | st.floats(allow_nan=False))
def test_numbers_as_python_writes_them(number: float) -> None:
    written = repr(number).replace("inf", ".inf")
    assert (type(parse_scalar(written)), parse_scalar(written)) == (type(number), number)


VALUES: list[tuple[str, Any]] = [
    ("", None),
    ("# only a comment\n", None),
    ("a: '1'\nb: \"yes\"\nc: !!str 3", {"a": "1", "b": "yes", "c": "3"}),
    ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
    ("a: >\n  one\n  two\n", {"a": "one two\n"}),
    ("a:\r\n  - 1\r\n  - b\r\n", {"a": [1, "b"]}),
    ("1: a\ntrue: b\nnull: c\n1e-3: d\n", {"1": "a", "true": "b", "null": "c", "1e-3": "d"}),
    ("a: &x [1, {b: 2}]\nc: *x\n", {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}),
    ("a: &x 3\nb: *x\n", {"a": 3, "b": 3}),
    ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"c": 2, "b": 3}}),
    ("a: &x {b: 1}\nd: &y {b: 2, c: 3}\ne: {<<: [*x, *y]}", {"a": {"b": 1}, "d": {"b": 2, "c": 3},
     "e": {"b": 1, "c": 3}}),
    ("{a, b: 1}", {"a": None, "b": 1}),
    ("- - 1\n  - 2\n- {}\n- []", [[1, 2], {}, []]),
    ("---\na: 1\n...\n", {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tree"), VALUES)
def test_documents(text: str, tree: Any) -> None:
    assert load_yaml_text(text, "f.yaml").tree == tree


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes("\ufeffkey: ä\n".encode())
    document = load_yaml_file(tmp_path / "f.yaml", "f.yaml")
    assert document.tree == {"key": "ä"}
    assert (document.keys[("key",)].column, document.keys[("key",)].text) == (1, "key: ä")


PLACES = """\
# a comment
top:
  - Conv2d: {out_channels: 32, "kernel size": [3, 'ö']}
  - name
  - text: |
      several
      lines
    next: 1
last: "a \\
  b"
ω: wide
"""


def test_places_of_keys_and_values() -> None:
    document = load_yaml_text(PLACES, "f.yaml")
    conv = ("top", 0, "Conv2d")
    keys = {
        ("top",): (2, 1, 3),
        ("top", 0): (3, 5, 1),
        conv: (3, 5, 6),
        (*conv, "out_channels"): (3, 14, 12),
        (*conv, "kernel size"): (3, 32, 13),
        (*conv, "kernel size", 1): (3, 51, 3),
        ("top", 1): (4, 5, 4),
        ("top", 2, "next"): (8, 5, 4),
        ("last",): (9, 1, 4),
        ("ω",): (11, 1, 1),
    }
    values = {
        (): (2, 1, 1),
        conv: (3, 13, 1),
        (*conv, "out_channels"): (3, 28, 2),
        (*conv, "kernel size", 0): (3, 48, 1),
        ("top", 1): (4, 5, 4),
        ("top", 2, "text"): (5, 11, 1),
        ("top", 2, "next"): (8, 11, 1),
        ("last",): (9, 7, 1),
        ("ω",): (11, 4, 4),
    }
    assert {path: _spot(document.keys[path]) for path in keys} == keys
    assert {path: _spot(document.values[path]) for path in values} == values


def _spot(location: SourceLocation) -> tuple[int, int, int]:
    return location.line, location.column, location.width


def test_what_an_alias_brings_stands_where_the_alias_does() -> None:
    document = load_yaml_text("a: &x {b: 1}\nc: *x\n", "f.yaml")
    assert ("c", "b") not in document.keys
    assert _spot(document.values[("c",)]) == (2, 4, 2)


TAG = "remove the tag, or put quotes around text that begins with !"
REFUSED: dict[str, tuple[str, str]] = {
    "a key twice": (
        "a: 1\nb: 2\na: 3",
        "f.yaml:3:1   duplicate key 'a'   it is already in line 1: keep one of the two\n    a: 3\n    ^",
    ),
    "a key twice, once quoted": (
        "{a: 1, 'a': 2}",
        "f.yaml:1:8   duplicate key 'a'   it is already in line 1: keep one of the two\n"
        "    {a: 1, 'a': 2}\n           ^^^",
    ),
    "a number twice": (
        "{1: 1, 1: 2}",
        "f.yaml:1:8   duplicate key '1'   it is already in line 1: keep one of the two\n    {1: 1, 1: 2}\n           ^",
    ),
    "a tag": (
        "a: !mine 3",
        f"f.yaml:1:4   YAML tags are not allowed: '!mine'   {TAG}\n    a: !mine 3\n       ^^^^^^^",
    ),
    "a tag on a list": (
        "a: !!set {b}",
        f"f.yaml:1:4   YAML tags are not allowed: '!!set'   {TAG}\n    a: !!set {{b}}\n       ^^^^^^^",
    ),
    "an alias as a key": (
        "a: &x b\n*x : 3",
        "f.yaml:2:1   an alias is used as a key   write the key itself\n    *x : 3\n    ^^",
    ),
    "an anchor within itself": (
        "a: &x [*x]",
        "f.yaml:1:8   no anchor '&x' is defined above this alias"
        "   write &x before the value it names, or put quotes around text that begins with *"
        "\n    a: &x [*x]\n           ^^",
    ),
    "merging a text": (
        "{<<: a}",
        "f.yaml:1:6   '<<' can merge only mappings   write <<: *NAME\n    {<<: a}\n         ^",
    ),
    "a strange character": ("a: b\nc: \x07", "f.yaml:2:4   a character that YAML does not allow ('\\x07')   remove it"),
    "a strange character behind wide ones": (
        "ä: ω\x1f",
        "f.yaml:1:5   a character that YAML does not allow ('\\x1f')   remove it",
    ),
    "a tab in front": (
        "a:\n\tb: 1",
        "f.yaml:2:1   a tab in the indentation   indent with spaces only\n    \tb: 1\n    ^",
    ),
    "a second document": (
        "a: 1\n---\nb: 2",
        "f.yaml:2:1   a second YAML document starts here ('---')   write one document per file\n    ---\n    ^^^",
    ),
    "a missing colon": (
        "- Conv2d\n    out_channels: 3",
        "f.yaml:1:3   missing ':' after 'Conv2d', which has keys below it   write 'Conv2d:'\n"
        "    - Conv2d\n      ^^^^^^",
    ),
    "a bracket too many": (
        "a: [1]]",
        "f.yaml:1:7   an extra ']'   remove it\n    a: [1]]\n          ^",
    ),
    "nested too deep": (
        "[" * 101,
        "f.yaml:1:101   nested more than 100 levels deep   use blocks or fewer levels; "
        f"to raise the limit, set the environment variable DLSPEC_MAX_NESTING\n    {'[' * 101}\n    {' ' * 100}^",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        load_yaml_text(text, "f.yaml")
    assert str(caught.value) == f"{said}\n1 problem; nothing was run."


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE: dict[str, tuple[str, str]] = {
    "an alias bomb": (
        _bomb(9),
        "f.yaml   more than 10,000 values (including those repeated by aliases)   make the file smaller",
    ),
    "a merge bomb": (
        "a0: &a0 {k: 1}\n" + "\n".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 40)),
        "f.yaml   more than 10,000 values (including those repeated by aliases)   make the file smaller",
    ),
    "brackets without end": ("[" * 10_000, "nested more than 100 levels deep"),
    "mappings without end": ("{a: " * 10_000, "nested more than 100 levels deep"),
    "lists in lists": ("- " * 10_000, "nested more than 100 levels deep"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused_without_using_memory(case: str) -> None:
    text, said = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(SpecError) as caught:
            load_yaml_text(text, "f.yaml")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said in str(caught.value)
    assert peak < 100_000_000


def test_too_many_values() -> None:
    with pytest.raises(SpecError, match=r"more than 10,000 values"):
        load_yaml_text("- 1\n" * 10_000, "f.yaml")


def test_what_is_counted_once_is_counted_once() -> None:
    text = "a: {b: {c: {d: {e: [" + ", ".join(["1"] * 9_000) + "]}}}}"
    assert len(load_yaml_text(text, "f.yaml").tree["a"]["b"]["c"]["d"]["e"]) == 9_000


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "f.yaml").open("wb") as file:
        file.truncate(100_000_000)
    said = (
        "f.yaml   the file has 100,000,000 bytes   at most 1,000,000 are allowed; "
        "to raise the limit, set the environment variable DLSPEC_MAX_FILE_BYTES\n1 problem; nothing was run."
    )
    with pytest.raises(SpecError) as caught:
        load_yaml_file(tmp_path / "f.yaml", "f.yaml")
    assert str(caught.value) == said


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: ä".encode("latin-1"))
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")  # whoever opens it waits
    said = {
        "latin": "latin.yaml   not UTF-8 (byte 3)   save the file as UTF-8",
        "folder": "folder.yaml   the file can't be read: Is a directory",
        "pipe": "pipe.yaml   the file can't be read: it is not a regular file",
        "none": "none.yaml   the file can't be read: No such file or directory",
    }
    for name, text in said.items():
        with pytest.raises(SpecError) as caught:
            load_yaml_file(tmp_path / f"{name}.yaml", f"{name}.yaml")
        assert str(caught.value) == f"{text}\n1 problem; nothing was run."


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("{}[]:,-&*!|>'\"#%@`\n\t ab<", max_size=60)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = load_yaml_text(text, "f.yaml")
    except SpecError as error:
        assert str(error).endswith("1 problem; nothing was run.")
    else:
        assert document.values or document.tree is None


def test_without_some_top_keys() -> None:
    document = load_yaml_text("a: {b: 1}\nc: [2]", "f.yaml").without_sections(["a"])
    assert set(document.keys) == {("c",), ("c", 0)}
    assert set(document.values) == {(), ("c",), ("c", 0)}
