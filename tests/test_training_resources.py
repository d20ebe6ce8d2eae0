"""What a run asks of the machine, and that it is given back."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch
from training_parts import network, trainer

from dlspec.training import resources
from dlspec.training.callbacks import Callback
from dlspec.training.state import State


class Seen(Callback):
    def __init__(self) -> None:
        self.threads = 0

    def on_step_end(self, state: State) -> None:
        self.threads = torch.get_num_threads()


def test_threads_are_a_runs_own() -> None:
    before, seen = torch.get_num_threads(), Seen()
    trainer(settings={"threads": before + 1}, callbacks=[seen]).run()
    assert (seen.threads, torch.get_num_threads()) == (before + 1, before)


@pytest.mark.parametrize(
    ("wanted", "largest", "calls"),
    [("auto", 33 * 2**20, 4), ("auto", 31 * 2**20, 0), ("keep", 1, 4), ("default", 2**40, 0)],
)
def test_when_memory_is_kept(wanted: str, largest: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            told.append((parameter, value))
            return 1

        def malloc_trim(self, pad: int) -> int:
            return 1

    monkeypatch.setattr(resources, "_glibc", lambda: Library())
    with resources.allocator(wanted, torch.device("cpu"), largest):  # type: ignore[arg-type]
        assert len(told) == calls / 2
    assert len(told) == calls
    with resources.allocator(wanted, torch.device("meta"), largest):  # type: ignore[arg-type]
        assert len(told) == calls


PROGRAM = """
import resource, torch
from dlspec.training.resources import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12 * 2**20)  # 48 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
usual = faults()
with allocator("auto", torch.device("cpu"), 48 * 2**20):
    faults(), faults()
    kept = faults()
print(usual, kept, faults())
"""


@pytest.mark.skipif(resources._glibc() is None, reason="no glibc")
def test_memory_is_not_mapped_anew_at_every_step() -> None:
    """Pages that are touched for the first time, counted by the system."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept, after = map(int, done.stdout.split())
    assert kept < usual / 4
    assert after > usual / 20, "chance lets glibc reuse some of it"


def test_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kept, usual = network(), network()
    usual.load_state_dict(kept.state_dict())
    trainer(kept, settings={"allocator": "keep"}).run()
    trainer(usual, settings={"allocator": "default"}).run()
    assert all(torch.equal(one, other) for one, other in zip(kept.parameters(), usual.parameters(), strict=True))


def test_glibc_is_found_where_it_is() -> None:
    library = resources._glibc()
    assert library is None or isinstance(library, ctypes.CDLL)
