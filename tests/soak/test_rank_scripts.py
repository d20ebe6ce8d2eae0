"""Scripts that torchrun starts: `dlspec.train` and `dlspec.resume` use all processes, and each gets the result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import make_environment
from helpers.rank_runs import TORCHRUN

pytestmark = pytest.mark.soak
SCRIPT = """
import json, os
import dlspec

quiet = {"progress": "none", "curves": False, "tensorboard": False, "pictures": False}
spec = {"model": "mlp", "trainer": {"epochs": 2, "batch_size": 64, **quiet}}
unwritten = dlspec.train(spec, "digits")
written = dlspec.train(spec, "digits", folder="out")
resumed = dlspec.resume(written.folder, changes={"trainer": {"epochs": 3}})
found = {name: [dict(each.results), str(each.folder), float(sum(p.sum() for p in each.network.parameters()))]
         for name, each in (("unwritten", unwritten), ("written", written), ("resumed", resumed))}
with open(f"rank{os.environ.get('RANK', '')}.json", "w") as file:
    json.dump(found, file)
"""


def run_script(folder: Path, starter: Sequence[str], text: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [*starter, "script.py"], cwd=folder, env=make_environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_script_trains_with_all_processes(tmp_path: Path) -> None:
    done = run_script(tmp_path / "two", [*TORCHRUN, "2"])
    assert done.returncode == 0, done.stderr
    assert run_script(tmp_path / "one", [sys.executable]).returncode == 0
    first, second, alone = (read(tmp_path / each) for each in ("two/rank0.json", "two/rank1.json", "one/rank.json"))
    assert first == second
    assert first["unwritten"][1] == "None" and first["written"][1] == "out/run"
    assert (tmp_path / "two/out/run/log.rank1.txt").exists()
    for name, (results, _, total) in alone.items():
        assert first[name][0] == pytest.approx(results, rel=1e-5)
        assert first[name][2] == pytest.approx(total, rel=1e-5)


def test_processes_that_are_connected_already_are_refused(tmp_path: Path) -> None:
    text = "import torch.distributed\ntorch.distributed.init_process_group('gloo')\n" + SCRIPT
    done = run_script(tmp_path, [*TORCHRUN, "2"], text)
    assert done.returncode
    assert "the processes of torchrun are already connected; leave out init_process_group" in done.stderr
