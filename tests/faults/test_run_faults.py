"""What goes wrong around a run: a full disk, a folder that goes, damaged files, signals, a second process."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from dlspec.errors import TrainingFailed
from dlspec.runs.io import read_json_lines, read_json_object
from dlspec.runs.lock import lock_run_folder
from dlspec.runs.log_file import LogFile
from dlspec.training.callbacks import checkpoints
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.checkpoints import CheckpointSaver
from dlspec.training.checkpoint.checkpoint_files import (
    DamagedCheckpoint,
    list_checkpoints,
    read_checkpoint,
    read_newest_checkpoint,
    write_checkpoint,
)
from dlspec.training.state import TrainingState
from helpers.command_line import IN_BACKGROUND, MAX_WAIT_SECONDS, QUIET, CommandResult, make_environment, wait_until
from helpers.interrupted_runs import SHORT_RUN, CallAfterBatches, make_signal_sender, read_run_files
from helpers.toy_training import make_network, make_trainer

MLP = (*SHORT_RUN, "model=mlp")
OFTEN = (*MLP, "trainer.checkpoint_steps=5")


Run = Callable[..., CommandResult]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, dlspec: Run) -> Run:
    """A command in whose run something happens after so many batches of a phase."""
    from dlspec.jobs import job

    def call(phase: str, batches: int, action: Callable[[], object], *words: str) -> CommandResult:
        usual = job.make_default_callbacks
        with monkeypatch.context() as patch:
            patch.setattr(
                job, "make_default_callbacks", lambda *args: [*usual(*args), CallAfterBatches(phase, batches, action)]
            )
            return dlspec(*words)

    return call


# ---- disks and folders -----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(work: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a disk of its own, of the size that is given."""
    folder = work / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Within it nobody can write there, not even root."""
    if os.geteuid():
        mode = path.stat().st_mode
        path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        path.chmod(mode)
        return
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", path], stderr=-3, check=False).returncode:
        pytest.skip("root can write everywhere here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_a_full_disk_ends_the_run_and_harms_no_checkpoint(work: Path, dlspec: Run, at: Run, disk) -> None:
    assert dlspec(*OFTEN, "hydra.run.dir=straight").code == 0
    folder = disk("8m")
    said = at("train", 18, lambda: fill(folder), *OFTEN, "hydra.run.dir=disk/run")
    assert said.code == 1
    last = said.err.splitlines()[-1]
    assert last.startswith(f"can't write the checkpoint {folder}/run/checkpoints/")
    assert "No space left on device; earlier checkpoints are complete, and the run can be resumed" in last
    assert not list(folder.glob("run/checkpoints/.*"))
    assert dlspec("resume", "run=disk/run").code == 2  # there is still no room
    for each in list_checkpoints(folder / "run/checkpoints"):
        read_checkpoint(each)
    (folder / "filler").unlink()
    assert dlspec("resume", "run=disk/run").code == 0
    assert read_run_files(work, "disk/run") == read_run_files(work, "straight")


@pytest.mark.parametrize("ends", [True, False])
def test_logs_on_a_full_disk_are_told_once_and_caught_up(ends: bool, work: Path, dlspec: Run, at: Run, disk) -> None:
    words = (*MLP, "trainer.checkpoints=false")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    folder = disk("1m")

    def free() -> None:
        if ends:
            (folder / "filler").unlink()

    def full() -> None:
        fill(folder)
        again.append(CallAfterBatches("train", 20, free))

    again: list[CallAfterBatches] = []
    spread = CallAfterBatches("train", 3, full)

    class Both(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            for each in (*again, spread):
                each.on_step_end(state)

    from dlspec.jobs import job

    usual = job.make_default_callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "make_default_callbacks", lambda *args: [*usual(*args), Both()])
        said = dlspec(*words, "hydra.run.dir=disk/run")
    assert said.code == 0
    assert said.err.count(f"can't write {folder}/run/metrics.jsonl: No space left on device\n") == 1
    assert said.err.count(f"can't write {folder}/run/log.txt") <= 1  # its last page may have had room
    metrics = (folder / "run/metrics.jsonl").read_bytes()
    assert metrics == ((work / "straight/metrics.jsonl").read_bytes() if ends else b"")


def test_a_full_disk_leaves_no_half_line(disk, capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(disk("64k") / "log.txt")
    for number in range(100):
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"{number:03}" * 333, None, None))
    lines = (handler.path).read_text().splitlines()
    assert 50 < len(lines) < 66
    assert lines == [f"{number:03}" * 333 for number in range(len(lines))]
    assert capsys.readouterr().err == f"can't write {handler.path}: No space left on device\n"


def test_no_room_is_said_before_anything_is_made(dlspec: Run, disk) -> None:
    folder = disk("200k")
    said = dlspec(*MLP, "hydra.run.dir=disk/run")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "not enough disk space in 'disk': a checkpoint needs 418 kB, and 205 kB are free; free some space, use another "
        "folder, or train without checkpoints: trainer.checkpoints=false\n"
    )
    assert not any(folder.iterdir())
    assert dlspec(*MLP, "hydra.run.dir=disk/run", "trainer.checkpoints=false").code == 0


def test_no_room_for_hydras_files_is_told(dlspec: Run, disk) -> None:
    disk("4k")
    ended = dlspec(*MLP, "hydra.run.dir=disk/run", "trainer.checkpoints=false")
    assert ended.code == 1
    assert re.fullmatch(r"can't use \S*disk/run/\.hydra/\w+\.yaml: No space left on device\n", ended.err)


def test_little_room_is_told(dlspec: Run, disk, caplog: pytest.LogCaptureFixture) -> None:
    disk("1400k")
    dlspec(*MLP, "hydra.run.dir=disk/run")
    assert "low disk space in 'disk': the run's files need about 1.67 MB, and 1.43 MB are free" in caplog.text


def test_a_folder_that_vanishes_ends_the_run_and_is_not_made_again(work: Path, at: Run) -> None:
    said = at("train", 14, lambda: shutil.rmtree("run", ignore_errors=True), *OFTEN, "hydra.run.dir=run")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"can't write the checkpoint {work}/run/checkpoints")
    assert not (work / "run").exists()


def test_without_checkpoints_a_folder_that_vanishes_ends_nothing(work: Path, at: Run) -> None:
    words = (*MLP, "trainer.checkpoints=false", "hydra.run.dir=run")
    said = at("train", 14, lambda: shutil.rmtree("run"), *words)
    assert said.code == 0
    assert len([line for line in said.err.splitlines() if "can't write" in line and "metrics" in line]) == 1
    assert not (work / "run").exists()


def test_read_only_folders_are_said_before_training(work: Path, dlspec: Run) -> None:
    (work / "locked").mkdir()
    with read_only(work / "locked"):
        said = dlspec(*MLP, "hydra.run.dir=locked/run")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("can't create the folder 'locked/run': ")
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    (work / "run/lock").unlink()
    with read_only(work / "run"):
        said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert (said.code, said.err.startswith("can't write to 'run': ")) == (2, True)
    with read_only(work / "run/checkpoints"):
        said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("can't write in run/checkpoints: ")
    assert "epoch" not in said.out
    assert dlspec("resume", "run=run", "trainer.epochs=4").code == 0


def test_a_log_that_is_read_only_is_told_and_ends_nothing(work: Path, dlspec: Run, at: Run) -> None:
    assert at("train", 20, make_signal_sender(signal.SIGTERM), *MLP, "hydra.run.dir=run").code == 143
    with read_only(work / "run/log.txt"):
        said = dlspec("resume", "run=run")
    assert said.code == 0
    assert said.err.count("log.txt: ") == 1


def test_what_is_no_error_of_the_disk_ends_the_run_too(tmp_path: Path) -> None:
    net = nn.Sequential(make_network())
    net.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(TrainingFailed, match=r"can't write the checkpoint: TypeError: odd has dtype torch\.complex128"):
        make_trainer(net, callbacks=[CheckpointSaver(tmp_path / "checkpoints")]).run()


# ---- damaged files ---------------------------------------------------------------------------------------------------


def test_every_damage_is_noticed(work: Path, dlspec: Run) -> None:
    assert dlspec(*SHORT_RUN, "model=linear", "hydra.run.dir=run").code == 0
    path = list_checkpoints(work / "run/checkpoints")[-1]
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(8), *range(8, header, 97), header - 1, *range(header, len(whole), 1009), len(whole) - 1]
    for place in places:
        for bit in (1, 64):
            flipped = bytearray(whole)
            flipped[place] ^= bit
            path.write_bytes(flipped)
            with pytest.raises(DamagedCheckpoint):
                read_checkpoint(path)
    for size in (*range(9), *range(9, len(whole), len(whole) // 30), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpoint):
            read_checkpoint(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(path)
    path.write_bytes(whole)
    read_checkpoint(path)


def test_a_damaged_checkpoint_never_outlives_a_whole_one(work: Path, dlspec: Run, at: Run) -> None:
    """Damaged ones of later steps must not count as the newest: that one would stay, and the whole ones go."""
    words = (*OFTEN, "trainer.keep_checkpoints=2")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    assert at("train", 24, make_signal_sender(signal.SIGTERM), *words, "hydra.run.dir=run").code == 143
    newest = list_checkpoints(work / "run/checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    said = at("train", 1, make_signal_sender(signal.SIGTERM), "resume", "run=run", "trainer.keep_checkpoints=1")
    assert said.code == 143
    [left] = list_checkpoints(work / "run/checkpoints")
    read_checkpoint(left)
    assert dlspec("resume", "run=run", "trainer.keep_checkpoints=2").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")


def test_where_no_checkpoint_is_whole_nothing_begins_again(work: Path, dlspec: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    for each in list_checkpoints(work / "run/checkpoints"):
        each.write_bytes(b"")
    before = {each: each.read_bytes() for each in (work / "run").rglob("*") if each.is_file()}
    said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 2
    assert "no checkpoint in 'run/checkpoints' can be used; to start again in a new folder: " in said.err
    assert before == {each: each.read_bytes() for each in before}


def test_what_a_killed_process_left_is_removed(work: Path, dlspec: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    left = [work / "run/.metrics.jsonl.abcd1234", work / "run/checkpoints/.step-000000001.safetensors.abcd_234"]
    for each in (*left, work / "run/.mine"):
        each.touch()
    assert dlspec("resume", "run=run", "trainer.epochs=4").code == 0
    assert not any(each.exists() for each in left)
    assert (work / "run/.mine").exists()


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "batches", "number", "code"),
    [
        ("train", 17, signal.SIGTERM, 143),
        ("train", 12, signal.SIGUSR1, 138),
        ("val", 1, signal.SIGINT, 130),
        ("val", 3, signal.SIGTERM, 143),
        ("test", 1, signal.SIGTERM, 143),
    ],
)
def test_a_signal_at_any_moment(
    phase: str, batches: int, number: int, code: int, work: Path, dlspec: Run, at: Run
) -> None:
    assert dlspec(*MLP, "hydra.run.dir=straight").code == 0
    said = at(phase, batches, make_signal_sender(number), *MLP, "hydra.run.dir=run")
    assert said.code == code
    name = signal.Signals(number).name
    assert said.err.splitlines()[-1] == f"interrupted by {name}; to resume: python -m dlspec resume run=run"
    assert dlspec("resume", "run=run").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")
    again, straight = (read_json_object(work / name / "result.json") for name in ("run", "straight"))
    assert again is not None and straight is not None
    assert (again["test"], again["status"]) == (straight["test"], "finished")


def test_a_signal_while_a_checkpoint_is_written(work: Path, dlspec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dlspec(*OFTEN, "hydra.run.dir=straight").code == 0
    write, left = checkpoints.write_checkpoint, [2]

    def signalled(*args: object) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        write(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_checkpoint", signalled)
        assert dlspec(*OFTEN, "hydra.run.dir=run").code == 143
    assert dlspec("resume", "run=run").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")


# A process whose checkpoints take for ever.
SLOW = """
import sys, time
from pathlib import Path
from dlspec.training.callbacks import checkpoints

def write(*args):
    Path("writes").touch()
    time.sleep(1000)

checkpoints.write_checkpoint = write
from dlspec.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.soak)],
)
def test_a_second_signal_ends_at_once(work: Path, number: int, code: int) -> None:
    words = ["model=linear", "trainer.epochs=100000", "hydra.run.dir=run", *QUIET]
    command = [*IN_BACKGROUND, sys.executable, "-c", SLOW, *words]
    process = subprocess.Popen(command, stdout=-3, stderr=-1, text=True, env=make_environment())
    wait_until((work / "writes").exists, process)
    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # it waits for the checkpoint
    process.send_signal(number)
    said = process.communicate(timeout=MAX_WAIT_SECONDS)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said


def test_a_clock_that_is_set_back(work: Path, dlspec: Run, at: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [each for each in OFTEN if "tensorboard" not in each]
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    clock = iter(range(1_700_000_000, 0, -1_000_000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert at("train", 17, make_signal_sender(signal.SIGTERM), *words, "hydra.run.dir=run").code == 143
    assert dlspec("resume", "run=run").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")
    assert len(list((work / "run").glob("events.*"))) == 1


# ---- resumed elsewhere -----------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_before_it_touches_anything(work: Path, dlspec: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    half = work / "run/checkpoints/.step-000000099.safetensors.abcd1234"
    half.touch()
    with lock_run_folder(work / "run"):
        said = dlspec("resume", "run=run", "trainer.epochs=4")
    assert said.code == 2
    assert "'run' is in use" in said.err
    assert half.exists()


def test_weights_are_taken_anew_only_where_nothing_was_trained(work: Path, dlspec: Run, at: Run) -> None:
    assert dlspec(*MLP, "seed=7", "hydra.run.dir=other").code == 0
    words = (*MLP, "weights={path: other/checkpoints/last.safetensors}")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    assert (
        at(
            "train", 3, make_signal_sender(signal.SIGTERM), *words, "trainer.checkpoints=false", "hydra.run.dir=early"
        ).code
        == 143
    )
    assert dlspec("resume", "run=early", "trainer.checkpoints=true").code == 0
    assert read_run_files(work, "early") == read_run_files(work, "straight")
    assert at("train", 20, make_signal_sender(signal.SIGTERM), *words, "hydra.run.dir=late").code == 143
    shutil.rmtree(work / "other")
    assert dlspec("resume", "run=late").code == 0
    assert read_run_files(work, "late") == read_run_files(work, "straight")


def test_a_working_directory_that_moves(work: Path, dlspec: Run, at: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=straight").code == 0
    said = at("train", 20, make_signal_sender(signal.SIGTERM), *MLP, "hydra.run.dir=run", "hydra.job.chdir=true")
    assert said.err.splitlines()[-1].endswith(f"to resume: python -m dlspec resume run={work}/run")
    assert dlspec("resume", f"run={work}/run").code == 0
    assert read_run_files(work, "run") == read_run_files(work, "straight")


def test_a_sweeps_job_is_resumed(work: Path, dlspec: Run, at: Run) -> None:
    said = at(
        "train",
        20,
        make_signal_sender(signal.SIGTERM),
        "-m",
        "hydra/launcher=dlspec",
        *MLP,
        "seed=0,1",
        "hydra.sweep.dir=sweep",
    )
    assert said.code == 130
    assert dlspec("resume", "run=sweep/0").code == 0
    assert dlspec(*MLP, "hydra.run.dir=straight").code == 0
    assert read_run_files(work, "sweep/0") == read_run_files(work, "straight")


def test_other_threads_are_told_and_noted(work: Path, dlspec: Run, at: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert at("train", 20, make_signal_sender(signal.SIGTERM), *MLP, "hydra.run.dir=run").code == 143
    path = work / "run/environment.json"
    first = read_json_object(path)
    assert first is not None
    path.write_text(json.dumps(first | {"threads": 64}))
    assert dlspec("resume", "run=run").code == 0
    told = f"its results may differ in the last bits: threads {first['threads']} (was 64)"
    assert told in caplog.text
    after = read_json_object(path)
    assert after is not None
    assert after["threads"] == 64
    assert (after["resumed"][0]["step"], after["resumed"][0]["threads"]) == (20, first["threads"])
    assert dlspec("resume", "run=run", "trainer.epochs=4", "trainer.threads=3").code == 0
    assert "in the last bits: threads 3 (was 64)" in caplog.text


def test_a_run_that_stopped_early_goes_on_with_more_patience(work: Path, dlspec: Run) -> None:
    words = (*MLP, "optimizer.lr=0.5", "trainer.epochs=8")
    assert dlspec(*words, "trainer.patience=4", "hydra.run.dir=straight").code == 0
    assert dlspec(*words, "trainer.patience=1", "hydra.run.dir=run").code == 0
    assert "is finished" in dlspec("resume", "run=run").err
    assert dlspec("resume", "run=run", "trainer.patience=4", "resume.allow=[trainer.patience]").code == 0
    assert len(read_json_lines(work / "run/metrics.jsonl")) > len(set(read_run_files(work, "run"))) - 2
    assert read_run_files(work, "run") == read_run_files(work, "straight")


def test_the_best_weights_are_tested_without_more_checkpoints(work: Path, dlspec: Run, at: Run) -> None:
    words = (*MLP, "optimizer.lr=0.3", "trainer.epochs=4", "trainer.monitor=train/loss", "trainer.mode=max")
    assert dlspec(*words, "hydra.run.dir=straight").code == 0
    assert at("train", 30, make_signal_sender(signal.SIGTERM), *words, "hydra.run.dir=run").code == 143
    assert dlspec("resume", "run=run", "trainer.checkpoints=false").code == 0
    again, straight = (read_json_object(work / name / "result.json") for name in ("run", "straight"))
    assert again is not None and straight is not None
    assert straight["best_epoch"] < 3
    assert (again["test"], again["best_epoch"]) == (straight["test"], straight["best_epoch"])


def test_a_run_that_goes_on_is_finished_no_more(work: Path, dlspec: Run, at: Run) -> None:
    """Killed then, it must not pass for the finished run that it was."""
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    results: list[bool] = []
    said = at("train", 1, lambda: results.append((work / "run/result.json").exists()), "resume", "run=run",
              "trainer.epochs=4")  # fmt: skip
    assert (said.code, results) == (0, [False])


def test_another_monitored_result_counts_from_there_on(work: Path, dlspec: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    said = dlspec("resume", "run=run", "trainer.epochs=5", "trainer.monitor=val/accuracy", "resume.allow=[trainer]")
    assert said.code == 0
    result = read_json_object(work / "run/result.json")
    assert result is not None
    assert (result["monitor"], result["best_epoch"] > 3) == ("val/accuracy", True)


def test_a_spec_of_an_earlier_version_lacks_settings(work: Path, dlspec: Run) -> None:
    assert dlspec(*MLP, "hydra.run.dir=run").code == 0
    path, checkpoints_folder = work / "run/spec.yaml", work / "run/checkpoints"
    path.write_text(path.read_text().replace("  deterministic: false\n", ""))
    snapshot = read_checkpoint(list_checkpoints(checkpoints_folder)[-1])
    assert snapshot.spec is not None
    trainer = {key: each for key, each in snapshot.spec["trainer"].items() if key != "deterministic"}
    write_checkpoint(checkpoints_folder, snapshot, {"spec": json.dumps({**snapshot.spec, "trainer": trainer})})
    said = dlspec("resume", "run=run", "trainer.epochs=5", "trainer.deterministic=true")
    assert "trainer.deterministic   was null in the run, is now true" in said.err
    assert dlspec("resume", "run=run", "trainer.epochs=4").code == 0
    assert "  deterministic: false\n" in path.read_text()


def test_other_data_are_refused(work: Path, dlspec: Run, at: Run, write: Callable[[str, str], Path]) -> None:
    write("some.txt", "to be or not to be, that is the question\n" * 200)
    write("conf/model/m.yaml", "layers: [{Embedding: 8}, {Linear: '${data.vocab_size}'}]")
    text = (*QUIET, "trainer.epochs=2", "model=m", "data=text", "data.path=some.txt", "trainer.batch_size=8")
    assert at("train", 6, make_signal_sender(signal.SIGTERM), *text, "hydra.run.dir=run").code == 143
    write("some.txt", "to be or not to be, that is the question\n" * 250)
    said = dlspec("resume", "run=run")
    assert said.code == 2
    assert "data   can only change between two epochs, and the newest checkpoint is within epoch 1" in said.err
    assert read_newest_checkpoint(work / "run/checkpoints") is not None
