"""Lines that say how far something is: only where it takes long, and gone at the end."""

from __future__ import annotations

import pytest

from dlspec import progress_lines
from dlspec.progress_lines import follow_progress


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(follow_progress(iter("abc"), 3, "reading images")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_long_work_shows_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "SECONDS_BEFORE_FIRST", 0)
    assert list(follow_progress(iter("abc"), 3, "reading images")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "reading images: 1 of 3\n"  # and the next line half a minute later
