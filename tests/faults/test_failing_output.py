"""Output that fails is not training that fails: stdout and stderr closed, on a full disk, or read by nobody."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlspec.runs.io import encode_json, read_json_object, write_json, write_text, write_yaml
from dlspec.standard_streams import TolerantOutput, tolerate_output_errors
from helpers import fork_server
from helpers.command_line import PROGRAM, QUIET, CommandResult, make_environment

RUN = ("model=linear", "trainer.epochs=2", "trainer.limit_batches=2", "trainer.checkpoints=false", *QUIET)
INLINE_SWEEP = ("-m", *RUN, "seed=1,2", "hydra/launcher=dlspec", "hydra.sweep.dir=sweep")
LOST = "can't write to "
# `2: said` keeps what the program says, `closed` is `>&-`, `pipe` is read by nobody.
STREAMS = {
    "closed": ({"1": "closed", "2": "said"}, "stdout: it is closed"),
    "full": ({"1": "/dev/full", "2": "said"}, "stdout: No space left on device"),
    "unread": ({"1": "pipe", "2": "said"}, "stdout: Broken pipe"),
    "stderr closed": ({"1": "said", "2": "closed"}, ""),
    "stderr full": ({"1": "said", "2": "/dev/full"}, ""),
    "all closed": ({"0": "closed", "1": "closed", "2": "closed"}, "stdout: it is closed"),
    "all full": ({"1": "/dev/full", "2": "/dev/full"}, "stdout: No space left on device"),
}
Ask = Callable[..., int]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A command with streams, in a process that is forked; returns its exit code."""
    with subprocess.Popen(
        [sys.executable, fork_server.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=make_environment(),
    ) as process:
        assert process.stdin and process.stdout

        def send(folder: Path, *words: str, streams: dict[str, str] | None) -> int:
            print(json.dumps([str(folder), words, streams is not None, streams]), file=process.stdin, flush=True)
            code: int = json.loads(process.stdout.readline())[0]
            return code

        assert send(tmp_path_factory.mktemp("warm"), *RUN, streams=None) == 0
        yield send
        process.stdin.close()


def read_said(folder: Path) -> str:
    said = folder / "said"
    return said.read_text(encoding="utf-8") if said.exists() else ""


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_trains_whatever_happens_to_its_output(name: str, ask: Ask, tmp_path: Path) -> None:
    streams, told = STREAMS[name]
    assert ask(tmp_path, *RUN, "hydra.run.dir=run", streams=streams) == 0
    assert (read_json_object(tmp_path / "run/status.json") or {})["status"] == "finished"
    assert len((tmp_path / "run/metrics.jsonl").read_bytes().splitlines()) == 2
    log = (tmp_path / "run/log.txt").read_text(encoding="utf-8")
    said = read_said(tmp_path)
    assert "Traceback" not in said + log
    assert log.count(LOST + "stdout") == bool(told) and told in log
    if "said" in streams.values():
        assert said.count(LOST) == bool(told) and told in said


def test_what_others_would_open_is_not_a_standard_stream(ask: Ask, tmp_path: Path) -> None:
    """With 1 and 2 closed, the next files that are opened would be written to by whatever prints."""
    assert ask(tmp_path, *RUN, "hydra.run.dir=run", streams={"0": "closed", "1": "closed", "2": "closed"}) == 0
    printed = [path for path in tmp_path.rglob("*") if path.is_file() and b"epoch 1/2" in path.read_bytes()]
    assert printed == []


@pytest.mark.parametrize("name", ["full", "all closed"])
def test_a_sweep_in_one_process(name: str, ask: Ask, tmp_path: Path) -> None:
    streams, told = STREAMS[name]
    assert ask(tmp_path, *INLINE_SWEEP, streams=streams) == 0
    jobs = (read_json_object(tmp_path / "sweep/sweep.json") or {})["jobs"]
    assert [job["status"] for job in jobs] == ["finished", "finished"]
    logs = "".join(path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("sweep/*/log.txt")))
    assert logs.count(LOST + "stdout") == 1 and told in logs


def test_the_exit_code_is_that_of_the_training(ask: Ask, tmp_path: Path) -> None:
    streams = STREAMS["full"][0]
    assert ask(tmp_path, *RUN, "optimizer=SGD", "optimizer.lr=1e38", "trainer.on_nan=stop", streams=streams) == 1
    assert ask(tmp_path, "model=nothing", streams=streams) == 2
    assert ask(tmp_path, "model=nothing", streams=STREAMS["all closed"][0]) == 2


def test_a_resumed_run(ask: Ask, tmp_path: Path) -> None:
    words = [each for each in RUN if not each.startswith("trainer.checkpoints")]
    assert ask(tmp_path, *words, "hydra.run.dir=run", streams=STREAMS["full"][0]) == 0
    for count, name in ((3, "all full"), (4, "unread")):
        assert ask(tmp_path, "resume", "run=run", f"trainer.epochs={count}", streams=STREAMS[name][0]) == 0
        assert len((tmp_path / "run/metrics.jsonl").read_bytes().splitlines()) == count


@pytest.mark.parametrize("words", [("status",), ("summary", *RUN), (*RUN, "--cfg", "job"), ("--help",)])
def test_a_command_that_only_prints(words: tuple[str, ...], ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert ask(tmp_path, *words, streams=STREAMS["unread"][0]) == 0
    assert read_said(tmp_path) == ""  # `| head -1` is quiet
    assert ask(tmp_path, *words, streams=STREAMS["full"][0]) == 1
    assert read_said(tmp_path).startswith(LOST + STREAMS["full"][1])
    assert len(read_said(tmp_path).splitlines()) == 1


@pytest.mark.soak
@pytest.mark.parametrize("shell", [">&-", ">&- 2>&- <&-", ">/dev/full", ">/dev/full 2>/dev/full", "| head -1"])
def test_a_sweep_in_processes(shell: str, tmp_path: Path) -> None:
    words = ["-m", *RUN, "seed=1,2,3", "sweep.workers=2", "hydra.sweep.dir=sweep"]
    command = f"set -o pipefail; {' '.join([*PROGRAM, *words])} {shell}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=make_environment(), check=False)
    assert done.returncode == 0
    jobs = (read_json_object(tmp_path / "sweep/sweep.json") or {})["jobs"]
    assert [job["status"] for job in jobs] == ["finished"] * 3
    assert all("epoch 1" not in path.read_text(errors="replace") for path in tmp_path.glob("sweep/*/.hydra/*"))


# ---- the streams -----------------------------------------------------------------------------------------------------


class FailingFile(io.RawIOBase):
    """Writes three bytes at a time, and fails as long as `error` is set."""

    def __init__(self) -> None:
        self.error, self.content = 0, b""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        written = bytes(content)[:3]  # type: ignore[call-overload]
        self.content += written
        return len(written)


def test_a_stream_writes_on_when_it_can_again(caplog: pytest.LogCaptureFixture) -> None:
    file = FailingFile()
    output = TolerantOutput("stdout", file)
    assert output.write(b"whole line\n") == 11
    for number in (errno.ENOSPC, errno.EIO):
        file.error = number
        assert output.write(b"lost\n") == 5
    file.error = 0
    output.write(b"back\n")
    assert file.content == b"whole line\nback\n"
    assert [record.getMessage() for record in caplog.records] == [
        "can't write to stdout: No space left on device; its output may be lost"
    ]


def test_streams_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    file = FailingFile()
    before = io.TextIOWrapper(io.BufferedWriter(file), "ascii")
    monkeypatch.setattr(sys, "stdout", before)
    before.write("earlier\n")
    with tolerate_output_errors():
        print("caf\xe9 \udce9")
        with tolerate_output_errors():
            print("inner")
    assert sys.stdout is before
    assert file.content == b"earlier\ncaf? ?\ninner\n"


def test_streams_of_a_notebook_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = io.StringIO()
    monkeypatch.setattr(sys, "stdout", ours)
    with tolerate_output_errors():
        assert sys.stdout is ours


def test_training_in_python_without_a_console(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dlspec

    spec = {"model": "linear", "trainer": {"epochs": 1, "limit_batches": 1}}
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert dlspec.train(spec, folder="runs").folder == Path("runs/run")
    assert sys.stdout is None
    assert "can't write to stdout: it is closed" in (work / "runs/run/log.txt").read_text(encoding="utf-8")


# ---- names that are not UTF-8 ----------------------------------------------------------------------------------------

ODD = os.fsdecode(b"caf\xe9")


@pytest.fixture
def odd(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose name is not UTF-8."""
    folder = work / ODD
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    monkeypatch.chdir(folder)
    return folder


def test_a_working_folder_whose_name_is_not_utf8(odd: Path, dlspec: Callable[..., CommandResult]) -> None:
    words = [each for each in RUN if not each.startswith("trainer.checkpoints")]
    run, sweep = f"hydra.run.dir='{odd}/r{ODD}'", f"hydra.sweep.dir='{odd}/sw'"
    assert dlspec(*words, run).code == 0
    (folder,) = odd.glob("r*")
    assert os.fsencode(folder.name) == b"rcaf\xe9"
    assert dlspec("resume", f"run='{folder}'", "trainer.epochs=3").code == 0
    assert dlspec(*INLINE_SWEEP[:-1], sweep).code == 0
    assert dlspec("resume", f"sweep='{odd}/sw'").out.startswith("2 of 2 jobs are done already")
    assert (read_json_object(odd / "sw/sweep.json") or {})["command"][-1] == sweep.replace("'", '"')
    for command in ("status", "report"):
        assert dlspec(command, str(odd)).code == 0
    assert b"rcaf" in (odd / "report.html").read_bytes()
    for path in odd.rglob("*"):
        if path.suffix in (".txt", ".json", ".jsonl", ".yaml", ".html", ".csv"):
            path.read_text(encoding="utf-8")


def test_data_whose_name_is_not_utf8(odd: Path, dlspec: Callable[..., CommandResult]) -> None:
    lines = [f"{word} is the word of line {number},{word}\n" for number in range(20) for word in ("one", "two")]
    (odd / f"{ODD}.csv").write_text("text,label\n" + "".join(lines))
    data = ("data=text_csv", "model=text_cnn", f"data.path='{ODD}.csv'", "trainer.epochs=1", *QUIET)
    assert dlspec(*data, "hydra.run.dir=run").code == 0
    assert dlspec("-m", *data, "seed=1,2", "hydra/launcher=dlspec", "hydra.sweep.dir=sweep").code == 0
    assert dlspec("resume", "sweep=sweep", "sweep.rerun=changed").out.startswith("2 of 2 jobs are done already")
    refused = dlspec("resume", "run=run", "trainer.epochs=2")
    assert refused.code == 2 and "Traceback" not in refused.err
    named = (f"data.path='{ODD}.csv'", "resume.allow=data.path")
    assert dlspec("resume", "run=run", "trainer.epochs=2", *named).code == 0


def test_what_files_have_for_such_a_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_json(path, {ODD: [ODD, "é"]})
    assert read_json_object(path) == {ODD: [ODD, "é"]}
    assert encode_json(ODD) == b'"caf\\udce9"'
    write_text(path, ODD)
    assert path.read_bytes() == b"caf?"
    write_yaml(path, {"path": ODD, "list": [ODD]})
    assert path.read_text(encoding="utf-8") == "path: caf\ufffd\nlist:\n- caf\ufffd\n"
