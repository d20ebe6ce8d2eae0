"""Samples a second of dlspec's training, everything switched on, beside two hand-written loops.

python benchmarks/throughput.py [--data FOLDER_OF_MNIST] [--rounds 5] [--samples 20000]

The article's CNN (Conv2d 32 3x3, ReLU, Flatten, Linear 10) with Adam, on MNIST or on noise of its shape. All start
from the same weights and see the same samples in the same order, so they must end at the same loss. Each contender
lives in a process of its own (what one imports or allocates can't help or harm another), all on one core and with one
thread; they are taken in turn, one epoch a round, after a short round that is not counted. None of them validates.

With large batches glibc's allocator decides: activations beyond 32 MB are mapped, cleared and unmapped again at every
step, or not, as the heap happens to lie, which makes the same loop 1.6 times as fast or slow. So all processes are told
alike to keep their memory (`--allocator kept`); `--allocator default` leaves it as a user finds it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from epoch import Result, Task
from measuring import ONE_THREAD, machine, pin, spread, table

BATCH_SIZES = (32, 128, 512)
TOLERANCE = 1e-3
ROUNDING = 1e-5  # the same steps; only their losses are added up in another precision
CONTENDERS = ("naive", "best", "dlspec")
ALLOCATORS: Mapping[str, Mapping[str, str]] = {
    # Read by glibc when a process starts; its numbers are C ints.
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)},
    "default": {},
}


def main() -> None:
    arguments = _arguments()
    where, about = pin(), machine("torch")
    data = "MNIST" if arguments.data else "noise of MNIST's shape"
    print(f"{about}; {where}, one thread; {data}, {arguments.samples:,} samples an epoch;")
    print(f"allocator {arguments.allocator}; median of {arguments.rounds} rounds (quartiles)\n", flush=True)
    os.environ.update({**ONE_THREAD, **ALLOCATORS[arguments.allocator]})  # the contenders start with it
    with _processes(CONTENDERS) as ask:
        rows = [_row(ask, arguments, batch_size) for batch_size in BATCH_SIZES]
    speeds, ratios = zip(*rows, strict=True)
    print(table(["samples/s at batch", "naive", "best by hand", "dlspec, steps", "dlspec, epoch"], speeds), "\n")
    print(
        table(
            [
                "ratio at batch",
                "steps / naive",
                "epoch / naive",
                "steps / best",
                "epoch / best",
                "the same in CPU time",
            ],
            ratios,
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="folder with MNIST's four IDX files; without it, noise")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--allocator", choices=ALLOCATORS, default="kept")
    return parser.parse_args()


def _row(
    ask: Callable[[str, Task], Result], arguments: argparse.Namespace, batch_size: int
) -> tuple[list[str], list[str]]:
    """Every contender's rounds in turn, as a row of speeds and one of ratios."""
    data = str(Path(arguments.data).resolve()) if arguments.data else None
    for name in CONTENDERS:
        ask(name, Task(data, arguments.samples, batch_size, limit_batches=10))
    task = Task(data, arguments.samples, batch_size)
    rounds = [{name: ask(name, task) for name in _order(number)} for number in range(arguments.rounds)]
    for each in rounds:
        _check_losses(each)
    naive, best, ours = ([each[name] for each in rounds] for name in CONTENDERS)
    seconds = [[one.train for one in naive], [one.train for one in best]]
    seconds += [[one.train for one in ours], [one.epoch for one in ours]]
    speeds = [_speed(each, arguments.samples) for each in seconds]
    ratios = [_ratio(base, each) for base in seconds[:2] for each in seconds[2:]]
    ratios.append(_ratio([one.cpu for one in best], [one.cpu for one in ours]))
    return [str(batch_size), *speeds], [str(batch_size), *ratios]


def _order(number: int) -> tuple[str, ...]:
    """Each round begins with another contender."""
    first = number % len(CONTENDERS)
    return CONTENDERS[first:] + CONTENDERS[:first]


def _speed(seconds: Sequence[float], samples: int) -> str:
    return f"{spread([samples / each for each in seconds]):,.0f}"


def _ratio(base: Sequence[float], ours: Sequence[float]) -> str:
    """How many times as fast ours is, round by round."""
    return f"{spread([one / other for one, other in zip(base, ours, strict=True)]):.2f}"


def _check_losses(results: dict[str, Result]) -> None:
    """Contenders that did not do the same work must not be compared. (Only the fused Adam rounds otherwise.)"""
    losses = {name: each.loss for name, each in results.items()}
    if max(losses.values()) > (1 + TOLERANCE) * min(losses.values()):
        raise SystemExit(f"the contenders' losses differ by more than {TOLERANCE:g}: {losses}")
    if abs(losses["dlspec"] - losses["best"]) > ROUNDING * losses["best"]:
        raise SystemExit(f"dlspec and the best loop must end at the same loss: {losses}")


# The processes: each waits for its turn


@contextmanager
def _processes(names: Sequence[str]) -> Iterator[Callable[[str, Task], Result]]:
    """A process for each contender, and what asks one of them to train."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    for name in names:
        ends[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(name, theirs), daemon=True).start()
        theirs.close()

    def ask(name: str, task: Task) -> Result:
        ends[name].send(task)
        try:
            answer = ends[name].recv()
        except (EOFError, ConnectionError):
            raise SystemExit(f"'{name}' ended; its reason stands above") from None
        assert isinstance(answer, Result)
        return answer

    yield ask
    for end in ends.values():
        end.close()


def _serve(name: str, connection: Connection) -> None:
    """Trains whenever it is asked to, until nobody asks any more."""
    import torch
    from contenders import CONTENDERS as functions

    torch.set_num_threads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(functions[name](task))


if __name__ == "__main__":
    main()
