"""`status`: asking runs that go on, that came to an end and that were killed; and files that were never a run's."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dlspec.cli.commands.status import format_runs
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.file_names import STATUS_FILE
from dlspec.runs.io import read_json_object, write_json, write_json_unsynced
from dlspec.runs.lock import is_run_locked, lock_run_folder
from dlspec.runs.run_discovery import MAX_DEPTH, MAX_SILENT_SECONDS, find_runs
from dlspec.runs.run_status import RunStatus, read_status, resume_command
from dlspec.training.callbacks import status_file as training_status
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
from dlspec.training.callbacks.log_files import ResultFile
from dlspec.training.callbacks.status_file import StatusFile
from dlspec.training.state import TrainingState
from helpers.command_line import QUICK, QUIET, make_environment, wait_until
from helpers.toy_training import make_dataset, make_trainer

MLP = ["model=mlp", *QUICK, "trainer.checkpoints=false"]


@contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in `folder` until it is stopped."""
    words = ["model=linear", "trainer.epochs=1000000", "trainer.progress=none", f"hydra.run.dir={folder}", *QUIET]
    process = subprocess.Popen([sys.executable, "-m", "dlspec", *words], env=make_environment())
    try:
        wait_until((folder / STATUS_FILE).exists, process)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_run_can_be_asked_and_has_its_folder_alone(dlspec, work: Path) -> None:
    with training(work / "made") as process:
        said = dlspec("status", "made")
        assert said.out.splitlines()[1].split()[:2] == ["made", "running"]
        said = dlspec("resume", "run=made")
        assert said.code == 2
        assert f"'made' is in use: process {process.pid} on " in said.err
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_run_locked(work / "made") is False
    said = dlspec("status", "made")
    assert said.out.splitlines()[1].split()[:2] == ["made", "killed"]
    assert said.out.splitlines()[2:] == ["    python -m dlspec resume run=made", "1 run: 1 killed"]
    assert json.loads((work / "made" / STATUS_FILE).read_text())["pid"] == process.pid


def test_runs_that_came_to_an_end(dlspec, work: Path) -> None:
    assert dlspec(*MLP, "hydra.run.dir=runs/a/good").code == 0
    bad = ["trainer.max_steps=9", "trainer.limit_batches=9", "optimizer=SGD", "optimizer.lr=0.1,1e30"]
    assert dlspec("-m", *MLP, "hydra.sweep.dir=runs/a/sweep", *bad).code == 1
    rows = json.loads(dlspec("status", "--json").out)
    assert {row["run"]: row["status"] for row in rows} == {
        "runs/a/good": "finished",
        "runs/a/sweep/0": "finished",
        "runs/a/sweep/1": "failed",
    }
    failed = next(row for row in rows if row["status"] == "failed")
    good = next(row for row in rows if row["run"] == "runs/a/good")
    assert failed["reason"].startswith("train/loss became nan in epoch 1 at step ")
    assert failed["resume"] == "python -m dlspec resume run=runs/a/sweep/1"
    result = json.loads((work / "runs/a/good/result.json").read_text())
    assert (good["step"], good["monitored"]) == (result["steps"], result["monitored"])
    assert (good["reason"], good["resume"], good["seconds_left"]) == ("reached max_steps (2)", "", None)
    out = dlspec("status").out.splitlines()
    at = next(index for index, line in enumerate(out) if " failed " in line)
    assert out[at + 1 : at + 3] == [f"    {failed['reason']}", f"    {failed['resume']}"]
    assert out[-1] == "3 runs: 1 failed, 2 finished"
    for path in (work / "runs").rglob(STATUS_FILE):  # as it was before there was such a file
        path.unlink()
    before = json.loads(dlspec("status", "--json").out)
    kept = ("run", "status", "step", "monitor", "monitored", "best_epoch", "reason")
    assert [{key: row[key] for key in kept} for row in sorted(before, key=lambda row: row["run"])] == [
        {key: row[key] for key in kept} for row in sorted(rows, key=lambda row: row["run"])
    ]


def test_the_result_says_how_a_run_ended(dlspec, work: Path) -> None:
    """A process can be killed between writing result.json and status.json, and when a resumed run has deleted one."""
    assert dlspec(*MLP, "hydra.run.dir=runs/a").code == 0
    right = read_status(work / "runs/a")
    assert right is not None
    running = {**asdict(right), "status": "running", "step": 1, "monitored": None, "best_epoch": 0, "seconds_left": 5.0}
    write_json(work / "runs/a" / STATUS_FILE, running)
    [found] = find_runs([work / "runs"])
    assert (found.state, found.status.step, found.status.seconds_left) == ("finished", right.step, None)
    assert (found.status.monitored, found.status.best_epoch) == (right.monitored, right.best_epoch)
    assert json.loads(dlspec("status", "--json").out)[0]["resume"] == ""
    assert "1 run: 1 finished" in dlspec("report").out
    assert f",{right.monitored}," in (work / "runs/leaderboard.csv").read_text()
    write_json(work / "runs/a" / STATUS_FILE, asdict(right))
    (work / "runs/a/result.json").unlink()
    assert [run.state for run in find_runs([work / "runs"])] == ["killed"]


class Asks(Callback):
    """Asks for the status of the run that it is part of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[RunStatus, str]] = []

    def on_step_end(self, state: TrainingState) -> None:
        status = read_status(self.folder)
        assert status is not None
        assert (status.step, status.batch, status.batches, status.epoch, status.phase) == (
            state.step, state.batch, state.batches, state.epoch, state.phase)  # fmt: skip
        self.seen.append((status, format_runs(find_runs([self.folder]))))


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_status, "SECONDS_BETWEEN_STATUS_WRITES", 0.0)
    monkeypatch.setattr(training_status, "MAX_TIME_FRACTION", 1e9)


@pytest.mark.usefixtures("every_step")
def test_the_status_says_where_a_run_is(tmp_path: Path) -> None:
    asks = Asks(tmp_path)
    with lock_run_folder(tmp_path):
        make_trainer(settings={"epochs": 3}, callbacks=[ResultFile(tmp_path), StatusFile(tmp_path), asks]).run()
    steps = [status for status, _ in asks.seen]
    assert [(each.phase, each.step) for each in steps] == [
        ("train", 1), ("train", 2), ("train", 3), ("val", 3),
        ("train", 4), ("train", 5), ("train", 6), ("val", 6),
        ("train", 7), ("train", 8), ("train", 9), ("val", 9), ("test", 9),
    ]  # fmt: skip
    first, fifth = steps[0], steps[5]
    assert (first.monitored, first.best_epoch, fifth.best_epoch, fifth.planned_steps) == (None, 0, 1, 9)
    assert all(each.status == "running" and each.pid == os.getpid() for each in steps)
    assert all(each.seconds_left is not None for each in steps if each.phase != "test")
    assert asks.seen[5][1].splitlines()[1].split()[1:7] == ["running", "2/3", "train", "2/3", "5/9", "val/loss"]
    ended = read_status(tmp_path)
    assert ended is not None
    assert (ended.status, ended.seconds_left, ended.epoch) == ("finished", None, 3)


def test_the_status_is_renewed_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, now = [], 100.0
    monkeypatch.setattr(training_status.time, "monotonic", lambda: now)
    monkeypatch.setattr(training_status, "write_json_unsynced", lambda path, value: written.append(value["step"]))

    class Clock(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            nonlocal now
            now += 0.5 if state.phase != "val" else 0.0

    make_trainer(settings={"epochs": 4}, callbacks=[Clock(), StatusFile(tmp_path)]).run()
    assert written == [0, 4, 8, 12, 12], "at the start, every 2 s, and in a test of more than 0.2 s"
    assert read_json_object(tmp_path / STATUS_FILE)["seconds"] == 6.5  # type: ignore[index]


@pytest.mark.usefixtures("every_step")
def test_what_is_left_is_guessed_from_the_steps_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(training_status.time, "monotonic", lambda: now)
    resumed = make_trainer(settings={"epochs": 4})
    resumed.state.step = 6
    resumed.state.planned_steps = 12
    file = StatusFile(tmp_path)
    file.on_train_start(resumed.state)
    resumed.state.step, now = 8, 20.0
    file.on_step_end(resumed.state)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.seconds, status.seconds_left) == (20.0, 40.0)


@pytest.mark.usefixtures("every_step")
def test_a_status_changes_no_result(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        callbacks = make_default_callbacks(
            TrainerSpec(progress="none", checkpoints=False, curves=False), tmp_path / name
        )
        kept = [each for each in callbacks if name == "with" or not isinstance(each, StatusFile)]
        make_trainer(callbacks=kept).run()
        assert (tmp_path / name / STATUS_FILE).exists() == (name == "with")
    first, second = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without"))
    assert first == second


@pytest.mark.parametrize(("error", "word"), [(KeyboardInterrupt(), "interrupted"), (TrainingFailed("a\nb"), "failed")])
def test_how_a_run_ended(tmp_path: Path, error: BaseException, word: str) -> None:
    class Ends(Callback):
        def on_epoch_end(self, state: TrainingState) -> None:
            raise error

    with pytest.raises(type(error)):
        make_trainer(data=make_dataset(), callbacks=[Ends(), StatusFile(tmp_path)]).run()
    status = read_status(tmp_path)
    assert status is not None
    assert (status.status, status.reason) == (word, "a" if word == "failed" else "KeyboardInterrupt")
    assert status.resume == resume_command(tmp_path)


@pytest.mark.usefixtures("every_step")
def test_a_status_that_can_not_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(callbacks=[StatusFile(tmp_path / "gone")]).run()
    assert [each.message for each in caplog.records] == [
        f"can't write {tmp_path}/gone/{STATUS_FILE}: No such file or directory"
    ]


def test_a_renewed_file_is_whole_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fsync")
    write_json_unsynced(tmp_path / "a.json", {"a": 1})
    write_json_unsynced(tmp_path / "a.json", {"a": float("nan")})
    assert read_json_object(tmp_path / "a.json") == {"a": None}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


# What is no run, or was made to harm


def put(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STATUS_FILE, asdict(RunStatus("running")) | values)
    return folder


def fates(root: Path) -> list[str]:
    return [run.state for run in find_runs([root])]


@pytest.mark.parametrize(("age", "fate"), [(5.0, "running"), (-3600.0, "running"), (2 * MAX_SILENT_SECONDS, "killed")])
def test_a_run_of_another_machine_is_judged_by_its_age(tmp_path: Path, age: float, fate: str) -> None:
    """Its locks are not ours to see; a clock that is ahead makes no run old."""
    put(tmp_path, host="elsewhere", renewed=datetime.fromtimestamp(time.time() - age, UTC).isoformat())
    assert fates(tmp_path) == [fate]
    assert all(run.age is not None and run.age >= 0 for run in find_runs([tmp_path]))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 500_000, b'{"a": ' * 100_000, b" " * 2_000_000 + b"{}",
     b'{"status": "running", "step": ' + b"9" * 5_000 + b"}"],
    ids=lambda content: content[:8].decode(errors="replace") or "empty",
)  # fmt: skip
def test_broken_files(dlspec, work: Path, content: bytes) -> None:
    (work / STATUS_FILE).write_bytes(content)
    (work / "result.json").write_bytes(content)
    said = dlspec("status", ".")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1].split()[:2] == [".", "killed"]


def test_values_of_wrong_types_are_not_there(dlspec, work: Path) -> None:
    wrong = ([], {}, "x", -1, True, 1.5, 10**400, 1e308, None, "\x1b[2J\nevil", "x" * 5_000)
    for number, value in enumerate(wrong):
        put(work / str(number), **dict.fromkeys(asdict(RunStatus()), value))
    said = dlspec("status", ".")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith(f"{len(wrong)} runs: {len(wrong)} killed\n")
    assert "\x1b" not in said.out
    assert max(map(len, said.out.splitlines())) < 1_000
    evil = read_status(work / "9")
    assert evil == RunStatus(*("\x1b[2J" if each == "" else None for each in asdict(RunStatus()).values()))


def test_names_steer_no_terminal_and_no_shell(dlspec, work: Path) -> None:
    names = ["a\x1b[2Jb", "c\nd", "e; rm -rf f", "g\udcff'h", "$(i)", "ü"]
    for name in names:
        put(work / "runs" / name, resume="rm -rf everything")
    said = dlspec("status")
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out and len(said.out.splitlines()) == 2 + 2 * len(names)
    assert "everything" not in said.out
    rows = json.loads(dlspec("status", "--json").out)
    assert {row["run"] for row in rows} == {f"runs/{name}" for name in names}
    assert not any("everything" in row["resume"] for row in rows)


FOLDERS = [
    "runs/2026-01-02/03-04-05_cnn", "made", "../x_1", "/a/b", "with space", "a=b,c=d", "it's", 'a "b"', "back\\slash",
    'back\\"quote', "end\\", "$(x)", "${x}", "null", "1e3", "007", "[a]", "{a}", "-x", "~/y", "a:b", "ü", ".5", "true",
    "#",
]  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_line_that_resumes_is_quoted(folder: str) -> None:
    *command, override = shlex.split(resume_command(folder))
    assert command == ["python", "-m", "dlspec", "resume"]
    parsed = OverridesParser.create().parse_override(override)
    assert (parsed.key_or_group, str(parsed.value()), parsed.is_sweep_override()) == ("run", folder, False)


def test_plain_names_need_no_quotes() -> None:
    assert resume_command("runs/2026-01-02/03-04-05_cnn") == "python -m dlspec resume run=runs/2026-01-02/03-04-05_cnn"


def test_where_runs_are_looked_for(tmp_path: Path) -> None:
    put(tmp_path / "outside")
    root = tmp_path / "runs"
    put(root / "/".join("a" * MAX_DEPTH))
    put(root / "/".join("b" * (MAX_DEPTH + 1)))
    for name in (".hidden", "checkpoints"):
        put(root / name)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "circle").symlink_to(root)
    os.mkfifo(root / "a" / STATUS_FILE)  # whoever opens it waits
    assert [run.folder for run in find_runs([root, root / "a"])] == [root / "a", root / "/".join("a" * MAX_DEPTH)]


def test_the_newest_is_first(tmp_path: Path) -> None:
    for name, minute in (("b", 1), ("a", 3), ("c", 2)):
        put(tmp_path / name, renewed=f"2026-01-01T00:0{minute}:00+00:00")
    assert [run.folder.name for run in find_runs([tmp_path])] == ["a", "c", "b"]


@pytest.mark.parametrize("width", [20, 60, 1_000])
def test_narrow_and_wide_terminals(tmp_path: Path, width: int) -> None:
    put(tmp_path / "run", epoch=2, epochs=3, monitor="val/loss", monitored=0.5, best_epoch=1)
    lines = format_runs(find_runs([tmp_path]), width).splitlines()
    assert sum(str(tmp_path / "run") in line for line in lines) == 2, "the run, and how it is resumed"
    folder = [line for line in lines if line == str(tmp_path / "run")]
    assert len(folder) == (width < 1_000)
    told = [line for line in lines if str(tmp_path) not in line and line.startswith("    ")]
    assert all(len(line) <= width for line in told)
    assert "val/loss" in "\n".join(lines)


def test_nothing_there(dlspec, work: Path) -> None:
    assert dlspec("status") == (0, "no runs in 'runs'\n", "")
    assert dlspec("status", "--json") == (0, "[]\n", "")
    fix = "write python -m dlspec status [--json] [FOLDER ...]\n"
    assert dlspec("status", "run=x", ".") == (2, "", f"no folder 'run=x'; {fix}")
    assert dlspec("status", "--jsn") == (2, "", f"unknown flag '--jsn'; {fix}")
    assert not any(work.iterdir())


def test_a_status_imports_nothing_heavy(work: Path) -> None:
    put(work / "runs/a")
    program = (
        "import sys; from dlspec.cli.main import run_command as main;"
        "code = main(['status']) or main(['status', 'nothing']) - 2;"
        "heavy = {'torch', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich', 'yaml'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, env=make_environment(), check=False)
    assert (done.returncode, done.stderr.partition(";")[0]) == (0, "no folder 'nothing'")
    assert done.stdout.endswith("1 run: 1 killed\n")
