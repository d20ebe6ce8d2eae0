"""Processes of torchrun that fail, are killed, stand still or differ: all end, and resuming goes on."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlspec.runs.io import read_json_lines
from helpers.command_line import QUIET, make_environment
from helpers.rank_runs import TORCHRUN, kill_when_saved, list_rank_lines, mount_small_disk, run_ranks

pytestmark = pytest.mark.soak
RUN = (*QUIET, "data=digits", "model=failing", "trainer.progress=none", "trainer.batch_size=32", "trainer.test=last",
       "trainer.checkpoint_steps=3", "trainer.epochs=6", "optimizer=SGD", "optimizer.lr=0.01",
       "imports=[failing_layer]")  # fmt: skip
MODEL = """
layers:
  - Flatten
  - Linear: 64
  - ReLU
  - Failing
  - Dropout: 0.2
  - Linear: 10
"""
LAYER = '''
"""A layer that does in one process, at one step, what a variable says: RANK STEP ACTION."""
import os, signal
import torch
from torch import nn
import dlspec

@dlspec.layer
class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        rank, step, self.action = os.environ.get("FAIL", "-1 0 none").split()
        is_first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        self.left = int(step) if rank == os.environ.get("RANK") and is_first_start else -1

    def forward(self, value):
        if self.training and torch.is_grad_enabled():
            self.left -= 1
            if self.left == 0:
                return self.fail(value)
        return value

    def fail(self, value):
        if self.action == "raise":
            raise RuntimeError("something of the layer is wrong")
        if self.action == "memory":
            raise MemoryError
        if self.action == "allocate":
            return value + torch.empty(2**50)
        if self.action == "nan":
            return value * float("nan")
        os.kill(os.getpid(), getattr(signal, self.action))
        return value
'''


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, and with `straight`, a run in which nothing fails."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "conf/model").mkdir(parents=True)
    (folder / "conf/model/failing.yaml").write_text(MODEL)
    (folder / "conf/model/plain.yaml").write_text(MODEL.replace("  - Dropout: 0.2\n", ""))
    (folder / "failing_layer.py").write_text(LAYER)
    train(folder, "straight")
    return folder


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A folder of its own for each test."""
    return "".join(each if each.isalnum() else "_" for each in request.node.name)


def train(work: Path, folder: str, fail: str = "", *words: str, flags: Sequence[str] = (), seconds: int = 60) -> str:
    variables = {"FAIL": fail} if fail else {}
    variables["DLSPEC_MAX_RANK_SECONDS"] = str(seconds)
    done = run_ranks(work, 2, *RUN, *words, f"hydra.run.dir={folder}", flags=flags, **variables)
    assert bool(done.returncode) == (bool(fail) and not flags), done.stderr
    return done.stderr


def resume(work: Path, folder: str, world_size: int) -> None:
    done = run_ranks(work, world_size, "resume", f"run={folder}", "imports=[failing_layer]")
    assert done.returncode == 0, done.stderr


def equals(work: Path, folder: str, other: str) -> bool:
    files = [load_file(work / each / "checkpoints/last.safetensors") for each in (folder, other)]
    metrics = [(work / each / "metrics.jsonl").read_text() for each in (folder, other)]
    return metrics[0] == metrics[1] and all(each.equal(files[1][key]) for key, each in files[0].items())


@pytest.mark.parametrize(
    ("fail", "lines"),
    [
        ("1 20 raise", ["rank 1: the training failed: RuntimeError: something of the layer is wrong"]),
        ("0 20 raise", ["rank 0: the training failed: RuntimeError: something of the layer is wrong"]),
        ("1 20 memory", ["rank 1: out of memory on cpu in training, epoch 1, with batch size 32"]),
        ("1 20 nan", ["rank 1: train/loss became nan in epoch 1 at step 20"]),
        ("1 20 SIGKILL", ["rank 1 was killed; the other processes stop"]),
        ("0 20 SIGKILL", ["rank 0 was killed; the other processes stop"]),
        ("1 20 SIGSTOP", ["rank 1 did not answer for 5 seconds; the other processes stop"]),
        ("0 20 SIGSTOP", ["rank 0 did not answer for 5 seconds; the other processes stop"]),
        ("1 20 allocate", ["rank 1: out of memory on cpu in training, epoch 1, with batch size 32"]),
    ],
)  # fmt: skip
def test_one_process_fails(fail: str, lines: list[str], work: Path, name: str) -> None:
    text = train(work, name, fail, seconds=5)
    found = list_rank_lines(text)
    assert len(found) == len(lines), text
    assert all(one.startswith(other) for one, other in zip(found, lines, strict=True)), text
    resume(work, name, 2)
    assert equals(work, name, "straight")


@pytest.mark.parametrize("fail", ["1 50 SIGKILL", "0 50 SIGKILL", "1 50 raise"])
def test_torchrun_restarts_a_run(fail: str, work: Path, name: str) -> None:
    text = train(work, name, fail, flags=["--max-restarts", "2"])
    assert f"resuming {name} from step" in text
    assert equals(work, name, "straight")


def test_a_signal_to_one_process_saves_all(work: Path, name: str) -> None:
    text = train(work, name, "1 31 SIGTERM")
    assert text.count("interrupted by SIGTERM; to resume") == 1
    assert (work / name / "checkpoints/step-000000031.safetensors").exists()
    resume(work, name, 2)
    assert equals(work, name, "straight")


@pytest.mark.parametrize("name_of_signal", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_whole_process_group_saves_once(name_of_signal: str, work: Path, name: str) -> None:
    """As a terminal does: each process gets the signal, and again from torchrun."""
    words = [*RUN, "trainer.epochs=600", f"hydra.run.dir={name}"]
    process = subprocess.Popen(
        [*TORCHRUN, "2", "-m", "dlspec", *words], cwd=work, env=make_environment(), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not (work / name / "metrics.jsonl").exists():
        time.sleep(0.1)
    os.killpg(process.pid, getattr(signal, name_of_signal))
    _, text = process.communicate(timeout=60)
    assert text.count(f"interrupted by {name_of_signal}; to resume") == 1, text
    assert list((work / name / "checkpoints").glob("step-*"))
    assert "was killed" not in text


def test_the_machine_of_the_first_process_is_lost(work: Path, name: str) -> None:
    """Two torchruns stand for two machines; the first one and its process are killed."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    words = [*RUN, "trainer.epochs=600", f"hydra.run.dir={name}"]
    nodes = [
        subprocess.Popen(
            [*TORCHRUN[:3], "--nnodes=2", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}",
             "-m", "dlspec", *words], cwd=work, env=make_environment(), stderr=subprocess.PIPE, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    while nodes[1].poll() is None and not (work / name / "metrics.jsonl").exists():
        time.sleep(0.1)
    for child in Path(f"/proc/{nodes[0].pid}/task/{nodes[0].pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    nodes[0].kill()
    _, text = nodes[1].communicate(timeout=60)
    assert list_rank_lines(text) == ["rank 1 lost the connection to rank 0 and its torchrun"], text
    nodes[0].communicate()


def test_a_full_disk_of_the_first_process(work: Path, name: str) -> None:
    """The disk is too small for the second checkpoint; with more space the run goes on."""
    disk = work / f"{name}_disk"
    with mount_small_disk(disk, "400k") as enlarge:
        done = run_ranks(work, 2, *RUN, "trainer.keep_checkpoints=9", f"hydra.run.dir={disk / 'run'}")
        assert done.returncode, done.stderr
        assert [each[:8] for each in list_rank_lines(done.stderr)] == ["rank 0: "], done.stderr
        assert "No space left on device" in done.stderr or "not enough disk space" in done.stderr
        assert not [each.name for each in disk.rglob("*") if ".tmp" in each.name or "writing" in each.name]
        enlarge("16m")
        resume(work, f"{disk.name}/run", 2)
        assert equals(work, f"{disk.name}/run", "straight")


def test_another_spec_is_refused(work: Path, name: str) -> None:
    words = [*RUN, f"hydra.run.dir={name}", "optimizer.weight_decay="]
    (work / "start.py").write_text(f"""import os, sys
from dlspec.cli.main import run_command
words = {words}
words[-1] += os.environ["RANK"]
sys.exit(run_command(words))
""")
    done = subprocess.run(
        [*TORCHRUN, "2", "start.py"], cwd=work, env=make_environment(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode
    [line] = [each for each in done.stderr.splitlines() if "all processes need the same files" in each]
    assert line.startswith("rank 1 has optimizer.weight_decay 1.0, and rank 0 has 0.0; all processes need")
    assert not (work / name).exists()


def test_another_version_is_refused(work: Path, name: str) -> None:
    (work / "other_version.py").write_text("""import os, dlspec.jobs.parallel_checks as checks
if os.environ.get("RANK") == "1":
    checks.find_package_version = lambda name: "0.0.1"
""")
    done = run_ranks(work, 2, *RUN, "imports=[failing_layer,other_version]", f"hydra.run.dir={name}")
    assert done.returncode
    assert done.stderr.count("all processes need the same files, versions and settings") == 1
    assert "rank 1 has dlspec 0.0.1, and rank 0 has" in done.stderr
    assert not (work / name).exists()


def test_ten_kills(work: Path) -> None:
    chance, words = random.Random(7), [*RUN, "hydra.run.dir=killed", "trainer.epochs=60", "trainer.keep_checkpoints=9"]
    done = run_ranks(work, 2, *words, "hydra.run.dir=long")
    assert done.returncode == 0, done.stderr
    for _ in range(10):
        kill_when_saved(work, "killed", words, chance, 0.3)
        words = ["resume", "run=killed", "imports=[failing_layer]"]
    resume(work, "killed", 2)
    assert equals(work, "killed", "long")


@pytest.mark.parametrize("world_size", [1, 3])
def test_resuming_with_another_number_of_processes(world_size: int, work: Path, name: str) -> None:
    train(work, name, "1 31 SIGTERM", "model=plain")
    train(work, f"{name}_straight", "", "model=plain")
    resume(work, name, world_size)
    rows, others = (read_json_lines(work / each / "metrics.jsonl") for each in (name, f"{name}_straight"))
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    files = [load_file(work / each / "checkpoints/last.safetensors") for each in (name, f"{name}_straight")]
    for key, each in files[0].items():
        torch.testing.assert_close(each, files[1][key], rtol=1e-6, atol=1e-6)
