"""Processes that divide the parameters among them: the weights are those of one process that accumulates batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlspec.runs.io import read_json_lines
from helpers.command_line import run_in_this_process
from helpers.divided_runs import RUNS, SHORT, list_words, write_data
from helpers.rank_runs import run_ranks, train_together

pytestmark = pytest.mark.soak  # three starts of torchrun
FSDP = "trainer.parallel=fsdp"
# PyTorch's fused kernel rounds the last numbers of a tensor in another way, and each process has other last ones.
EXACT = "optimizer.fused=false"
# The run that is also stopped and resumed, with blocks and tied weights.
RESUMED = "gpt_small"
FURTHER_WORDS = {RESUMED: ("trainer.average=EMA", "trainer.checkpoint_steps=4")}


def list_exact_words(name: str, parts: int) -> list[str]:
    return [*list_words(name, parts), *FURTHER_WORDS.get(name, ()), EXACT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("sharded")
    write_data(work)
    words = [*list_exact_words(RESUMED, 1), FSDP]
    train_together(work, 2, {RESUMED: words, "stopped": words}, stops={"stopped": 6})
    return work


def test_two_ranks_equal_accumulated_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    check_one_process(RESUMED)


def test_more_runs_equal_accumulated_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    others = [each for each in RUNS if each != RESUMED]
    train_together(tmp_path, 2, {name: [*list_exact_words(name, 1), FSDP] for name in others})
    for name in others:
        check_one_process(name)


def check_one_process(name: str) -> None:
    """Train a run of two processes in one, with accumulated batches, and compare."""
    done = run_in_this_process(*list_exact_words(name, 2), f"hydra.run.dir={name}_alone")
    assert done.code == 0, done.err
    folders = Path(name), Path(f"{name}_alone")
    two, one = (load_last(each) for each in folders)
    assert two.keys() == one.keys()
    if name == "mlp":  # the norm of all gradients is added up in another order
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
        return
    assert [key for key, each in two.items() if not each.equal(one[key])] == []
    rows, others = (read_json_lines(each / "metrics.jsonl") for each in folders)
    assert all(row == pytest.approx(other, rel=1e-6) for row, other in zip(rows, others, strict=True))
    results = [json.loads((each / "result.json").read_text())["test"] for each in folders]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def load_last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last.safetensors")


def test_a_stopped_run_goes_on_to_the_same_bits(folder: Path) -> None:
    stopped, straight = (load_last(folder / each) for each in ("stopped", RESUMED))
    assert [key for key, each in stopped.items() if not each.equal(straight[key])] == []
    assert (folder / "stopped/metrics.jsonl").read_text() == (folder / RESUMED / "metrics.jsonl").read_text()
    parts = sorted(each.name for each in (folder / "stopped_stopped/checkpoints/step-000000007.shards").iterdir())
    assert parts == [f"shard-0000{number}-model-00001-of-00001.safetensors" for number in (1, 2)]


def test_one_process_resumes_a_divided_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shutil.copytree("stopped_stopped", "alone")
    done = run_in_this_process("resume", "run=alone", "trainer.parallel=none")
    assert done.code == 0, done.err
    straight = load_last(folder / RESUMED)
    for key, each in load_last(folder / "alone").items():
        torch.testing.assert_close(each, straight[key], rtol=1e-6, atol=1e-6)


def test_any_number_of_processes_resumes_a_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64: the gradient of the keys' bias is 0 but for rounding, which Adam would magnify to whole steps."""
    monkeypatch.chdir(tmp_path)
    size = [f"model.params.{name}={value}" for name, value in {"patch": 4, "width": 16, "depth": 2, "heads": 2}.items()]
    words = [*SHORT, "model=vit", *size, "data=digits", "optimizer=Adam", "trainer.precision=64", "trainer.epochs=2",
             "trainer.batch_size=16", "trainer.limit_batches=8", FSDP]  # fmt: skip
    train_together(tmp_path, 2, {"vit": words, "cut": words}, stops={"cut": 5})
    shutil.copytree("cut_stopped", "alone")
    done = run_in_this_process("resume", "run=alone", "trainer.parallel=none")
    assert done.code == 0, done.err
    shutil.copytree("cut_stopped", "three")
    three = run_ranks(tmp_path, 3, "resume", "run=three")
    assert three.returncode == 0, three.stderr
    straight = load_last(Path("vit"))
    for name in ("cut", "alone", "three"):
        torch.testing.assert_close(load_last(Path(name)), straight, rtol=0, atol=1e-12)


def test_changed_parts_are_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    shutil.copytree("stopped_stopped", "changed")
    part = next(Path("changed/checkpoints/step-000000007.shards").iterdir())
    part.write_bytes(part.read_bytes()[:-4] + b"1234")
    done = run_in_this_process("resume", "run=changed", "trainer.parallel=none")
    assert f"step-000000007.shards/{part.name} is missing or was changed" in caplog.text
    assert "from step 4" in done.err
