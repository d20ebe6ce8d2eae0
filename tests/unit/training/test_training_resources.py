"""What a run asks of the machine, and that it is given back."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlspec.compat.glibc import find_glibc
from dlspec.training.callbacks.callback import Callback
from dlspec.training.evaluation.tensor_arena import ALIGNMENT_BYTES, TensorArena
from dlspec.training.runtime import resources
from dlspec.training.runtime.resources import Allocator
from dlspec.training.state import TrainingState
from helpers.toy_training import make_network, make_trainer


class Seen(Callback):
    def __init__(self) -> None:
        self.threads = 0

    def on_step_end(self, state: TrainingState) -> None:
        self.threads = torch.get_num_threads()


def test_threads_are_a_runs_own() -> None:
    before, seen = torch.get_num_threads(), Seen()
    make_trainer(settings={"threads": before + 1}, callbacks=[seen]).run()
    assert (seen.threads, torch.get_num_threads()) == (before + 1, before)


@pytest.mark.parametrize(
    ("wanted", "largest", "is_sharded", "calls"),
    [("auto", 2**20 + 1, False, 4), ("auto", 2**20, False, 0), ("keep", 1, False, 4), ("default", 2**40, False, 0),
     ("auto", 2**40, True, 0), ("keep", 1, True, 4)],
)  # fmt: skip
def test_when_memory_is_kept(
    wanted: Allocator, largest: int, is_sharded: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            told.append((parameter, value))
            return 1

        def malloc_trim(self, pad: int) -> int:
            return 1

    monkeypatch.setattr(resources, "find_glibc", lambda: Library())
    with resources.use_allocator(wanted, torch.device("cpu"), largest, is_sharded=is_sharded):
        assert len(told) == calls / 2
    assert len(told) == calls
    with resources.use_allocator(wanted, torch.device("meta"), largest):
        assert len(told) == calls


READING = """
import re
from pathlib import Path

def mib(key):
    return int(re.search(key + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
"""
PROGRAM = f"""{READING}
import resource, torch
from dlspec.training.runtime.resources import use_allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12 * 2**20)  # 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
usual = faults()
with use_allocator("auto", torch.device("cpu"), 48 * 2**20):
    faults(), faults()
    kept = faults()
    within = mib("VmRSS")
print(usual, kept, within - mib("VmRSS"))
"""


@pytest.mark.skipif(find_glibc() is None, reason="no glibc")
def test_memory_is_not_mapped_anew_at_every_step() -> None:
    """Pages that are touched for the first time, counted by the system; the MiB that are given back at the end."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept, given_back = map(int, done.stdout.split())
    assert kept < usual / 4
    assert given_back >= 40


TRAINING = f"""{READING}
import sys
sys.path.insert(0, "tests")
import torch
from torch import nn
from helpers.toy_training import make_dataset, make_trainer
from dlspec.training.callbacks.callback import Callback

class Peak(Callback):
    def on_epoch_start(self, state):
        if state.epoch == 2:
            Path("/proc/self/clear_refs").write_text("5")
            self.start = mib("VmRSS")

    def on_train_end(self, state):
        print(mib("VmHWM") - self.start)

torch.set_num_threads(1)
image, features = nn.Unflatten(1, (1, 28, 28)), 32 * 26 * 26  # 11 MB a layer
net = nn.Sequential(nn.Linear(4, 784), image, nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(features, 3))
settings = dict(batch_size=128, epochs=4, allocator="keep")
make_trainer(net, make_dataset(train=40 * 128), settings=settings, callbacks=[Peak()], max_layer_outputs=features).fit()
"""


@pytest.mark.soak
@pytest.mark.skipif(find_glibc() is None or not Path("/proc/self/clear_refs").exists(), reason="no glibc")
def test_kept_memory_does_not_grow() -> None:
    """What an epoch keeps of each step lies apart from what the step gives back."""
    done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 60


@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 5), (2**18 + 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_a_shelf_gives_copies(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    shelf, made = TensorArena(), [torch.randint(0, 2, shape).to(dtype) for _ in range(3)]
    with torch.inference_mode():
        copies = [shelf.copy(each) for each in made]
    wanted = [each.clone() for each in made]
    for each in made:
        each.zero_()
    copies.append(shelf.copy(torch.ones(3, dtype=dtype).requires_grad_(dtype.is_floating_point).detach()))
    assert all(torch.equal(one, other) for one, other in zip(copies, wanted, strict=False))
    assert all(each.data_ptr() % ALIGNMENT_BYTES == 0 for each in copies)


def test_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kept, usual = make_network(), make_network()
    usual.load_state_dict(kept.state_dict())
    make_trainer(kept, settings={"allocator": "keep"}).run()
    make_trainer(usual, settings={"allocator": "default"}).run()
    assert all(torch.equal(one, other) for one, other in zip(kept.parameters(), usual.parameters(), strict=True))


def test_glibc_is_found_where_it_is() -> None:
    library = find_glibc()
    assert library is None or isinstance(library, ctypes.CDLL)
