"""The number of a sweep's jobs: counted before they are listed, limited, never none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import dlspec as dlspec_package
from dlspec.compat.hydra import count_values, split_into_jobs
from dlspec.config.composition import start_hydra
from dlspec.errors import Code, SpecError, UserError
from dlspec.sweeps.hydra.job_count import check_job_count
from helpers.command_line import CommandResult

Run = Callable[..., CommandResult]
VALUES = [
    *("3", "a,b", "choice(1,2,3)", "range(5)", "range(2,9)", "range(0,10,3)", "range(10,0,-3)", "range(0,10,-1)"),
    *("range(0,1,0.1)", "range(0,0.3,0.1)", "range(1,0,-0.25)", "range(1,0,0.25)", "range(4,4)", "[1,2],[3]"),
    *("shuffle(range(7))", "sort(3,1,2)", "sort(range(10,0,-4))", "shuffle(a,b)", "float(range(3))", "tag(a,range(4))"),
]


@pytest.mark.parametrize("value", VALUES)
def test_values_are_counted_as_hydra_lists_them(value: str) -> None:
    overrides = OverridesParser.create().parse_overrides([f"seed={value}"])
    assert count_values(overrides[0]) == len(split_into_jobs(overrides))


def parse(*words: str) -> list:
    return OverridesParser.create(config_loader=start_hydra().config_loader).parse_overrides(list(words))


HUGE = [
    *("seed=range(1000000000)", "seed=shuffle(range(1000000000))", "seed=range(0,1,1e-9)", "seed=range(-9e300,9e300)"),
    f"seed=range({10**30})",
]


@pytest.mark.parametrize("word", HUGE)
def test_a_huge_range_is_refused_before_it_is_listed(word: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_job_count(parse(word), bool)
    assert [each.code for each in refused.value.problems] == [Code.TOO_LARGE]
    assert "DLSPEC_MAX_JOBS" in refused.value.problems[0].fix


def test_the_product_of_choices_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("seed=range(10)", "optimizer.lr=1,2,3", "model=cnn,mlp", "seed=range(5)")  # the last one of a key is used
    monkeypatch.setenv("DLSPEC_MAX_JOBS", "30")
    check_job_count(parse(*words), bool)
    monkeypatch.setenv("DLSPEC_MAX_JOBS", "29")
    with pytest.raises(SpecError, match="the sweep has 30 jobs, at most 29 are allowed"):
        check_job_count(parse(*words), bool)


@pytest.mark.parametrize("word", ["seed=glob(*)", "model=glob(zzz*)", "seed=range(5,5)", "seed=range(0,5,-1)"])
def test_a_sweep_without_jobs_is_refused(word: str, dlspec: Run) -> None:
    refused = dlspec("-m", word)
    assert (refused.code, refused.out) == (2, "")
    assert "no value to sweep over" in refused.err


def test_on_the_command_line_and_in_python(dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = dlspec("-m", "seed=range(1000000000)", "hydra.sweep.dir=sweep")
    assert refused.code == 2
    assert "the sweep has 1,000,000,000 jobs, at most 100,000 are allowed" in refused.err
    with pytest.raises(UserError, match="DLSPEC_MAX_JOBS"):
        dlspec_package.sweep({"model": "linear"}, {"seed": range(10**6), "optimizer.lr": [0.1, 0.2]})
