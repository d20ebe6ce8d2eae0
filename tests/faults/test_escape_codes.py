"""Names and texts from strangers: no command prints a character that a terminal acts on, or that reorders text."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import unicodedata
from pathlib import Path

import pytest

from dlspec.runs.log_file import LogFile
from helpers.command_line import QUIET, run_in_this_process

EVIL = "a\x1b]0;pwned\x07\x9b2J\u202eb\u2066\u061c\u2028"
SMALL = (*QUIET, "model=linear", "trainer.progress=lines", "trainer.batch_size=16", "trainer.limit_batches=2",
         "trainer.epochs=1")  # fmt: skip
VISIBLE = {"\n", "\t"}


def find_evil(text: str) -> set[str]:
    """The control and format characters in a text."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp")} - VISIBLE


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(folder):
        assert run_in_this_process(*SMALL, "hydra.run.dir=run").code == 0
    return folder / "run"


@pytest.fixture
def evil_run(finished: Path, work: Path) -> Path:
    """A run below runs/ whose folder, spec, state and error are full of escape codes."""
    folder = work / "runs" / EVIL
    shutil.copytree(finished, folder)
    return folder


def check_output(*words: str) -> str:
    said = run_in_this_process(*words)
    text = said.out + said.err
    assert find_evil(text) == set(), words
    assert said.code in (0, 1, 2), said
    return text


def test_the_name_of_the_newest_run(evil_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert " is finished; " in check_output("resume", "run=latest")
    assert "resuming runs/a\ufffd]0;pwned" in check_output("resume", "run=latest", "trainer.epochs=2")
    newest = max((evil_run / "checkpoints").glob("step-*"))
    newest.write_bytes(b"")
    check_output("resume", "run=latest", "trainer.epochs=3")
    assert "can't be used" in caplog.text
    assert find_evil("".join(each.getMessage() for each in caplog.records)) == set()
    check_output("resume", "run=latest", "optimizer.lr=7")
    check_output("run=latest", *QUIET, "trainer.progress=none")
    (evil_run / "checkpoints").rename(evil_run / "elsewhere")
    (evil_run / "checkpoints").symlink_to("elsewhere")
    assert "is a symbolic link" in check_output("resume", "run=latest")
    assert find_evil((evil_run / "log.txt").read_text()) == set()


def test_texts_of_a_strangers_run(evil_run: Path, work: Path) -> None:
    for name, changes in {
        "status.json": {"status": "failed", "reason": EVIL, "phase": EVIL, "monitor": EVIL, "monitored": 1.0},
        "result.json": {"status": "failed", "error": EVIL, "best": {EVIL: 1.0}, "monitor": EVIL},
        "environment.json": {EVIL: EVIL},
    }.items():
        path = evil_run / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    spec = evil_run / "spec.yaml"
    spec.write_text(spec.read_text().replace("seed: 0", f"seed: 0\n{json.dumps(EVIL)}: {json.dumps(EVIL)}", 1))
    other = shutil.copytree(evil_run, work / "runs/other")
    (other / "spec.yaml").write_text(spec.read_text().replace("lr: ", "lr: 1"))
    for words in (("status",), ("report",), ("compare", str(evil_run), str(other)), ("resume", f"run={other}")):
        check_output(*words)
    assert find_evil(Path("runs/leaderboard.csv").read_text()) == set()


def test_texts_of_a_strangers_sweep(work: Path) -> None:
    Path("sweep").mkdir()
    for command in (
        [f"model={EVIL}"],
        ["model=linear", f"+trainer.x='{EVIL}'", "seed=0,1"],
        [EVIL],
        [f"imports=['{EVIL}']"],
    ):
        job = {"number": 0, "folder": EVIL, "hash": EVIL, "overrides": [EVIL], "status": "failed", "error": EVIL,
               "code": EVIL, "data": EVIL}  # fmt: skip
        tree = {"format": 1, "command": command, "config_dir": None, "jobs": [job]}
        Path("sweep/sweep.json").write_text(json.dumps(tree))
        check_output("resume", "sweep=sweep")
        check_output("report", "sweep")
    tree["config_dir"] = EVIL
    Path("sweep/sweep.json").write_text(json.dumps(tree))
    check_output("resume", "sweep=sweep")


def test_the_log_of_other_libraries(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "log.txt")
    handler.handle(logging.makeLogRecord({"msg": "%s\n\tnext line", "args": (EVIL,)}))
    text = (tmp_path / "log.txt").read_text()
    assert (find_evil(text), text.endswith("\n\tnext line\n")) == (set(), True)
