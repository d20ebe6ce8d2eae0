"""Forward and backward pass of networks built by dlspec, compared with the same networks written by hand.

python benchmarks/forward.py [--rounds 60]

Both have the same weights and get the same batches. They take turns in one process, on one core with one thread. A
ratio is computed within each round; the table has the median and its 95 % confidence interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from measuring import machine, median_interval, pin, table
from pairs import PAIRS
from torch import Tensor, nn

BATCH_SIZES = {"ResNet-18": 8, "small GPT": 8, "text model": 32}
WARM_UP = 3


@dataclass(frozen=True)
class Seconds:
    """Wall-clock and CPU seconds of one forward and backward pass."""

    clock: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{machine('torch')}; {pin()}, one thread; median of {rounds} rounds (its 95 % interval)\n", flush=True)
    header = ["forward and backward", "by hand, ms", "by hand / dlspec", "in CPU time", "outputs differ", "gradients"]
    print(table(header, [_row(name, size, rounds) for name, size in BATCH_SIZES.items()]))


def _row(name: str, size: int, rounds: int) -> list[str]:
    ours, by_hand = PAIRS[name].both()
    batch = PAIRS[name].batch(size)
    outputs, gradients = difference(ours, by_hand, batch)
    times = list(_rounds(ours.train(), by_hand.train(), batch, rounds))
    milliseconds = median_interval([1000 * theirs.clock for _, theirs in times])
    clock = median_interval([theirs.clock / mine.clock for mine, theirs in times])
    cpu = median_interval([theirs.cpu / mine.cpu for mine, theirs in times])
    shape = "x".join(str(each) for each in batch.shape)
    return [
        f"{name}, {shape}",
        f"{milliseconds:.1f}",
        f"{clock:.3f}",
        f"{cpu:.3f}",
        f"{outputs:.0e}",
        f"{gradients:.0e}",
    ]


def difference(ours: nn.Module, by_hand: nn.Module, batch: Tensor) -> tuple[float, float]:
    """The largest difference of outputs, and of gradients, each relative to the largest value."""
    mine, theirs = ours.eval()(batch), by_hand.eval()(batch)
    gradient = torch.randn_like(mine)
    mine.backward(gradient)
    theirs.backward(gradient)
    pairs = zip(ours.parameters(), by_hand.parameters(), strict=True)
    return _relative(mine, theirs), max(_relative(one.grad, other.grad) for one, other in pairs)


def _relative(one: Tensor | None, other: Tensor | None) -> float:
    assert one is not None and other is not None
    return ((one - other).abs().max() / other.abs().max()).item()


def _rounds(ours: nn.Module, by_hand: nn.Module, batch: Tensor, rounds: int) -> Iterator[tuple[Seconds, Seconds]]:
    """Yield the times of both contenders for each round. The contender that goes first alternates."""
    gradient = torch.randn_like(ours(batch).detach())
    for number in range(rounds + WARM_UP):
        order = (ours, by_hand) if number % 2 else (by_hand, ours)
        times = {id(network): _pass(network, batch, gradient) for network in order}
        if number >= WARM_UP:
            yield times[id(ours)], times[id(by_hand)]


def _pass(network: nn.Module, batch: Tensor, gradient: Tensor) -> Seconds:
    network.zero_grad(set_to_none=True)
    clock, cpu = time.perf_counter(), time.process_time()
    network(batch).backward(gradient)
    return Seconds(time.perf_counter() - clock, time.process_time() - cpu)


if __name__ == "__main__":
    main()
