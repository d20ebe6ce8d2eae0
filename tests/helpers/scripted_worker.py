"""A worker that does what each task says, where another process can import it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any


class ScriptedWorker:
    """Does what each task says."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def __reduce__(self) -> tuple[type[ScriptedWorker], tuple[()]]:
        return ScriptedWorker, ()

    def __call__(self, task: str) -> Any:
        if task == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "exit":
            os._exit(3)
        if task == "unpicklable":
            return lambda: None
        if task == "wait":
            return self.stopped.wait(60)
        return os.getpid(), os.environ.get("WHERE"), task

    def stop(self) -> None:
        self.stopped.set()
