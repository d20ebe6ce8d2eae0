"""Measure the memory of each process that builds a large network with `trainer.parallel=fsdp`.

    torchrun --nproc-per-node 2 benchmarks/fsdp_memory.py [WIDTH DEPTH]

By default a GPT of 1 GB, trained without momentum and a single sample a process. Each process prints the part of the
parameters that it keeps, and the largest block, which is gathered at a time. Then its peaks in MB, beyond what it had
after its imports: building should need at most 1.2 times the part and a block; training two parts (weights and
gradients) and three blocks (gathered weights, gradients, and those that are sent). Saving is counted beyond training.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from dlspec.compat.torch_dtensor import get_local_part
from dlspec.config.composition import start_hydra
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.ranks import join_ranks
from dlspec.jobs.run_preparation import Preparation
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.checkpoint.sharded_checkpoint import write_sharded_checkpoint
from dlspec.training.distributed import ProcessGroup
from dlspec.training.trainer import Trainer

MB = 2**20


def read_status(name: str) -> float:
    """Read a number of this process's memory in MB: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(each for each in lines if each.startswith(name)).split()[1]) / 1024


def make_preparation_of_gpt(width: int, depth: int) -> Preparation:
    """Make the preparation of a short run of a GPT."""
    text = Path(tempfile.gettempdir(), "fsdp_memory.txt")
    text.write_text("to be or not to be, that is the question; " * 40)
    size = [f"model.params.{name}={value}" for name, value in (("width", width), ("depth", depth), ("length", 16))]
    words = ["model=gpt2", *size, "data=text", f"data.path={text}", "data.length=16", "model.params.heads=4",
             "trainer.parallel=fsdp", "trainer.checkpoints=false", "trainer.batch_size=2", "trainer.max_steps=2",
             "trainer.test=none", "trainer.limit_batches=2", "optimizer=SGD", "trainer.progress=none"]  # fmt: skip
    return make_preparation(compose_or_raise(words, start_hydra(None)))


def count_megabytes(tensors: Iterable[torch.Tensor]) -> float:
    """Count the memory of tensors; of divided ones, of all parts together."""
    return sum(each.numel() * each.element_size() for each in tensors) / MB


def main(width: int, depth: int) -> None:
    """Build the network, train two steps, and print the memory of this process."""
    register()
    with join_ranks() as group:
        make_job(make_preparation_of_gpt(16, 2), shows_progress=False).trainer.run()  # imports everything
        preparation = make_preparation_of_gpt(width, depth)
        gc.collect()
        reset_peak()
        before = read_status("VmRSS")
        job = make_job(preparation, shows_progress=False)
        network = job.prepared.network.module
        share = count_megabytes(get_local_part(each) for each in network.parameters())
        block = count_megabytes(network.get_submodule("blocks.0").parameters())
        peaks = {"building": reset_peak() - before}
        job.trainer.run()
        peaks["training"] = reset_peak() - before
        seconds = save(job.trainer, group)
        peaks["saving"] = reset_peak() - read_status("VmRSS")
        sizes = {"rank": group.rank, "all": count_megabytes(network.parameters()), "part": share, "block": block}
        figures = {name: round(each) for name, each in {**sizes, **peaks}.items()}
        print(json.dumps({**figures, "seconds to save": round(seconds, 1)}) + "\n", end="", flush=True)


def reset_peak() -> float:
    """Return the peak of this process's memory in MB, and let it start again from the present."""
    peak = read_status("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def save(trainer: Trainer, group: ProcessGroup) -> float:
    """Write a sharded checkpoint, delete it, and return how many seconds it took."""
    folder = Path(tempfile.gettempdir(), "fsdp_memory")
    folder.mkdir(exist_ok=True)
    started, snapshot = time.perf_counter(), trainer.snapshot()
    assert snapshot is not None
    write_sharded_checkpoint(folder, snapshot, {}, group)
    seconds = time.perf_counter() - started
    if group.is_writer:
        shutil.rmtree(folder)
    return seconds


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:] or (1024, 20)))
