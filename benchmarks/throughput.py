"""Samples a second of dlspec's training, everything switched on, beside loops by hand and other libraries.

python benchmarks/throughput.py [--works cnn_32,text_lstm] [--contenders naive,dlspec] [--rounds 5] [--out FOLDER]

All train the same networks with Adam on the same data (noise of the works' shapes, for the small GPT Python's
documentation). The PyTorch loops and dlspec start from the same weights, see the same samples in the same order and
must end at the same loss. Each contender lives in a process of its own, all on one core and with one thread; they take
turns, an epoch a round, after one that is not counted. None of them validates. What is not installed is left out.

Peak memory is what a process's resident memory grows to beyond what it held before it trained first, when libraries
were loaded and data in memory. Results are written as they come, to FOLDER/throughput.json; with `--show` nothing is
trained, and the tables and the picture are made of such a file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measuring import ONE_THREAD, machine, pin, spread, table

KERAS = {f"Keras, {each}": each for each in ("torch", "tensorflow", "jax")}
ONE_THREAD_ELSEWHERE = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
SAME = ("naive", "best eager", "best compiled", "dlspec", "dlspec, compile=step", "dlspec, tune")
"""Those that start alike."""
TOLERANCE = 1e-3
Rounds = dict[str, list[dict[str, Any]]]


def main() -> None:
    arguments = _arguments()
    if arguments.show:
        found = json.loads(Path(arguments.show).read_text(encoding="utf-8"))
        _show(found, Path(arguments.show).with_suffix(".png"))
        return
    where = pin()
    os.environ.update({**ONE_THREAD, **ONE_THREAD_ELSEWHERE})  # the contenders start with it
    out = Path(arguments.out) / "throughput.json"
    about = f"{machine('torch')}; {where}, one thread; median of {arguments.rounds} rounds (quartiles)"
    found: dict[str, Any] = {"about": about, "works": {}, "left out": {}}
    names = arguments.contenders.split(",") if arguments.contenders else _all()
    for work in arguments.works.split(","):
        with _processes(names) as ask:
            found["works"][work] = _measure(ask, work, names, arguments.rounds, found["left out"])
        out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(work, {name: f"{_speeds(found, work, name).middle:,.0f}" for name in found["works"][work]}, flush=True)
    _show(found, out.with_suffix(".png"))


def _arguments() -> argparse.Namespace:
    from works import WORKS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--contenders", help="their names, as the tables show them; all without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=".", help="where throughput.json and throughput.png go")
    parser.add_argument("--show", metavar="FILE", help="make the tables and the picture of a throughput.json")
    return parser.parse_args()


def _all() -> list[str]:
    from contenders import CONTENDERS

    return [*CONTENDERS, *KERAS]


def _measure(
    ask: Callable[[str, Any], Any], work: str, names: Sequence[str], rounds: int, left_out: dict[str, str]
) -> Rounds:
    """Every contender's rounds, in turn."""
    from works import Task

    found: Rounds = {}
    for name in names:
        answer = ask(name, Task(work, is_short=True))
        if isinstance(answer, str):
            left_out[f"{name}: {work}"] = answer
            print(f"left out: {name}: {answer}", flush=True)
        else:
            found[name] = []
    taking = list(found)
    for number in range(rounds):
        first = number % len(taking)
        for name in [*taking[first:], *taking[:first]]:
            found[name].append(vars(ask(name, Task(work))))
    _check_losses(work, found)
    return found


def _check_losses(work: str, found: Rounds) -> None:
    """Contenders that did not do the same work must not be compared."""
    losses = {name: rows[-1]["loss"] for name, rows in found.items() if name in SAME}
    if losses and max(losses.values()) > (1 + TOLERANCE) * min(losses.values()):
        print(f"{work}: losses differ by more than {TOLERANCE:g}: {losses}", flush=True)


# Tables and the picture


def _speeds(found: Mapping[str, Any], work: str, name: str) -> Any:
    from works import WORKS

    return spread([WORKS[work].samples / each["seconds"] for each in found["works"][work][name]])


def _ratios(found: Mapping[str, Any], work: str, name: str, base: str) -> Any:
    """Round by round."""
    rows = found["works"][work]
    pairs = zip(rows[base], rows[name], strict=True)
    return spread([theirs["seconds"] / mine["seconds"] for theirs, mine in pairs])


def _show(found: Mapping[str, Any], picture: Path) -> None:
    from works import WORKS

    works = list(found["works"])
    names = list(dict.fromkeys(name for rows in found["works"].values() for name in rows))
    titles = [WORKS[work].title for work in works]
    print(f"{found['about']}\n")

    def cells(form: Callable[[str, str], str]) -> list[list[str]]:
        return [[name, *(form(work, name) if name in found["works"][work] else "" for work in works)] for name in names]

    print(table(["times naive", *titles], cells(lambda work, name: f"{_ratios(found, work, name, 'naive'):.2f}")))
    print()
    print(table(["times best eager", *titles], cells(lambda work, name: _to_best(found, work, name))), "\n")
    print(table(["samples/s", *titles], cells(lambda work, name: f"{_speeds(found, work, name).middle:,.0f}")), "\n")
    peaks = cells(lambda work, name: f"{max(each['peak'] for each in found['works'][work][name]) / 2**20:,.0f}")
    print(table(["peak MiB", *titles], peaks), "\n")
    losses = cells(lambda work, name: f"{found['works'][work][name][-1]['loss']:.4f}")
    print(table(["loss", *titles], losses), "\n")
    for name, rows in ((name, found["works"][work][name]) for work in works for name in found["works"][work]):
        if rows[-1]["note"]:
            print(f"{name}: {rows[-1]['note']}")
    for name, reason in found["left out"].items():
        print(f"left out: {name}: {reason}")
    _draw(found, works, names, picture)


def _to_best(found: Mapping[str, Any], work: str, name: str) -> str:
    return f"{_ratios(found, work, name, 'best eager'):.2f}" if "best eager" in found["works"][work] else ""


def _draw(found: Mapping[str, Any], works: Sequence[str], names: Sequence[str], picture: Path) -> None:
    """A row of dots a work: how many times as fast as the naive loop."""
    from matplotlib.figure import Figure
    from works import WORKS

    figure = Figure(figsize=(9, 1.2 + 0.75 * len(works)), layout="constrained")
    axes = figure.add_subplot()
    kinds = {"dlspec": ("#2563eb", "o"), "best": ("#111827", "|"), "naive": ("#9ca3af", "|")}
    others = iter(["#ea580c", "#f59e0b", "#16a34a", "#9333ea", "#db2777", "#0891b2"])
    markers = {"dlspec": "o", "dlspec, compile=step": "^", "dlspec, bf16": "s", "dlspec, tune": "D"}
    for name in names:
        color, marker = kinds.get(name.split(",")[0].split(" ")[0]) or (next(others), "x")
        marker = markers.get(name, "P" if name.startswith("dlspec") else marker)
        there = [(place, work) for place, work in enumerate(works) if name in found["works"][work]]
        values = [_ratios(found, work, name, "naive").middle for _, work in there]
        size = 260 if marker == "|" else 46
        axes.scatter(values, [-place for place, _ in there], s=size, c=color, marker=marker, label=name, zorder=3)
    axes.set_xscale("log")
    ticks = [0.25, 0.5, 1, 1.5, 2, 3, 4]
    axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks([-place for place in range(len(works))], [WORKS[work].title for work in works])
    axes.set_xlabel("samples a second, times the naive loop (log scale)")
    axes.grid(axis="x", color="#e5e7eb")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(picture, dpi=110)


# The processes: each waits for its turn


@contextmanager
def _processes(names: Sequence[str]) -> Iterator[Callable[[str, Any], Any]]:
    """A process for each contender, and what asks one of them to train."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    for name in names:
        ends[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(name, theirs), daemon=True).start()
        theirs.close()

    def ask(name: str, task: Any) -> Any:
        ends[name].send(task)
        try:
            return ends[name].recv()
        except (EOFError, ConnectionError):
            return "it ended; its reason stands above"

    yield ask
    for end in ends.values():
        end.close()


def _serve(name: str, connection: Connection) -> None:
    """Trains whenever it is asked to, until nobody asks any more."""
    if name in KERAS:
        os.environ["KERAS_BACKEND"] = KERAS[name]
    import torch
    from contenders import CONTENDERS, left_out

    torch.set_num_threads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            if name in KERAS:
                from keras_peers import train

                answer: Any = train(task)
            else:
                answer = CONTENDERS[name](task)
        except Exception as error:
            reason = left_out(error)
            if not reason:
                raise
            answer = reason
        connection.send(answer)


if __name__ == "__main__":
    main()
