"""Out of memory: one line says what to try, and what comes next has room."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import dlspec as library
from dlspec.training.health.out_of_memory import OutOfMemory, is_out_of_memory
from helpers.command_line import QUICK, CommandResult
from helpers.memory_layers import TOO_MANY_ELEMENTS, MemoryHungryLayer
from helpers.paths import ROOT
from helpers.toy_training import make_network, make_trainer


@pytest.mark.parametrize(
    ("most", "when", "settings", "text"),
    [
        (8, None, {}, "in training, epoch 1, with batch size 32; try trainer.batch_size=16, with "
         "trainer.accumulate=2 for equal updates"),
        (8, None, {"accumulate": 3}, "in training, epoch 1, with batch size 32; try trainer.batch_size=16, with "
         "trainer.accumulate=6 for equal updates"),
        (0, None, {"batch_size": 1}, "in training, epoch 1, with batch size 1; a single sample does not fit: "
         "use a smaller network or shorter samples"),
        (20, False, {}, "in validation, epoch 1, with batch size 30; try trainer.eval_batch_size=15"),
    ],
)  # fmt: skip
def test_says_what_to_try(most: int, when: bool | None, settings: dict[str, int], text: str) -> None:
    net = nn.Sequential(make_network(), MemoryHungryLayer(most, when))
    training = make_trainer(net, settings=settings)
    with pytest.raises(OutOfMemory) as caught:
        training.run()
    assert str(caught.value) == training.state.error == f"out of memory on cpu {text}"
    assert training.state.status == "failed"
    assert all(each.grad is None for each in net.parameters())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[nn.Module]]:
    """Every network that is trained; the first one takes more than there is."""
    from dlspec.training.trainer import Trainer

    networks: list[weakref.ref[nn.Module]] = []
    fit = Trainer.fit

    def noted(self: Trainer):  # type: ignore[no-untyped-def]
        assert not any(each() for each in networks), "the one before is still there"
        if not networks:
            self.state.network.register_forward_hook(lambda module, args, output: torch.empty(TOO_MANY_ELEMENTS))
        networks.append(weakref.ref(self.state.network))
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", noted)
    return networks


def test_nothing_is_held_by_the_error(trained: list[weakref.ref[nn.Module]]) -> None:
    with pytest.raises(library.TrainingFailed, match=r"^out of memory on cpu in training") as caught:
        library.train(["model=mlp", "trainer.progress=none"], "digits")
    gc.collect()
    assert trained[0]() is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("is_process", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_nothing_is_held_by_a_sweep(
    is_process: bool, trained: list[weakref.ref[nn.Module]], dlspec: Callable[..., CommandResult]
) -> None:
    if is_process:
        gc.disable()  # see dlspec.cli.main.main
    try:
        said = dlspec(
            "-m", "hydra/launcher=dlspec", "model=mlp", "trainer.batch_size=16,8", "trainer.progress=none", *QUICK
        )
    finally:
        gc.enable()
        gc.unfreeze()
    assert said.code == 1
    assert "2 jobs: 1 finished, 1 failed" in said.out
    assert len(trained) == 2


def test_what_is_out_of_memory() -> None:
    for text in (
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to",
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "MPS backend out of memory (MPS allocated: 18.03 GB, other allocations: 288.00 KB, max allowed: 18.13 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory",
    ):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


PROGRAM = """
import resource, sys
import torch
from dlspec.cli.main import run_command
from dlspec.compat.torchmetrics import skip_plot_imports

skip_plot_imports()
torch.nn.Linear(8, 8)(torch.ones(2, 8)).sum().backward()  # its threads and libraries are there
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.exit(run_command(["-m", "hydra/launcher=dlspec", *sys.argv[1:], "trainer.batch_size=2000,16"]))
"""
WIDE = """
layers:
  - Flatten
  - Linear: 20000
  - ReLU
  - Linear: 10
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_the_next_job_of_a_sweep_has_room(work: Path, write) -> None:
    write("conf/model/wide.yaml", WIDE)
    quiet = ["trainer.progress=none", "trainer.curves=false", "trainer.pictures=false", "trainer.checkpoints=false"]
    words = ["model=wide", "data=random", "data.shape=[8]", "data.num_classes=10", "data.size=4000", "optimizer=SGD"]
    command = [sys.executable, "-c", PROGRAM, *words, *quiet, "trainer.limit_batches=2", "trainer.epochs=1"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert "  failed: out of memory on cpu in training, epoch 1, with batch size 2,000; try " in done.stdout
    assert "2 jobs: 1 finished, 1 failed" in done.stdout
    assert "Traceback" not in done.stderr
