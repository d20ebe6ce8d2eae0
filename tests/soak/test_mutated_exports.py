"""Exported files with changed bytes: `predict file=` refuses each in a line, or computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlspec.inference.export.run_export import export_run
from dlspec.inference.loading.loaded_run import load_run
from helpers.command_line import make_environment
from helpers.paths import ROOT
from helpers.predicted_runs import CASES, train_and_capture, write_files

pytestmark = pytest.mark.soak
MUTATIONS = 500
CASE_OF = {"mlp": "table of values", "text_gru": "table of texts"}
# Predicts with changed files in one process, which a crash would end; says how many were refused.
MUTATE = """
import random, resource, sys
from pathlib import Path
from helpers.command_line import run_in_this_process

resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
content, numbers, refused = Path("model.onnx").read_bytes(), random.Random(0), 0
for _ in range(int(sys.argv[1])):
    changed = bytearray(content)
    for _ in range(numbers.randint(1, 4)):
        changed[numbers.randrange(len(changed))] = numbers.randrange(256)
    if numbers.random() < 0.2:
        del changed[numbers.randrange(len(changed)) :]
    Path("mutated.onnx").write_bytes(bytes(changed))
    said = run_in_this_process("predict", "file=mutated.onnx", f"input={sys.argv[2]}", "output=out.csv")
    assert said.code in (0, 2, 3), said
    assert said.code != 2 or len(said.err.splitlines()) == 1, said.err
    refused += said.code == 2
print(refused)
"""


@pytest.mark.parametrize(("model", "rows"), [("mlp", "rows.csv"), ("text_gru", "rows.jsonl")])
def test_changed_files_are_refused_or_computed(
    model: str, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert train_and_capture(model, CASES[CASE_OF[model]], tmp_path / "run")
    export_run(load_run("run", device="cpu"), "model.onnx")
    environment = {**make_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    found = subprocess.run(
        [sys.executable, "-c", MUTATE, str(MUTATIONS), rows],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert int(found.stdout) > MUTATIONS // 4
