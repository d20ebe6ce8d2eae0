"""Processes that train together: the weights and results are those of one process that accumulates their batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers.command_line import run_in_this_process
from helpers.divided_runs import RUNS, list_words, write_data
from helpers.rank_runs import train_together

LONG = ("cnn", "gpt_small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("ranks")
    write_data(work)
    runs = {name: list_words(name, 1) for name in RUNS if name not in LONG}
    train_together(work, 2, runs, by_torchrun=True)
    return work


@pytest.fixture(scope="module")
def long_folder(folder: Path) -> Path:
    train_together(folder, 2, {name: list_words(name, 1) for name in LONG})
    return folder


@pytest.mark.soak
@pytest.mark.parametrize("name", LONG)
def test_larger_networks_equal_accumulated_batches(
    name: str, long_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_accumulated_batches(name, long_folder, monkeypatch)


@pytest.mark.parametrize("name", [each for each in RUNS if each not in LONG])
def test_two_ranks_equal_accumulated_batches(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_accumulated_batches(name, folder, monkeypatch)


def check_accumulated_batches(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = run_in_this_process(*list_words(name, 2), f"hydra.run.dir={name}_alone")
    assert done.code == 0, done.err
    assert (folder / name / "metrics.jsonl").read_text() == (folder / f"{name}_alone/metrics.jsonl").read_text()
    for file in ("last", "best"):
        two, one = (load_file(folder / each / f"checkpoints/{file}.safetensors") for each in (name, f"{name}_alone"))
        assert two.keys() == one.keys()
        assert [key for key, each in two.items() if not each.equal(one[key])] == []
    two, one = (json.loads((folder / each / "result.json").read_text()) for each in (name, f"{name}_alone"))
    assert two["test"] == one["test"]


def test_a_step_makes_one_call_with_all_gradients(folder: Path) -> None:
    tensors = load_file(folder / "mlp/checkpoints/last.safetensors").values()
    calls, sent = json.loads((folder / "mlp/calls.json").read_text())
    steps, flags, evaluations = 2 * 9, 5, 2 * 3 + 6  # 3 batches of validation in each epoch, 6 of the test
    assert calls == steps + evaluations
    assert sent == 4 * (steps * (sum(each.numel() + 1 for each in tensors) + flags) + evaluations * flags)


def test_the_other_process_writes_only_a_log(folder: Path) -> None:
    assert "computing on cpu" in (folder / "mlp/log.rank1.txt").read_text()
    environment = json.loads((folder / "mlp/environment.json").read_text())
    assert environment["processes"] == 2
