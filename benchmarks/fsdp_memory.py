"""Measure the memory of each process that builds a large network with `trainer.parallel=fsdp`.

    torchrun --nproc-per-node 2 benchmarks/fsdp_memory.py [WIDTH DEPTH]

By default a GPT of 1 GB. Each process prints its peak beyond what it had after its imports, the part of the parameters
that it keeps, and the largest block: building should need at most 1.2 times the part and one block.
"""

from __future__ import annotations

import gc
import sys
import tempfile
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
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = read_status("VmRSS")
        job = make_job(preparation, shows_progress=False)
        built, network = read_status("VmHWM") - before, job.prepared.network.module
        share = count_megabytes(get_local_part(each) for each in network.parameters())
        block = count_megabytes(network.get_submodule("blocks.0").parameters())
        job.trainer.run()
        trained, allowed = read_status("VmHWM") - before, 1.2 * share + block
        line = (
            f"rank {group.rank}: {count_megabytes(network.parameters()):.0f} MB of parameters, its part {share:.0f}, "
        )
        line += f"a block {block:.0f}; building took {built:.0f} ({built / allowed:.2f} of 1.2 parts and a block), "
        print(line + f"two steps {trained:.0f}\n", end="", flush=True)


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:] or (1024, 20)))
