"""Runs and sweeps on a disk that is too small: reported, and with more space resumed to equal results."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlspec.jobs.error_reporting import message_and_exit_code
from helpers.command_line import QUIET, CommandResult
from helpers.interrupted_runs import read_run_files

MODEL = "layers: [{Embedding: 8}, {Linear: 64}, {Linear: '${data.vocab_size}'}]"
LINES = "to be or not to be, that is the question\n" * 60
SHORT = ("model=tiny", "data=text", "data.path=lines.txt", "trainer.batch_size=8", "trainer.epochs=3",
         "trainer.limit_batches=2", "trainer.checkpoint_steps=1", "trainer.progress=none", *QUIET)  # fmt: skip
SWEEP = ("-m", *SHORT, "optimizer.lr=0.1,0.01")
SIZES = ("4k", "16k", "64k", "256k", "1m")
REPORTS = ("No space left on device", "not enough disk space")
Run = Callable[..., CommandResult]


@pytest.fixture
def resize(work: Path) -> Iterator[Callable[[str], None]]:
    """Gives a disk, the folder `disk`, a size."""
    folder = work / "disk"
    folder.mkdir()

    def mount(size: str) -> None:
        options = f"remount,size={size}" if folder.is_mount() else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def _files(write: Callable[[str, str], Path]) -> None:
    write("conf/model/tiny.yaml", MODEL)
    write("lines.txt", LINES)


def check_report(said: CommandResult, caplog: pytest.LogCaptureFixture) -> None:
    """Check that a full disk was reported in lines, with an exit code that is not 0."""
    text = said.out + said.err + caplog.text
    assert said.code in (1, 2), text
    assert any(each in text for each in REPORTS), text
    assert "Traceback" not in said.out + said.err, text


def check_sweep(
    size: str, launcher: str, work: Path, dlspec: Run, resize: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> int:
    assert dlspec(*SWEEP, "hydra/launcher=dlspec", "hydra.sweep.dir=straight").code == 0
    resize(size)
    said = dlspec(*SWEEP, launcher, "hydra.sweep.dir=disk/sweep")
    if said.code:
        check_report(said, caplog)
    resize("16m")
    again = dlspec(*SWEEP, launcher, "hydra.sweep.dir=disk/sweep")
    assert again.code == 0, again
    assert (work / "disk/sweep/leaderboard.csv").read_text() == (work / "straight/leaderboard.csv").read_text()
    assert [each.name for each in (work / "disk").iterdir()] == ["sweep"]
    return said.code


@pytest.mark.soak
def test_a_sweep_on_a_full_disk(
    work: Path, dlspec: Run, resize: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    assert check_sweep("64k", "hydra/launcher=dlspec", work, dlspec, resize, caplog) == 1


def test_a_full_disk_in_a_library_is_a_line_too() -> None:
    """Hydra writes its files in `.hydra` without a name in its error."""
    error = OSError(errno.ENOSPC, "No space left on device")
    assert message_and_exit_code(error) == ("the system refused: No space left on device", 1)
    assert message_and_exit_code(OSError(errno.EIO, "Input/output error")) is None


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("launcher", ["hydra/launcher=dlspec", "sweep.workers=2"])
def test_sweeps_on_full_disks(
    size: str,
    launcher: str,
    work: Path,
    dlspec: Run,
    resize: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = check_sweep(size, launcher, work, dlspec, resize, caplog)
    with capsys.disabled():
        print(f"sweep, {launcher}, {size}: exit code {code}, then 0 and equal results")


@pytest.mark.soak
@pytest.mark.parametrize("size", SIZES)
def test_runs_on_full_disks(
    size: str,
    work: Path,
    dlspec: Run,
    resize: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dlspec(*SHORT, "hydra.run.dir=straight").code == 0
    resize(size)
    said = dlspec(*SHORT, "hydra.run.dir=disk/run")
    if said.code:
        check_report(said, caplog)
    resize("16m")
    has_run = (work / "disk/run/spec.yaml").exists()
    again = dlspec(*(("resume", "run=disk/run") if has_run else (*SHORT, "hydra.run.dir=disk/run")))
    assert again.code == 0, again
    assert read_run_files(work, "disk/run") == read_run_files(work, "straight")
    with capsys.disabled():
        print(f"run, {size}: exit code {said.code}, then 0 and equal results")
