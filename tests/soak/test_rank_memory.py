"""The memory that each of two processes needs, and what `summary` predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlspec.analysis.training_memory import Parallel, TrainingStep
from dlspec.cli.summary.network_summary import summarize
from dlspec.config.composition import start_hydra
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.network.sharded_blocks import find_repeated_blocks
from helpers.command_line import QUIET, make_environment
from helpers.paths import ROOT
from helpers.rank_runs import TORCHRUN, run_ranks

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc"),
]
WORDS = ("model=measured", "data=random", "data.shape=null", "data.vocab_size=1000", "data.length=32", "data.size=128",
         "data.target=input", "trainer.batch_size=8", "trainer.limit_batches=6", "trainer.epochs=2", "imports=[probe]",
         "trainer.progress=none")  # fmt: skip
# ddp's first epoch, as all best weights are copied to the CPU; memory that fsdp returns must be returned here by glibc.
DDP = ("trainer.allocator=default", {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}, 4)
FSDP = ("trainer.allocator=auto", {}, 9)
PROBE = '''
"""A layer that writes the memory of its process when it is imported, and the most that two steps need."""
import ctypes, json, os
from pathlib import Path
import torch, torch.distributed, torchmetrics
from torch import nn
import dlspec

def read(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def warm_up():
    layer = nn.Linear(8, 8)
    layer(torch.zeros(2, 8)).sum().backward()
    torch.optim.Adam(layer.parameters(), fused=True).step()
    ctypes.CDLL(None).malloc_trim(0)

warm_up()
START = read("VmRSS")
FIRST_CALL = int(os.environ.get("FIRST_CALL", 1000))  # the other process only predicts

@dlspec.layer
class Probe(nn.Module):
    calls = 0

    def forward(self, value):
        if self.training and torch.is_grad_enabled():
            Probe.calls += 1
            if Probe.calls == FIRST_CALL:
                Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
            if Probe.calls == FIRST_CALL + 2:
                Path(f"memory{os.environ.get('RANK', 0)}.json").write_text(json.dumps(read("VmHWM") - START))
        return value
'''


def predict(parallel: Parallel) -> int:
    found = summarize(make_preparation(compose_or_raise([*WORDS], start_hydra(None))))
    prepared = found.prepared
    blocks = find_repeated_blocks(prepared.spec.graph.container_types)
    step = TrainingStep(prepared.network.module, prepared.optimizer, found.total_cost, 8, False, True, blocks)
    return step.estimate_memory(parallel, 2).total


@pytest.mark.parametrize(("parallel", "conditions"), [("ddp", DDP), ("fsdp", FSDP)])
def test_two_processes_need_what_was_predicted(
    parallel: Parallel, conditions: tuple[str, dict[str, str], int], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator, variables, first_call = conditions
    text = (ROOT / "conf/model/llama.yaml").read_text()
    text = text.replace("width: 128", "width: 512").replace("hidden: 352", "hidden: 1408")
    (work / "conf/model").mkdir(parents=True)
    (work / "conf/model/measured.yaml").write_text(text.replace("  - decoder:", "  - Probe\n  - decoder:"))
    (work / "probe.py").write_text(PROBE)
    variables = {**variables, "OMP_NUM_THREADS": "1", "FIRST_CALL": str(first_call)}
    done = run_ranks(work, 2, *QUIET, *WORDS, allocator, f"trainer.parallel={parallel}", **variables)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(work)
    monkeypatch.delitem(sys.modules, "probe", raising=False)
    torch.set_num_threads(1)
    predicted = predict(parallel)
    for rank in range(2):
        measured = json.loads((work / f"memory{rank}.json").read_text())
        assert measured == pytest.approx(predicted, rel=0.1)


def test_two_processes_divide_a_network_of_a_gigabyte() -> None:
    environment = {**make_environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TORCHRUN, "2", ROOT / "benchmarks/fsdp_memory.py"], env=environment, capture_output=True,
                          text=True, timeout=600, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranks = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ranks) == 2
    for rank in ranks:
        part, block = rank["part"], rank["block"]
        assert rank["building"] < 1.2 * part + block
        assert rank["training"] < 1.1 * (2 * part + 3 * block)
        assert rank["saving"] < 0.2 * part + block
