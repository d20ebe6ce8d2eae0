"""Run tasks in several processes, so that a crash or a kill ends only the task of one process.

The processes are forked from a server that has imported PyTorch, has no threads and has not initialized CUDA, whatever
this process did. On the command line, it is a copy of this process from before it did anything but imports. Where the
system can't fork, each process starts with all imports. The processes block signals: this process receives those that a
terminal or a batch system sends to all of them, and asks the others to stop.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Protocol, Self, runtime_checkable

from dlspec.compat.forkserver import fork_fork_server, has_one_thread
from dlspec.compat.torchmetrics import are_plot_imports_skipped
from dlspec.errors import TrainingFailed
from dlspec.limits import allow_deep_recursion
from dlspec.standard_streams import open_missing_descriptors
from dlspec.sweeps.executors.executor import ExecutorEvent, ProgressScope, TaskEnded, TaskReported, TaskStarted

log = logging.getLogger("dlspec")

START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED_MODULE = "dlspec.sweeps.executors.preloaded_imports"
SETUP_MODULE = "dlspec.sweeps.executors.fork_server_setup"
STOP_MESSAGE = b"stop"
MAX_SECONDS_TO_EXIT = 5.0


class Worker(Protocol):
    """Runs tasks in a process, where it arrives pickled. It never raises, and its results can be pickled."""

    def __call__(self, task: Any) -> Any: ...

    def stop(self) -> None:
        """Ask the running task to end soon. Called from another thread."""


@runtime_checkable
class ReportingWorker(Protocol):
    """A worker that sends reports before its tasks end."""

    def send_reports(self, send: Callable[[Any], None]) -> None:
        """Take the function that sends a report. Called once, before the first task."""


def start_fork_server() -> None:
    """Start the fork server, which imports its modules while this process continues."""
    if START_METHOD == "forkserver":
        from multiprocessing import forkserver

        open_missing_descriptors()  # the processes inherit them, and redirect 1 and 2 to a job's log
        forkserver.set_forkserver_preload([*([SETUP_MODULE] if are_plot_imports_skipped() else []), PRELOADED_MODULE])
        with _limit_to_one_thread(), _hide_main_module():
            forkserver.ensure_running()


def import_and_start_fork_server() -> None:
    """Import what every job needs, and start the fork server as a copy of this process, so that it imports nothing.

    Call it at the start of a program. Where the process can't be copied, the server is started as usual.
    """
    with _set_missing_variables(("OPENBLAS_NUM_THREADS",)):  # with more, NumPy starts threads when it is imported
        import_module(PRELOADED_MODULE)
    if START_METHOD != "forkserver" or not has_one_thread():
        start_fork_server()
        return
    open_missing_descriptors()
    with _hide_main_module():
        fork_fork_server(_limit_torch_to_one_thread)


def _limit_torch_to_one_thread() -> None:
    """Do what `_limit_to_one_thread` does for a server that imports PyTorch."""
    if "OMP_NUM_THREADS" not in os.environ:
        import_module("torch").set_num_threads(1)


@contextmanager
def _limit_to_one_thread() -> Iterator[None]:
    """Limit new processes to one thread: libraries read these variables on import. A job may set more threads later."""
    with _set_missing_variables(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")):
        yield


@contextmanager
def _set_missing_variables(names: Sequence[str]) -> Iterator[None]:
    """Set environment variables to 1 inside the `with` block, except those that are set."""
    names = [each for each in names if each not in os.environ]
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


@contextmanager
def _hide_main_module() -> Iterator[None]:
    """Keep a user's script without an `if __name__ == "__main__"` guard from running again in every process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class ProcessPool:
    """Processes that run tasks, each one task at a time; a process starts when there is a task for it.

    Args:
        process_variables: The additional environment variables of each process; one process for each item.
        worker: A pickled `Worker`.
    """

    def __init__(self, process_variables: Sequence[Mapping[str, str]], worker: bytes) -> None:
        self._slots = [_ProcessSlot(number, variables, worker) for number, variables in enumerate(process_variables)]
        self.is_stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the processes: after their tasks, or at once if the `with` block raised an error."""
        for slot in self._slots:
            slot.close_connection()
        for slot in self._slots:
            slot.close(MAX_SECONDS_TO_EXIT if kind is None else 0)

    def run(self, tasks: Iterable[Any], poll_seconds: float) -> Iterator[ExecutorEvent | None]:
        """Start the tasks in order, and yield their events; yield None when nothing happened for `poll_seconds`."""
        numbered_tasks = enumerate(tasks)
        unstarted: list[tuple[int, Any]] = []  # a task whose process could not be started
        while True:
            for slot in [slot for slot in self._slots if slot.task is None and not self.is_stopping]:
                next_task = unstarted.pop() if unstarted else next(numbered_tasks, None)
                if next_task is None:
                    break
                try:
                    yield slot.start_task(*next_task)
                except _ProcessNotStarted as failure:
                    unstarted.append(next_task)
                    self._remove_slot(slot, failure)
            if all(slot.task is None for slot in self._slots):
                return
            yield from self._wait_for_results(poll_seconds)

    def stop(self) -> None:
        """Start no further task, and ask the running ones to end."""
        self.is_stopping = True
        for slot in self._slots:
            slot.send(STOP_MESSAGE)

    def _remove_slot(self, slot: _ProcessSlot, failure: _ProcessNotStarted) -> None:
        """Go on with the other processes, if there are any."""
        if len(self._slots) == 1:
            raise TrainingFailed(f"can't start a process: {failure}; raise the limit: ulimit -n 1024") from None
        self._slots.remove(slot)
        log.warning("can't start another process (%s): jobs run in %d processes", failure, len(self._slots))

    def _wait_for_results(self, seconds: float) -> Iterator[TaskReported | TaskEnded | None]:
        busy = [slot for slot in self._slots if slot.task is not None]
        ready_connections = wait([slot.connection for slot in busy if slot.connection is not None], seconds)
        if not ready_connections:
            yield None
        yield from (slot.receive_result() for slot in busy if slot.connection in ready_connections)


class _ProcessNotStarted(Exception):
    """Raised if the system has too few files or processes for another process; the text is the system's reason."""


class _ProcessSlot:
    """One running process and its task; a process that died is replaced when the next task starts."""

    def __init__(self, number: int, variables: Mapping[str, str], worker: bytes) -> None:
        self._number, self._variables, self._worker = number, variables, worker
        self._process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.task: int | None = None

    def start_task(self, number: int, task: Any) -> TaskStarted:
        if self._process is None or not self._process.is_alive():
            try:
                self._start_process()
            except (OSError, EOFError) as error:  # EOFError: the fork server has too few files
                self.close(0)
                raise _ProcessNotStarted(getattr(error, "strerror", None) or "too few open files") from None
        self.task = number
        self.send(pickle.dumps(task))
        return TaskStarted(number)

    def _start_process(self) -> None:
        start_fork_server()
        context: Any = multiprocessing.get_context(START_METHOD)
        self.connection, child_connection = context.Pipe()
        arguments = (child_connection, {**os.environ, **self._variables}, self._worker)
        process = context.Process(target=_serve_tasks, args=arguments, name=f"dlspec-{self._number}")
        try:
            with _limit_to_one_thread(), _hide_main_module():
                process.start()
            self._process = process
        finally:
            child_connection.close()  # so that this process notices when the child ends

    def send(self, content: bytes) -> None:
        if self.connection is not None:
            with suppress(OSError):  # the process died: `receive_result` reports it
                self.connection.send_bytes(content)

    def receive_result(self) -> TaskReported | TaskEnded:
        """Return the report or the result that the process sends, or how it died."""
        assert self.connection is not None and self.task is not None
        task = self.task
        try:
            received = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.task = None
            return TaskEnded(task, death_reason=self._describe_exit())
        if isinstance(received, _Report):
            return TaskReported(task, received.content)
        self.task = None
        return TaskEnded(task, received)

    def _describe_exit(self) -> str:
        """Close the process and describe how it ended."""
        process = self._process
        self.close(MAX_SECONDS_TO_EXIT)
        code = None if process is None else process.exitcode
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"its process was ended by {name}{_LIKELY_CAUSES.get(name, '')}"

    def close_connection(self) -> None:
        """Close the connection, so that the process ends after its task."""
        if self.connection is not None:
            self.connection.close()

    def close(self, seconds: float) -> None:
        """Close the connection, and kill the process if it still runs after `seconds`."""
        self.close_connection()
        if self._process is not None:
            self._process.join(seconds)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process = self.connection = None


class ProcessExecutor(ProcessPool):
    """Runs jobs in processes."""

    progress_scope: ProgressScope = "all"
    starts_together = False


# The most frequent cause of each signal.
_LIKELY_CAUSES = {
    "SIGKILL": " (out of memory?)",
    "SIGSEGV": " (a crash)",
    "SIGABRT": " (a crash)",
    "SIGBUS": " (a crash)",
}


@dataclass(frozen=True)
class _Report:
    """What a process sends before the result of its task."""

    content: Any


# ---- in the process --------------------------------------------------------------------------------------------------


def _serve_tasks(connection: Connection, environment: Mapping[str, str], pickled: bytes) -> None:
    """Run tasks until the connection to the parent process is closed."""
    os.environ.clear()
    os.environ.update(environment)
    _block_signals()
    tasks: SimpleQueue[bytes | None] = SimpleQueue()
    with allow_deep_recursion(), suppress(BrokenPipeError):
        worker: Worker = pickle.loads(pickled)
        if isinstance(worker, ReportingWorker):
            worker.send_reports(partial(_send_report, connection))
        threading.Thread(target=_receive_tasks, args=(connection, tasks, worker), daemon=True).start()
        while (task := tasks.get()) is not None:
            connection.send_bytes(pickle.dumps(worker(pickle.loads(task))))
    os._exit(0)  # a normal exit takes most of a second to unload the imported modules


def _send_report(connection: Connection, content: Any) -> None:
    """Send a report, unless the parent process is gone: then the worker was asked to stop, and saves all its jobs."""
    with suppress(BrokenPipeError):
        connection.send_bytes(pickle.dumps(_Report(content)))


def _receive_tasks(connection: Connection, tasks: SimpleQueue[bytes | None], worker: Worker) -> None:
    try:
        while True:
            content = connection.recv_bytes()
            if content == STOP_MESSAGE:
                worker.stop()
            else:
                tasks.put(content)
    except (EOFError, OSError):  # the parent process is gone
        worker.stop()
        tasks.put(None)


def _block_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
