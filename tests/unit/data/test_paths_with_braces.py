"""Paths with braces: what can be divided in two ways is noted, and images are not read as texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlspec.data.sources.file_rows import FileSource
from dlspec.data.tables.brace_pattern import parse_braces
from dlspec.data.tables.file_pattern import list_files
from dlspec.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{a}_{b}.jpg", "american_bulldog_1.jpg"), ("{a}_{b}_{c}", "1_2_3_4_5"), ("{a}-{b}", "a--b"),
        ("{a}.{b}", "x"), ("x{a}_{b}", "x_1_2"), ("{a}_{a}", "1_1"), ("{a}_{b}", "a_b"), ("{a}", "a"),
    ],
)  # fmt: skip
def test_the_other_way_is_that_of_a_greedy_expression(pattern: str, text: str) -> None:
    names = re.findall(r"\{(\w)\}", pattern)
    expression = re.sub(r"\\{(\w)\\}", r"(.+)", re.escape(pattern))
    found = re.fullmatch(expression, text)
    caught = found and dict(zip(names, found.groups(), strict=True))
    if len(set(names)) == len(names):
        assert parse_braces(pattern, "path").match_from_right(text) == caught


def test_the_note_shows_both_ways(tmp_path: Path) -> None:
    for name in ("Persian_1.jpg", "american_bulldog_1.jpg"):
        (tmp_path / name).write_bytes(b"")
    _, notes = list_files(f"{tmp_path}/{{breed}}_{{number}}.jpg")
    expected = (
        "the path is read from the left: breed of 'american_bulldog_1.jpg' is 'american', and not 'american_bulldog'"
    )
    assert expected in notes.describe()
    assert not list_files(f"{tmp_path}/{{name}}.jpg")[1].ambiguous_name


def test_images_are_not_read_as_texts(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"cat_{number}.jpg").write_bytes(b"\xff\xd8")
    source = FileSource.model_validate({"path": f"{tmp_path}/{{label}}_{{n}}.jpg", "target": "label"})
    with pytest.raises(DataError, match=r"'data.columns=\{image: \{image: \{size: 64\}\}\}'"):
        source.open()
