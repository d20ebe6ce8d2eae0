"""Words that Hydra, OmegaConf or the system do not expect end in a message, never in a traceback."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlspec.config.hydra_errors import problem_from_hydra_error
from dlspec.errors import Code, TrainingFailed
from dlspec.jobs.error_reporting import message_and_exit_code
from dlspec.runs.io import read_json_object
from dlspec.sweeps.executors import process_executor
from dlspec.sweeps.executors.process_executor import ProcessPool
from helpers.command_line import QUIET, CommandResult

Run = Callable[..., CommandResult]
BIG = 10**20
RUN = ("data=digits", "model=linear", "trainer.max_steps=1", *QUIET)


def check_refused(ended: CommandResult) -> None:
    assert ended.code == 2, ended
    assert ended.err.strip() and "Traceback" not in ended.err


@pytest.mark.parametrize(
    "entry",
    [
        *("5", "null", "true", "1.5", ".nan", str(BIG), "[1, 2]", "[[a]]", "{a: 1, b: 2}", "{}", "''", "'@'", "'/'"),
        *(
            "{/model: 5}",
            "{/model: true}",
            "{/model: ''}",
            "{/model: [cnn, 5]}",
            "{/model: {a: 1}}",
            "{a: [1, {b: 2}]}",
        ),
        *("{override /model: 5}", "{override /hydra/launcher: 16}", "{optional model: 7}", '"a\\0b"', "{/model: .inf}"),
    ],
)
def test_an_odd_entry_of_a_defaults_list(entry: str, dlspec: Run, write: Callable[[str, str], Path]) -> None:
    write("conf/experiment/odd.yaml", f"# @package _global_\ndefaults: [{entry}]\n")
    refused = dlspec("validate", "experiment=odd")
    check_refused(refused)
    assert "conf/experiment/odd.yaml:2:12" in refused.err and "does not name a file" in refused.err


@pytest.mark.parametrize("text", ["5", "null", "[1]", "text"])
def test_a_hydra_section_that_is_no_mapping(text: str, dlspec: Run, write: Callable[[str, str], Path]) -> None:
    write("conf/config.yaml", f"defaults: [dlspec, _self_]\nhydra: {text}\n")
    check_refused(dlspec("validate"))


@pytest.mark.parametrize(
    "word",
    [
        *("~data=[1]", "~model=[a,b]", "~loss={a: 1}", "~hydra/launcher=[5]", "hydra/launcher=16", "hydra/sweeper=1.5"),
        *(
            "hydra/job_logging=true",
            "hydra/launcher=[pool,5]",
            "hydra=5",
            "hydra=[5]",
            "hydra={a: 1}",
            "hydra/launcher={}",
        ),
    ],
)
def test_a_choice_that_is_no_name(word: str, dlspec: Run) -> None:
    check_refused(dlspec(*RUN, word))


@pytest.mark.parametrize("value", ["abc", "-1", "0", "1.5", "true", "[1]", "{a: 1}", str(BIG)])
def test_a_number_of_jobs_at_once(value: str, work: Path, dlspec: Run) -> None:
    check_refused(dlspec("-m", *RUN, "seed=1,2", f"hydra.sweeper.max_batch_size={value}"))
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "word",
    [
        *(
            "hydra.sweeper.params=5",
            "hydra.sweeper.params=[1]",
            "hydra.launcher=16",
            "hydra.sweeper=16",
        ),
        *(
            "hydra.sweeper=null",
            "hydra.sweep=${hydra:nothing}",
            "hydra.sweep=${hydra.run.dir}",
            "hydra.overrides.hydra=[{a: 1}]",
            f"sweep.workers={BIG}",
            f"sweep.threads={BIG}",
            f"trainer.threads={BIG}",
        ),
    ],
)
def test_settings_of_a_sweep(word: str, work: Path, dlspec: Run) -> None:
    check_refused(dlspec("-m", *RUN, "seed=1,2", word))
    assert list(work.iterdir()) == []


# ---- one net ---------------------------------------------------------------------------------------------------------


def raised_by(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_what_hydra_raises_is_a_problem_and_a_bug_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = raised_by(lambda: OmegaConf.to_container(5))  # type: ignore[arg-type]
    problem = problem_from_hydra_error(theirs)
    assert problem is not None and problem.code is Code.HYDRA_CONFIG and "ValueError" in problem.found
    assert problem_from_hydra_error(raised_by(lambda: int("x"))) is None
    assert problem_from_hydra_error(ValueError("without a traceback")) is None
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert problem_from_hydra_error(theirs) is None


def test_what_the_system_lacks_is_told() -> None:
    assert message_and_exit_code(OSError(errno.EMFILE, "Too many open files")) == (
        "the system refused: Too many open files",
        1,
    )
    assert message_and_exit_code(OSError("a bug")) is None


# ---- few files -------------------------------------------------------------------------------------------------------


@contextmanager
def limit_files(more: int) -> Iterator[None]:
    """Within it this process can open only a few more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_run_with_few_files(work: Path, dlspec: Run) -> None:
    with limit_files(6):
        assert dlspec(*RUN, "hydra.run.dir=run").code == 0
    assert (read_json_object(work / "run/status.json") or {})["status"] == "finished"


@pytest.mark.parametrize("possible", [0, 1, 2])
def test_processes_that_can_not_be_started(
    possible: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[object] = []

    def start(slot: process_executor._ProcessSlot) -> None:
        if len(started) >= possible:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(slot)
        slot._process = FakeProcess()  # type: ignore[assignment]

    def receive(slot: process_executor._ProcessSlot) -> process_executor.TaskEnded:
        task, slot.task = slot.task, None
        assert task is not None
        return process_executor.TaskEnded(task, 2 * task)

    def wait_for_results(pool: ProcessPool, seconds: float) -> Iterator[process_executor.TaskEnded]:
        yield from (receive(slot) for slot in pool._slots if slot.task is not None)

    monkeypatch.setattr(process_executor._ProcessSlot, "_start_process", start)
    monkeypatch.setattr(ProcessPool, "_wait_for_results", wait_for_results)
    with ProcessPool([{}] * 3, b"") as pool:
        if not possible:
            with pytest.raises(TrainingFailed, match="can't start a process: Too many open files"):
                list(pool.run(range(5), 0.1))
            return
        results = {
            event.task: event.result for event in pool.run(range(5), 0.1) if type(event) is process_executor.TaskEnded
        }
    assert results == {number: 2 * number for number in range(5)}
    assert len(started) == possible
    assert f"jobs run in {possible} processes" in caplog.text


class FakeProcess:
    """A process that lives until it is closed."""

    exitcode = 0

    def is_alive(self) -> bool:
        return True

    def join(self, seconds: float | None = None) -> None: ...

    def kill(self) -> None: ...


def test_a_subfolder_of_hydra_with_a_nul_character(dlspec: Run, work: Path) -> None:
    refused = dlspec(*RUN, "hydra.output_subdir='a\0b'", "hydra.run.dir=made")
    check_refused(refused)
    assert "can't be a folder's name; write hydra.output_subdir=.hydra" in refused.err
