"""Processes that do one task after the other: what ends one of them, a crash or a kill, ends its task and no other.

They are forked from a server that has imported PyTorch once, has no threads and has touched no GPU, whatever this
process did; where the system can't fork, each begins anew. They hear no signals: this process hears those that a
terminal or a batch system sends to all, and tells them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Protocol, Self

from dlspec.compat.torchmetrics import plots_are_left_out
from dlspec.limits import deep_stack
from dlspec.sweeps.executors.executor import Began, Ended, Shown

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = "dlspec.sweeps.executors.process_imports"
LEAN = "dlspec.sweeps.executors.server_start"
STOP = b"stop"
SECONDS_TO_END = 5.0


class Worker(Protocol):
    """What stands in a process, pickled on its way there. It gives a result that can be pickled, and never raises."""

    def __call__(self, task: Any) -> Any: ...

    def stop(self) -> None:
        """Asks what it is doing to end soon, from another thread."""


def warm_up() -> None:
    """Starts the server, which imports while this process goes on with something else."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload([*([LEAN] if plots_are_left_out() else []), PRELOADED])
        with _one_thread(), _without_main():
            forkserver.ensure_running()


@contextmanager
def _one_thread() -> Iterator[None]:
    """What libraries read when they are imported. A process may take more threads later."""
    names = [each for each in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if each not in os.environ]
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


@contextmanager
def _without_main() -> Iterator[None]:
    """A user's script that guards nothing must not run again in every process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Processes:
    """As many processes as `places`, each with variables of its own in its environment; they start when needed."""

    def __init__(self, places: Sequence[Mapping[str, str]], worker: bytes) -> None:
        self._slots = [_Slot(number, place, worker) for number, place in enumerate(places)]
        self.is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """They end what they do; at once where this ends with an error."""
        for slot in self._slots:
            slot.hang_up()
        for slot in self._slots:
            slot.close(SECONDS_TO_END if kind is None else 0)

    def run(self, tasks: Iterable[Any], seconds: float) -> Iterator[Began | Ended | None]:
        """Does the tasks, in their order as far as they begin; None where nothing happened for so many seconds."""
        waiting = enumerate(tasks)
        while True:
            for slot in self._slots:
                if slot.task is None and not self.is_stopping and (following := next(waiting, None)) is not None:
                    yield slot.begin(*following)
            if all(slot.task is None for slot in self._slots):
                return
            yield from self._ended(seconds)

    def stop(self) -> None:
        """No further task begins, and those that go on are asked to end."""
        self.is_stopping = True
        for slot in self._slots:
            slot.send(STOP)

    def _ended(self, seconds: float) -> Iterator[Ended | None]:
        busy = [slot for slot in self._slots if slot.task is not None]
        ready = wait([slot.connection for slot in busy if slot.connection is not None], seconds)
        if not ready:
            yield None
        yield from (slot.take() for slot in busy if slot.connection in ready)


class _Slot:
    """One process after the other, and the task that the present one does."""

    def __init__(self, number: int, place: Mapping[str, str], worker: bytes) -> None:
        self._number, self._place, self._worker = number, place, worker
        self._process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.task: int | None = None

    def begin(self, number: int, task: Any) -> Began:
        if self._process is None or not self._process.is_alive():
            self._start()
        self.task = number
        self.send(pickle.dumps(task))
        return Began(number)

    def _start(self) -> None:
        warm_up()
        context: Any = multiprocessing.get_context(METHOD)
        self.connection, theirs = context.Pipe()
        arguments = (theirs, {**os.environ, **self._place}, self._worker)
        self._process = context.Process(target=_serve, args=arguments, name=f"dlspec-{self._number}")
        with _one_thread(), _without_main():
            self._process.start()
        theirs.close()  # so that its end is seen here

    def send(self, content: bytes) -> None:
        if self.connection is not None:
            with suppress(OSError):  # it died: `take` will tell
                self.connection.send_bytes(content)

    def take(self) -> Ended:
        """What the process says, or that it died."""
        assert self.connection is not None and self.task is not None
        task, self.task = self.task, None
        try:
            return Ended(task, pickle.loads(self.connection.recv_bytes()))
        except (EOFError, OSError):
            return Ended(task, died=self._end())

    def _end(self) -> str:
        """How the process ended, in words."""
        process = self._process
        self.close(SECONDS_TO_END)
        code = None if process is None else process.exitcode
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"its process was ended by {name}{_WHY.get(name, '')}"

    def hang_up(self) -> None:
        """The process ends when it has nothing to do."""
        if self.connection is not None:
            self.connection.close()

    def close(self, seconds: float) -> None:
        self.hang_up()
        if self._process is not None:
            self._process.join(seconds)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process = self.connection = None


class ProcessExecutor(Processes):
    """Does the jobs in processes."""

    shown: Shown = "all"


# What most often sends it.
_WHY = {"SIGKILL": " (out of memory?)", "SIGSEGV": " (a crash)", "SIGABRT": " (a crash)", "SIGBUS": " (a crash)"}


# ---- in the process --------------------------------------------------------------------------------------------------


def _serve(connection: Connection, environment: Mapping[str, str], pickled: bytes) -> None:
    """Does tasks until nobody is there who gives some."""
    os.environ.clear()
    os.environ.update(environment)
    _hear_no_signals()
    tasks: SimpleQueue[bytes | None] = SimpleQueue()
    with deep_stack(), suppress(BrokenPipeError):
        worker: Worker = pickle.loads(pickled)
        threading.Thread(target=_listen, args=(connection, tasks, worker), daemon=True).start()
        while (task := tasks.get()) is not None:
            connection.send_bytes(pickle.dumps(worker(pickle.loads(task))))
    os._exit(0)  # taking down what was imported would take most of a second


def _listen(connection: Connection, tasks: SimpleQueue[bytes | None], worker: Worker) -> None:
    try:
        while True:
            content = connection.recv_bytes()
            if content == STOP:
                worker.stop()
            else:
                tasks.put(content)
    except (EOFError, OSError):  # the process that gave them is gone
        worker.stop()
        tasks.put(None)


def _hear_no_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
