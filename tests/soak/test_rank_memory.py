"""The memory that `summary` predicts for each of two processes, and the memory that they need."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from dlspec.analysis.training_memory import Parallel, TrainingStep
from dlspec.cli.summary.network_summary import summarize
from dlspec.config.composition import start_hydra
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.network.sharded_blocks import find_repeated_blocks
from helpers.command_line import QUIET
from helpers.paths import ROOT
from helpers.rank_runs import run_ranks

pytestmark = pytest.mark.soak
WORDS = ("model=measured", "data=random", "data.shape=null", "data.vocab_size=1000", "data.length=32", "data.size=64",
         "data.target=input", "trainer.batch_size=8", "trainer.max_steps=8", "trainer.epochs=1", "imports=[probe]",
         "trainer.allocator=default", "trainer.progress=none")  # fmt: skip
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

@dlspec.layer
class Probe(nn.Module):
    calls = 0

    def forward(self, value):
        if self.training and torch.is_grad_enabled():
            Probe.calls += 1
            if Probe.calls == 4:
                Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
            if Probe.calls == 6:
                Path(f"memory{os.environ.get('RANK', 0)}.json").write_text(json.dumps(read("VmHWM") - START))
        return value
'''


def predict(parallel: Parallel) -> int:
    found = summarize(make_preparation(compose_or_raise([*WORDS], start_hydra(None))))
    prepared = found.prepared
    blocks = find_repeated_blocks(prepared.spec.graph.container_types)
    step = TrainingStep(prepared.network.module, prepared.optimizer, found.total_cost, 8, False, blocks)
    return step.estimate_memory(parallel, 2).total


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_need_what_was_predicted(parallel: Parallel, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "conf/model/llama.yaml").read_text()
    text = text.replace("width: 128", "width: 512").replace("hidden: 352", "hidden: 1408")
    (work / "conf/model").mkdir(parents=True)
    (work / "conf/model/measured.yaml").write_text(text.replace("  - decoder:", "  - Probe\n  - decoder:"))
    (work / "probe.py").write_text(PROBE)
    freed_at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = run_ranks(work, 2, *QUIET, *WORDS, f"trainer.parallel={parallel}", **freed_at_once)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(work)
    monkeypatch.delitem(sys.modules, "probe", raising=False)
    torch.set_num_threads(1)
    predicted = predict(parallel)
    for rank in range(2):
        measured = json.loads((work / f"memory{rank}.json").read_text())
        assert measured == pytest.approx(predicted, rel=0.1)
