"""Training speed of dlspec with everything switched on, compared with hand-written loops and other libraries.

python benchmarks/throughput.py [--works cnn_32,text_lstm] [--contenders "naive,dlspec tune"] [--rounds 5] [--out .]
python benchmarks/throughput.py --device cuda                                                  the same on a GPU

All contenders train the same networks with Adam on the same data (noise, the digits, Python's documentation). The
PyTorch loops and dlspec start from the same weights, get the same samples in the same order and must reach the same
loss. Each contender trains in its own process, on one core and with one thread. It stops at the end of an epoch and
continues when it is its turn again. Everything before the second turn (the first epochs, compiling, tuning) is not
counted in their speed. The time of compiling is that of the first turn beyond the others: cold in a process with empty
caches, warm in the next one. No contender validates. Libraries that are not installed, and modes that this version of
dlspec does not support, are left out.

Peak memory is the largest resident memory of a process in its turns, minus its resident memory at the start of the
first epoch. On a GPU it is the memory that PyTorch has allocated there, and a table shows the fraction of the roofline
that each contender reaches. Results are written after each round to throughput.json in the folder `--out`. With
`--show FILE` nothing is trained, and the tables and the figure are made from that file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from contenders import ALIKE, COMPILING, CONTENDERS, GPU
from measuring import ONE_THREAD, machine, pin
from throughput_tables import draw, tables
from turns import Turn, Turns
from works import Task, works_on

ONE_THREAD_ELSEWHERE = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
PEERS = ("lightning", "skorch", "keras", "tensorflow-cpu", "tensorflow", "jax")
TOLERANCE = 1e-3
Ask = Callable[[str], Turn | str]


def main() -> None:
    arguments = _arguments()
    if arguments.show:
        _show(Path(arguments.show))
        return
    os.environ.update({**ONE_THREAD, **ONE_THREAD_ELSEWHERE})  # the contenders inherit it
    file = Path(arguments.out) / "throughput.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"about": _about(arguments), "works": {}, "left out": {}}
    with _empty_caches():
        for name in arguments.works:
            work = works_on(arguments.device)[name]
            samples = min(arguments.samples or work.samples, work.samples)
            task = Task(name, samples, work.epochs * (arguments.rounds + 2), arguments.data, arguments.device)
            _measure(task, arguments.contenders, arguments.rounds, found, file)
            _check_losses(name, found["works"][name])
    _show(file)


@contextmanager
def _empty_caches() -> Iterator[None]:
    """Give compilers an empty folder for their caches."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            {"DLSPEC_CACHE": folder, "TORCHINDUCTOR_CACHE_DIR": folder, "JAX_COMPILATION_CACHE_DIR": folder}
        )
        yield


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--works", help=f"all by default: {','.join(works_on('cpu'))}; on a GPU {','.join(works_on('cuda'))}"
    )
    parser.add_argument("--contenders", help=f"all by default: {','.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, help="maximum number of samples per epoch")
    parser.add_argument("--data", type=os.path.abspath, help="folder with MNIST's four IDX files; without it, noise")
    parser.add_argument("--out", default=".", help="folder for throughput.json and throughput.png")
    parser.add_argument("--show", metavar="FILE", help="make the tables and the figure from a throughput.json")
    arguments = parser.parse_args()
    there = [each for each in CONTENDERS if arguments.device == "cuda" or each not in GPU]
    for name, known in (("works", list(works_on(arguments.device))), ("contenders", there)):
        words = getattr(arguments, name)
        setattr(arguments, name, words.split(",") if words else known)
        if unknown := [each for each in getattr(arguments, name) if each not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; choose from: {', '.join(known)}")
    return arguments


def _about(arguments: argparse.Namespace) -> str:
    there = []
    for name in PEERS:
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    data = "MNIST" if arguments.data else "noise of MNIST's shape"
    rounds = f"median of {arguments.rounds} rounds (quartiles)"
    where, cores = (f"{_gpu()}; ", "one thread") if arguments.device == "cuda" else ("", "one pinned core, one thread")
    return f"{where}{machine('torch')}; {', '.join(there)}; {cores}; {data} for the CNN; {rounds}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _measure(task: Task, names: Sequence[str], rounds: int, found: dict[str, Any], file: Path) -> None:
    """Run the turns of all contenders, and write them to `found` and to the file after each round."""
    turns: dict[str, list[dict[str, Any]]] = {}
    cold: dict[str, float] = {}
    warm: dict[str, float] = {}
    found["works"][task.name] = {
        "title": task.work.title, "samples": task.samples * task.work.epochs, "turns": turns, "cold": cold, "warm": warm
    }  # fmt: skip
    for name in [each for each in names if each in COMPILING]:
        with _processes(task, [name]) as ask:
            answer = ask(name)
            cold[name] = answer.seconds if isinstance(answer, Turn) else 0.0
    with _processes(task, names) as ask:
        for name in names:
            answer = ask(name)
            if isinstance(answer, str):
                found["left out"].setdefault(f"{name}: {answer}", []).append(task.name)
                print(f"{task.name}: {name} is left out: {answer}", flush=True)
            else:
                turns[name] = []
                warm[name] = answer.seconds
        taking = list(turns)
        for number in range(rounds):
            first = number % max(len(taking), 1)  # each round starts with a different contender
            for name in [*taking[first:], *taking[:first]]:
                answer = ask(name)
                if isinstance(answer, str):
                    raise SystemExit(f"{task.name}: {name}: {answer}")
                turns[name].append(asdict(answer))
            file.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(f"{task.name}: round {number + 1}", flush=True)


def _check_losses(name: str, work: dict[str, Any]) -> None:
    """Warn if contenders reach different losses: then they did not do the same work and cannot be compared."""
    losses = {each: turns[-1]["loss"] for each, turns in work["turns"].items() if each in ALIKE}
    if losses and max(losses.values()) > (1 + TOLERANCE) * min(losses.values()):
        print(f"{name}: THE LOSSES DIFFER by more than {TOLERANCE:g}: {losses}", flush=True)


def _show(file: Path) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    print(f"\n{tables(found)}")
    draw(found, file.with_suffix(".png"))


@contextmanager
def _processes(task: Task, names: Sequence[str]) -> Iterator[Ask]:
    """Start a process for each contender, and yield a function that gives one of them its turn."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # contenders are killed during a run and leave temporary files there
        for name in names:
            ends[name], theirs = context.Pipe()
            processes.append(context.Process(target=_serve, args=(name, task, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
        for name in names:
            _received(ends[name])  # wait until every contender is ready

        def ask(name: str) -> Turn | str:
            ends[name].send("your turn")
            answer = _received(ends[name])
            assert isinstance(answer, Turn | str)
            return answer

        try:
            yield ask
        finally:
            for process in processes:
                process.kill()
                process.join()


def _received(end: Connection) -> object:
    try:
        return end.recv()
    except (EOFError, ConnectionError):
        return "its process exited; the reason is printed above"


def _serve(name: str, task: Task, connection: Connection) -> None:
    """Import what the contender needs on any free core, then train on one core whenever it is its turn."""
    import torch

    from dlspec.errors import TrainingFailed, UserError

    torch.set_num_threads(1)
    try:
        train = CONTENDERS[name]()
        connection.send("ready")
        connection.recv()
        if task.device == "cpu":
            pin()
        train(task, Turns(connection, task.work.epochs, task.device))
    except ModuleNotFoundError as error:
        connection.send("ready")
        connection.send(f"{error.name} is not installed")
    except (UserError, TrainingFailed) as error:  # such as a precision that this machine lacks
        connection.send(str(error).split("\n")[0])


if __name__ == "__main__":
    main()
