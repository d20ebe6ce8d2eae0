"""Predictions that are killed at random moments, and files that are damaged in five hundred ways."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers.churn_table import format_csv, make_rows, train_churn_run
from helpers.command_line import PROGRAM, make_environment, run_in_this_process
from helpers.table_mutations import mutate_table

ROWS = 60_000


@pytest.mark.soak
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_twenty_kills(work: Path, output: str) -> None:
    """At any moment the output is absent, or the old one, or whole; the next command removes what a kill left."""
    train_churn_run(work)
    (work / "new.csv").write_text(format_csv(make_rows(ROWS, seed=1)), encoding="utf-8")
    words = ["predict", "run=run", "input=new.csv", f"output={output}"]
    start = time.monotonic()
    assert subprocess.run([*PROGRAM, *words], env=make_environment(), capture_output=True, check=True).returncode == 0
    duration, whole = time.monotonic() - start, (work / output).read_bytes()
    (work / output).unlink()
    numbers, ends = random.Random(0), set()
    for kill in range(20):
        before = set(work.glob(f".{output}.*"))  # what the kill before this one left
        process = subprocess.Popen([*PROGRAM, *words], env=make_environment(), stderr=subprocess.PIPE)
        while kill % 2 and process.poll() is None and not set(work.glob(f".{output}.*")) - before:
            time.sleep(0.001)  # Ctrl-C while Python imports its modules ends with Python's own traceback
        time.sleep(numbers.uniform(0, duration / 3 if kill % 2 else duration))
        process.send_signal(signal.SIGINT if kill % 2 else signal.SIGKILL)
        _, error = process.communicate()
        assert b"Traceback" not in error
        found = (work / output).read_bytes() if (work / output).exists() else b""
        assert found in (b"", whole)
        ends.add(bool(found))
        if kill % 2 and process.returncode == 130:
            assert not set(work.glob(f".{output}.*")) - before, "an interrupted command leaves nothing"
        (work / output).unlink(missing_ok=True)
    assert False in ends
    assert run_in_this_process(*words).code == 0
    assert (work / output).read_bytes() == whole
    assert not list(work.glob(f".{output}.*"))


def check_mutated_file(work: Path, seed: int) -> int:
    """Predict a damaged file, check that every row has an answer or a reason, and return the exit code."""
    numbers = random.Random(seed)
    content = format_csv(make_rows(25, seed=seed)).encode()
    (work / "new.csv").write_bytes(mutate_table(numbers, content))
    (work / "out.jsonl").unlink(missing_ok=True)
    said = run_in_this_process("predict", "run=run", "input=new.csv", "output=out.jsonl")
    assert said.code in (0, 2, 3), said
    assert (work / "out.jsonl").exists() == (said.code != 2), said
    assert said.err.strip() or said.code == 0
    if said.code != 2:
        rows = [json.loads(line) for line in (work / "out.jsonl").read_bytes().decode().split("\n")[:-1]]
        assert all((row["churned"] is None) == ("problem" in row) for row in rows)
        assert any("problem" in row for row in rows) == (said.code == 3)
    return said.code


@pytest.mark.soak
def test_five_hundred_mutated_files(work: Path) -> None:
    train_churn_run(work)
    codes = [check_mutated_file(work, seed) for seed in range(500)]
    assert set(codes) == {0, 2, 3}


def test_mutated_files(work: Path) -> None:
    """A sample of the same files."""
    train_churn_run(work)
    assert {check_mutated_file(work, seed) for seed in range(8)} <= {0, 2, 3}
