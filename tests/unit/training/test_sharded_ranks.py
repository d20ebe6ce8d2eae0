"""Processes that divide the parameters among them: the weights are those of one process that accumulates batches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlspec.runs.io import read_json_lines
from helpers.command_line import run_in_this_process
from helpers.divided_runs import RUNS, SHORT, list_words, write_data
from helpers.rank_runs import run_ranks, train_together

FSDP = "trainer.parallel=fsdp"
# PyTorch's fused kernel rounds the last numbers of a tensor in another way, and each process has other last ones.
EXACT = "optimizer.fused=false"
# Two runs are also stopped and resumed. The norm for clipping is added up in another order; the second one has blocks
# and tied weights.
SAVED = {
    "mlp": ("trainer.clip_grad_norm=null", "trainer.checkpoint_steps=4"),
    "gpt_small": ("trainer.average=EMA", "trainer.checkpoint_steps=4"),
}


def list_saved_words(name: str, parts: int) -> list[str]:
    return [*list_words(name, parts), *SAVED[name], EXACT]


@pytest.fixture(scope="module", params=["mlp", pytest.param("gpt_small", marks=pytest.mark.soak)])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp(f"sharded_{name}")
    write_data(work)
    words = [*list_saved_words(name, 1), FSDP]
    train_together(work, 2, {name: words, "stopped": words}, stops={"stopped": 6})
    return work


def test_two_ranks_equal_accumulated_batches(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    check_one_process(name, list_saved_words(name, 2))


@pytest.mark.soak
def test_more_runs_equal_accumulated_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    others = [each for each in RUNS if each != "gpt_small"]
    train_together(tmp_path, 2, {each: [*list_words(each, 1), EXACT, FSDP] for each in others})
    for each in others:
        check_one_process(each, [*list_words(each, 2), EXACT], is_exact=each != "mlp")


@pytest.mark.soak
def test_a_run_goes_on_with_parameters_that_are_divided_or_no_longer(tmp_path: Path) -> None:
    write_data(tmp_path)
    words = list_saved_words("gpt_small", 1)
    train_together(
        tmp_path,
        2,
        {"straight": words, "divided": words, "whole": [*words, FSDP]},
        stops={"divided": 6, "whole": 6},
        changes={"divided": [FSDP], "whole": ["trainer.parallel=ddp"]},
    )
    assert list((tmp_path / "divided/checkpoints").glob("*.shards"))
    straight = load_last(tmp_path / "straight")
    for each in ("divided", "whole"):
        check_equal(load_last(tmp_path / each), straight)
        assert (tmp_path / each / "metrics.jsonl").read_text() == (tmp_path / "straight/metrics.jsonl").read_text()


def check_one_process(name: str, words: Sequence[str], *, is_exact: bool = True) -> None:
    """Train a run of two processes in one, with accumulated batches, and compare."""
    done = run_in_this_process(*words, f"hydra.run.dir={name}_alone")
    assert done.code == 0, done.err
    folders = Path(name), Path(f"{name}_alone")
    two, one = (load_last(each) for each in folders)
    assert two.keys() == one.keys()
    if not is_exact:
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
        return
    check_equal(two, one)
    rows, others = (read_json_lines(each / "metrics.jsonl") for each in folders)
    assert all(row == pytest.approx(other, rel=1e-6) for row, other in zip(rows, others, strict=True))
    results = [json.loads((each / "result.json").read_text())["test"] for each in folders]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def check_equal(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert [key for key, each in weights.items() if not each.equal(expected[key])] == []


def load_last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last.safetensors")


def test_a_stopped_run_goes_on_to_the_same_bits(name: str, folder: Path) -> None:
    stopped, straight = (load_last(folder / each) for each in ("stopped", name))
    check_equal(stopped, straight)
    assert (folder / "stopped/metrics.jsonl").read_text() == (folder / name / "metrics.jsonl").read_text()
    parts = sorted(each.name for each in (folder / "stopped_stopped/checkpoints/step-000000007.shards").iterdir())
    assert parts == [f"shard-0000{number}-model-00001-of-00001.safetensors" for number in (1, 2)]


def test_one_process_resumes_a_divided_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shutil.copytree("stopped_stopped", "alone")
    done = run_in_this_process("resume", "run=alone", "trainer.parallel=none")
    assert done.code == 0, done.err
    straight = load_last(folder / name)
    for key, each in load_last(folder / "alone").items():
        torch.testing.assert_close(each, straight[key], rtol=1e-6, atol=1e-6)


@pytest.mark.soak
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
