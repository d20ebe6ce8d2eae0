"""A run that was cut anywhere and resumed equals the one that was never stopped, to the last bit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dlspec.jobs.resumed_settings import find_content_change
from dlspec.training.checkpoint.checkpoint_files import (
    DamagedCheckpoint,
    Snapshot,
    list_checkpoints,
    read_checkpoint,
    read_newest_checkpoint,
)
from dlspec.training.checkpoint.nested_state import EpochResults, flatten_state, unflatten_state
from helpers.command_line import MAX_WAIT_SECONDS, QUIET, CommandResult, wait_until
from helpers.interrupted_runs import MODELS, SHORT_RUN, StopAfterBatches, read_run_files, start_dlspec

RUNS: dict[str, tuple[str, ...]] = {
    "mlp": ("model=mlp",),
    "cnn": ("model=cnn", "optimizer=SGD", "optimizer.momentum=0.9"),
    "text_lstm": ("model=text_lstm", "data=text_csv", "data.path=texts.csv", "data.max_length=12"),
    "dropout": ("model=dropout", "metrics=[AUROC,Accuracy]"),
    "batch norm": ("model=norm", "optimizer=AdamW"),
    "step schedule": ("model=mlp", "scheduler=OneCycleLR", "scheduler.max_lr=1e-2"),
    "warm-up": ("model=mlp", "scheduler=CosineAnnealingLR", "scheduler.warmup=20"),
    "warm-up of steps": ("model=mlp", "scheduler=CosineAnnealingLR", "scheduler.warmup=20", "scheduler.interval=step"),
    "warm-up of a plateau": ("model=mlp", "scheduler=ReduceLROnPlateau", "scheduler.patience=0", "scheduler.warmup=20"),
    "milestones": ("model=mlp", "scheduler=MultiStepLR", "scheduler.milestones=[1,2]"),
    "plateau": ("model=mlp", "scheduler=ReduceLROnPlateau", "scheduler.patience=0"),
    "accumulation": ("model=dropout", "trainer.accumulate=3"),
    "LBFGS": ("model=linear", "optimizer=LBFGS", "optimizer.max_iter=2"),
    "EMA": ("model=norm", "trainer.average=EMA"),
    "SWA": ("model=norm", "trainer.average={type: SWA, start_epoch: 2}"),
    "frozen": ("model=norm", "freeze=[{match: '0.*', unfreeze_at_epoch: 2}]"),
    "workers": ("model=dropout", "trainer.num_workers=2"),
    "augmentation": ("model=dropout", "data.augment=[RandomErasing, {RandomAffine: 10}, MixUp]"),
    "computed twice": ("model=norm", "trainer.activation_checkpointing=['[0-2]']"),
    "channels last": ("model=norm", "trainer.channels_last=true"),
    "early stopping": ("model=mlp", "trainer.patience=1", "optimizer.lr=0.5", "trainer.epochs=6"),
}


@pytest.fixture
def models(write: Callable[[str, str], Path]) -> None:
    for name, text in MODELS.items():
        write(f"conf/model/{name}.yaml", text)
    rows = (
        f"{'word ' * (row % 9)}word{row % 7} number {row % 50},{'spam' if row % 3 else 'ham'}" for row in range(400)
    )
    write("texts.csv", "\n".join(["text,label", *rows, ""]))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch, dlspec: Callable[..., CommandResult]) -> Callable[..., CommandResult]:
    """A command that is ended by SIGTERM after so many batches of all phases."""
    from dlspec.jobs import job

    def call(batches: int, *words: str) -> CommandResult:
        usual = job.make_default_callbacks
        with monkeypatch.context() as patch:
            patch.setattr(job, "make_default_callbacks", lambda *args: [*usual(*args), StopAfterBatches(batches)])
            return dlspec(*words)

    return call


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_cut_equals_the_straight_one(name: str, work: Path, models: None, dlspec, cut) -> None:
    words = (*SHORT_RUN, *RUNS[name])
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    chance = random.Random(name)
    said = cut(chance.randint(1, 22), *words, "hydra.run.dir=cut")
    assert said.code == 128 + signal.SIGTERM
    assert "to resume: python -m dlspec resume run=cut" in said.err
    assert cut(chance.randint(1, 14), "resume", "run=cut").code == 128 + signal.SIGTERM
    assert dlspec("resume", "run=cut").code == 0
    assert read_run_files(work, "cut") == read_run_files(work, "straight")


def test_a_finished_run_goes_on_with_more_epochs(work: Path, dlspec) -> None:
    words = (*SHORT_RUN, "model=mlp")
    assert dlspec(*words, "trainer.epochs=4", "hydra.run.dir=straight").code == 0
    assert dlspec(*words, "trainer.epochs=2", "hydra.run.dir=short").code == 0
    said = dlspec("resume", "run=short")
    assert (said.code, said.err) == (0, "short is finished; to train longer add trainer.epochs=N\n")
    assert dlspec("resume", "run=short", "trainer.epochs=4").code == 0
    assert read_run_files(work, "short") == read_run_files(work, "straight")
    assert "epochs: 4" in (work / "short/spec.yaml").read_text()


def test_says_what_has_changed_and_goes_on_where_that_is_allowed(work: Path, dlspec) -> None:
    assert dlspec(*SHORT_RUN, "model=mlp", "scheduler=CosineAnnealingLR", "hydra.run.dir=made").code == 0
    before = {each: each.read_bytes() for each in (work / "made").rglob("*") if each.is_file()}
    said = dlspec("resume", "run=made", "optimizer.lr=0.5", "trainer.epochs=5")
    assert said.code == 2
    assert said.err == (
        "made/spec.yaml   optimizer.lr   was 0.001 in the run, is now 0.5   "
        "to resume with this change add resume.allow=[optimizer.lr]\n"
        "made/spec.yaml   trainer.epochs   was 3 in the run, is now 5   "
        "to resume with this change add resume.allow=[trainer.epochs]\n"
        "2 problems; nothing was run.\n"
    )
    assert before == {each: each.read_bytes() for each in before}
    said = dlspec("resume", "run=made", "trainer.epochs=5", "resume.allow=[trainer.epochs]")
    assert said.code == 0


def test_which_run(work: Path, dlspec) -> None:
    assert dlspec("resume").err == "no run given; name a run's folder, run=FOLDER, or run=latest\n"
    assert "no run in 'nowhere'" in dlspec("resume", "run=nowhere").err
    assert "no run found below 'runs'" in dlspec("resume", "run=latest").err
    for name in ("a", "b"):
        assert dlspec(*SHORT_RUN, "model=linear", f"hydra.run.dir='runs/x y/{name}'").code == 0
    assert "runs/x y/b is finished" in dlspec("resume", "run=latest").err
    assert "runs/x y/a is finished" in dlspec("resume", "runs/x y/a").err
    assert dlspec("run=latest", "hydra.run.dir=again").code == 0


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    work: Path, dlspec, cut, caplog: pytest.LogCaptureFixture
) -> None:
    words = (*SHORT_RUN, "model=mlp", "trainer.checkpoint_steps=5")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    assert cut(20, *words, "hydra.run.dir=cut").code == 143
    before, newest = list_checkpoints(work / "cut/checkpoints")
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match="its checksum does not match"):
        read_checkpoint(newest)
    said = dlspec("resume", "run=cut")
    assert said.code == 0
    assert f"{newest.relative_to(work)} can't be used: its checksum does not match" in caplog.text
    assert (newest.parent / f"{newest.name}.damaged").read_bytes() == content
    assert f"resuming cut from step {int(before.stem.removeprefix('step-'))}" in said.err
    assert read_run_files(work, "cut") == read_run_files(work, "straight")


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_a_torn_checkpoint_is_noticed(size: int, work: Path, dlspec) -> None:
    assert dlspec(*SHORT_RUN, "model=mlp", "hydra.run.dir=made").code == 0
    newest = list_checkpoints(work / "made/checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:size])
    with pytest.raises(DamagedCheckpoint, match="not a complete safetensors file"):
        read_checkpoint(newest)


def test_without_a_checkpoint_it_begins_again(work: Path, dlspec, cut) -> None:
    words = (*SHORT_RUN, "model=mlp", "trainer.checkpoints=false")
    assert dlspec(*words, "trainer.checkpoints=true", "hydra.run.dir=straight").code == 0
    assert cut(18, *words, "hydra.run.dir=cut").code == 143
    said = dlspec("resume", "run=cut", "trainer.checkpoints=true")
    assert "resuming cut from the start, as it has no checkpoint yet" in said.err
    assert read_run_files(work, "cut")[0] == read_run_files(work, "straight")[0]


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (("model=mlp", "optimizer.lr=0.5"), "optimizer.lr   was 0.5 in the run, is now 0.001"),
        (("model=linear",), "model.layers.1.Linear   was 10 in the run, is now '$width'"),
        (("model=mlp", "data.split_seed=3"), "data.split_seed   was 3 in the run, is now 0"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    other: tuple[str, ...], differs: str, work: Path, dlspec: Callable[..., CommandResult]
) -> None:
    assert dlspec(*SHORT_RUN, "model=mlp", "hydra.run.dir=made").code == 0
    assert dlspec(*SHORT_RUN, *other, "hydra.run.dir=other").code == 0
    newest = list_checkpoints(work / "other/checkpoints")[-1]
    newest.replace(work / "made/checkpoints" / newest.name)
    before = {each: each.read_bytes() for each in (work / "made").rglob("*") if each.is_file()}
    said = dlspec("resume", "run=made", "trainer.epochs=4")
    assert said.code == 2
    assert differs in said.err
    assert before == {each: each.read_bytes() for each in (work / "made").rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("batches", "text", "edited", "differs"),
    [
        (20, "split_seed: 0", "split_seed: 7", "data.split_seed   was 0 in the run, is now 7"),
        (20, "trainer:\n", "freeze: ['*.bias']\ntrainer:\n", "freeze.0   was null in the run, is now '*.bias'"),
    ],
)
def test_an_edited_spec_is_compared_with_the_checkpoint(
    batches: int, text: str, edited: str, differs: str, work: Path, dlspec, cut
) -> None:
    """An edited seed of the split would train on samples of the test."""
    words = (*SHORT_RUN, "model=mlp")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    assert cut(batches, *words, "hydra.run.dir=cut").code == 143
    path = work / "cut/spec.yaml"
    spec = path.read_text()
    assert text in spec
    path.write_text(spec.replace(text, edited))
    said = dlspec("resume", "run=cut")
    assert said.code == 2
    assert differs in said.err
    path.write_text(spec)
    assert dlspec("resume", "run=cut").code == 0
    assert read_run_files(work, "cut") == read_run_files(work, "straight")


@pytest.mark.parametrize("batches", [18, 25])
def test_data_with_as_many_samples_and_other_contents_are_refused(
    batches: int, work: Path, models: None, dlspec, cut
) -> None:
    """Within the epoch whatever is allowed, and between two epochs unless it is allowed."""
    words = (*SHORT_RUN, *RUNS["text_lstm"], "trainer.batch_size=32")
    assert cut(batches, *words, "hydra.run.dir=cut").code == 143
    file = work / "texts.csv"
    right = file.read_text()
    other = right.replace(",spam\n", ",x\n").replace(",ham\n", ",spam\n").replace(",x\n", ",ham\n")
    file.write_text(other)
    said = dlspec("resume", "run=cut")
    assert said.code == 2
    assert "data (contents)   as many samples as in the run, but other contents (checksum " in said.err
    file.write_text(right)
    assert dlspec("resume", "run=cut").code == 0
    file.write_text(other)
    assert dlspec("resume", "run=cut", "trainer.epochs=4").code == 2
    assert dlspec("resume", "run=cut", "trainer.epochs=4", "resume.allow=[data]").code == 0
    assert dlspec("resume", "run=cut", "trainer.epochs=5").code == 0, "its newest checkpoint has the new data"


@pytest.mark.soak
def test_a_sweeps_job_refuses_the_checkpoint_of_another_job(work: Path, dlspec, cut) -> None:
    words = ("-m", *SHORT_RUN, "model=mlp", "hydra/launcher=dlspec", "optimizer.lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert dlspec(*words).code == 0
    for name in ("result.json", "status.json"):
        (work / "sweep/0" / name).unlink()
    newest = list_checkpoints(work / "sweep/1/checkpoints")[-1]
    newest.replace(work / "sweep/0/checkpoints" / newest.name)
    said = dlspec("resume", "sweep=sweep")
    assert said.code == 2
    assert "[0] optimizer.lr=0.1  refused: optimizer.lr was 0.2 in the run, is now 0.1\n" in said.out


def test_checkpoints_of_earlier_versions_have_no_checksum() -> None:
    snapshot = Snapshot(1, {}, {}, {}, "")
    assert find_content_change(snapshot, "1234", {}) == {}
    snapshot = Snapshot(1, {}, {}, {}, "abcd")
    assert find_content_change(snapshot, "1234", {"data.path": ("a", "b")}) == {"data (contents)": ("abcd", "1234")}
    assert find_content_change(snapshot, "1234", {"data.split_seed": (0, 1)}) == {}


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x"], 3: (float("inf"), {"b": ()})},
        {"state": {0: {"step": torch.tensor(3.0), "exp": torch.randn(2, 3)}}, "empty": torch.zeros(0, 4)},
        [torch.tensor([True, False]), torch.tensor(2, dtype=torch.bfloat16)],
    ],
)
def test_packed_is_unpacked_the_same(value: Any) -> None:
    import json

    tensors: dict[str, torch.Tensor] = {}
    again = unflatten_state(json.loads(json.dumps(flatten_state(value, tensors, "x"))), tensors)
    assert repr(again) == repr(value)


def test_rows_are_taken_as_they_are() -> None:
    import json

    rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": float("nan")}]
    packed = flatten_state(EpochResults(rows), {}, "x")
    rows.append({})  # the training goes on
    assert repr(unflatten_state(json.loads(json.dumps(packed)), {})) == repr(rows[:2])


def test_what_can_not_be_kept_is_said() -> None:
    with pytest.raises(TypeError, match=r"x\.0: a set can't be stored in a checkpoint"):
        flatten_state([{1}], {}, "x")


# ---- real processes --------------------------------------------------------------------------------------------------


def killed_and_resumed(
    work: Path, words: tuple[str, ...], kills: list[float], log: Callable[[str], None] = print
) -> None:
    """Kills a run a number of times, each some seconds after it began to train, and lets it end."""
    command: tuple[str, ...] = (*words, "hydra.run.dir=killed")
    for seconds in kills:
        process = start_dlspec(work, *command)
        status = work / "killed/status.json"
        _wait_for_change(status, process)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        newest = read_newest_checkpoint(work / "killed/checkpoints")
        log(f"killed {seconds:.3f} s after it began: newest checkpoint at step {newest.step if newest else 'none'}")
        command = ("resume", "run=killed")
    process = start_dlspec(work, *command)
    said = process.communicate(timeout=MAX_WAIT_SECONDS)
    assert process.returncode == 0, said


def _wait_for_change(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written a file, or written it anew."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    wait_until(lambda: path.exists() and path.stat().st_mtime_ns != before, process)


KILLED = (*QUIET, "model=cnn", "trainer.epochs=8", "trainer.checkpoint_steps=3", "trainer.limit_batches=25")


def test_a_kill(work: Path, dlspec) -> None:
    """tests/soak/test_kills.py has fifty."""
    assert dlspec(*KILLED, "hydra.run.dir=straight").code == 0
    killed_and_resumed(work, KILLED, [0.2])
    assert read_run_files(work, "killed") == read_run_files(work, "straight")
