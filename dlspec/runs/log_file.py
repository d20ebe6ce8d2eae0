"""The log file of a run: everything that is logged while it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

from dlspec.errors import replace_control_characters, replace_in_lines
from dlspec.runs.file_access import is_special_file
from dlspec.runs.file_names import LOG_FILE
from dlspec.runs.io import append_bytes

log = logging.getLogger("dlspec")

CAN_WAIT = {"can_wait": True}  # for `extra` of a message of which many may follow each other quickly

# Of jobs that take turns in one process, the one that runs: what it logs goes only to the log files that it has opened.
_JOB: ContextVar[object | None] = ContextVar("job", default=None)


@contextmanager
def separate_job_logs() -> Iterator[None]:
    """Keep what is logged inside the `with` block from the log files of other jobs in this process."""
    token = _JOB.set(object())
    try:
        yield
    finally:
        _JOB.reset(token)


class LogFile(logging.Handler):
    """Logging handler that appends to a file. If writing fails, it prints one message and the program continues.

    Lines that can wait (`extra=CAN_WAIT`) are written with the next line, or by `flush`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._job = _JOB.get()
        self.path = path.absolute()  # hydra.job.chdir may change the working directory
        self._warned = False
        self._waiting: list[logging.LogRecord] = []

    def handle(self, record: logging.LogRecord) -> bool:
        job = _JOB.get()
        if job is not None and job is not self._job:  # before the lock: a stack has many files
            return False
        return super().handle(record)

    @property
    def is_of_this_job(self) -> bool:
        """Whether the job that is running has opened the file."""
        return self._job is _JOB.get()

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(record)
        if not getattr(record, "can_wait", False):
            self.flush()

    def flush(self) -> None:
        with self.lock or nullcontext():
            records, self._waiting = self._waiting, []
            text = "".join(f"{replace_in_lines(self.format(each))}\n" for each in records)
            try:
                if text:
                    append_bytes(self.path, text.encode(errors="replace"))
            except OSError as error:
                if not self._warned:
                    found = f"can't write {self.path}: {error.strerror or error}"
                    print(replace_control_characters(found), file=sys.stderr)
                self._warned = True

    def close(self) -> None:
        self.flush()
        super().close()


def flush_log_files() -> None:
    """Write the lines that were logged with `CAN_WAIT` to the log files of this job."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile) and handler.is_of_this_job:
            handler.flush()


def add_log_file(folder: Path, name: str = LOG_FILE) -> logging.Handler:
    """Add a handler to the root logger that writes all log messages, also those of user code, to the run's log.txt.

    Remove the handler from the root logger and close it at the end of the run.
    """
    path = folder / name
    is_replaced, handler = is_special_file(path), LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    if is_replaced:
        log.warning("%s was not a regular file, and was replaced by one", path)
    return handler
