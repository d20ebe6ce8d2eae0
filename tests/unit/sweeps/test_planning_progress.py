"""Checking the specs of many jobs shows how far it is, and short checks show nothing."""

from __future__ import annotations

import pytest

from dlspec import progress_lines
from dlspec.sweeps import planning_progress
from dlspec.sweeps.planning_progress import PlanningProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(planning_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress_lines, "SECONDS_BEFORE_FIRST", 2.0)
    return now


def test_a_long_check_tells_how_far_it_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlanningProgress(20_000)
    for done, seconds in ((100, 1.0), (500, 5.0), (600, 6.0), (4_000, 40.0), (20_000, 200.0)):
        clock[0] = 100.0 + seconds
        progress.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "checked the specs of 500 of 20,000 jobs, 3:15 left",
        "checked the specs of 4,000 of 20,000 jobs, 2:40 left",
    ]


def test_a_short_check_tells_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlanningProgress(20)
    for done in range(1, 21):
        clock[0] += 0.05
        progress.update(done)
    assert capsys.readouterr().err == ""
