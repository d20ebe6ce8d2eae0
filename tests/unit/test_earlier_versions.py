"""Runs and a sweep that version 0.1.0 wrote are loaded, repeated, resumed and reported as that version would have."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import dlspec as package

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1_0"
WANTED: Mapping[str, Any] = json.loads((FIXTURES / "wanted.json").read_text(encoding="utf-8"))


@pytest.fixture
def runs(work: Path) -> Path:
    """The working directory, with the folders that version 0.1.0 left."""
    with tarfile.open(FIXTURES / "runs.tar.gz") as archive:
        archive.extractall(work, filter="data")
    return work


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def check_results(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Compare with what version 0.1.0 came to; the last digits are another machine's."""
    rows: Sequence[Mapping[str, Any]] = wanted["metrics"]
    assert [row["step"] for row in metrics_of(folder)] == [row["step"] for row in rows]
    for found, row in zip(metrics_of(folder), rows, strict=True):
        assert found == pytest.approx(row, rel=1e-3)
    assert result_of(folder)["test"] == pytest.approx(wanted["test"], rel=1e-3)


def test_the_fixtures_are_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) < 100_000


def test_a_finished_run_is_loaded(runs: Path) -> None:
    network, wanted = package.load("finished"), WANTED["finished"]
    weights = load_file(runs / "finished/checkpoints/best.safetensors")
    assert network.state_dict().keys() == weights.keys()
    assert all(torch.equal(each, weights[name]) for name, each in network.state_dict().items())
    with torch.no_grad():
        outputs = network(torch.tensor(wanted["tokens"]))
    torch.testing.assert_close(outputs, torch.tensor(wanted["outputs"]), rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_repeated(runs: Path, dlspec) -> None:
    said = dlspec("run=finished", "hydra.run.dir=again")
    assert (said.code, said.err) == (0, "")
    check_results(runs / "again", WANTED["finished"])
    kept, again = (yaml.safe_load((runs / name / "spec.yaml").read_text()) for name in ("finished", "again"))
    for metric in kept["metrics"].values():
        for name in ("average", "threshold", "top_k"):
            metric.pop(name, None)  # defaults without effect, which are no longer saved
    added = {"trainer": {"sampling": None, "parallel": "auto", "steps_per_call": "auto"}, "data": {"augment": None}}
    for section, settings in added.items():  # since then
        assert {name: again[section].pop(name) for name in settings} == settings
    assert again == kept


def test_a_cut_run_is_resumed(runs: Path, dlspec) -> None:
    said = dlspec("resume", "run=cut")
    assert said.code == 0, said.err
    check_results(runs / "cut", WANTED["cut"])


def test_a_failed_run_is_resumed_and_fails_again(runs: Path, dlspec) -> None:
    before = json.loads((runs / "failed/result.json").read_text())
    said = dlspec("resume", "run=failed")
    assert said.code == 1
    where = before["error"].partition(":")[0]  # the wording of the reason has changed since
    assert f"{where}: " in said.err


def test_a_cut_sweep_is_resumed(runs: Path, dlspec) -> None:
    done = [runs / f"sweep/{job}/metrics.jsonl" for job in (0, 1)]
    before = [path.stat().st_mtime_ns for path in done]
    said = dlspec("resume", "sweep=sweep")
    assert said.code == 0, said.err
    assert said.out.startswith("2 of 4 jobs are done already\n")
    assert said.out.rstrip().splitlines()[-1] == "4 jobs: 4 finished"
    assert [path.stat().st_mtime_ns for path in done] == before
    for job, wanted in WANTED["sweep"].items():
        check_results(runs / "sweep" / job, wanted)


def test_they_are_reported(runs: Path, dlspec) -> None:
    said = dlspec("report", ".")
    assert (said.code, said.err) == (0, "")
    assert "6 runs: 3 finished, 2 interrupted, 1 failed" in said.out
    rows = {row["run"]: row for row in package.results(".").rows()}
    finished = {"finished": WANTED["finished"], "sweep/0": WANTED["sweep"]["0"], "sweep/1": WANTED["sweep"]["1"]}
    assert {name for name, row in rows.items() if row["status"] == "finished"} == finished.keys()
    for name, wanted in finished.items():
        assert rows[name]["test/loss"] == pytest.approx(wanted["test"]["test/loss"], rel=1e-3)


def test_their_status_and_differences_are_shown(runs: Path, dlspec) -> None:
    said = dlspec("status", ".")
    assert (said.code, said.err) == (0, "")
    assert "6 runs: 1 failed, 3 finished, 2 interrupted" in said.out
    said = dlspec("compare", "finished", "cut")
    assert (said.code, said.err) == (0, "")
    assert "  {embedding: 4, hidden_size: 4}  " in said.out


def test_the_classes_that_old_files_name_can_be_imported(runs: Path) -> None:
    config = yaml.safe_load((runs / "sweep/multirun.yaml").read_text(encoding="utf-8"))["hydra"]
    for path in (
        config["launcher"]["_target_"],
        config["sweeper"]["_target_"],
        "dlspec.data.alphabet.Alphabet",
    ):
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)


def test_the_public_names_are_there() -> None:
    names = "data_source build layer load loss optimizer results resume scheduler sweep train".split()
    assert all(callable(getattr(package, name)) for name in names)
