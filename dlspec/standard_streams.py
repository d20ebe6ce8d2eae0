"""stdout and stderr that a full disk, a closed pipe or a missing terminal can't fail.

What a command prints is not its result: a training must not end because nobody can read its progress. Inside
`tolerate_output_errors` the first failure of each stream is logged, so it is written to the run's log.txt and to the
other stream, and the program continues.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

log = logging.getLogger("dlspec")

STREAM_NAMES = ("stdout", "stderr")
STANDARD_DESCRIPTORS = (0, 1, 2)
# Error handlers of a text stream that would raise an error or print invalid bytes for a name that is not UTF-8.
_REPLACED_HANDLERS = ("strict", "surrogateescape")


def open_missing_descriptors() -> tuple[int, ...]:
    """Open the null device as each of the descriptors 0 to 2 that is closed, and return those.

    Otherwise the next files that are opened would get these numbers: output of C libraries would be written to a
    checkpoint, and a new process could not redirect its output.
    """
    missing = tuple(each for each in STANDARD_DESCRIPTORS if not _is_open(each))
    for _ in missing:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the system uses the lowest number that is free
    return missing


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class TolerantOutput(io.RawIOBase):
    """The bytes below a text stream. Writing never fails: what can't be written is lost.

    Args:
        name: "stdout" or "stderr", for the message.
        target: Where the bytes are written; None if the stream is closed.
        reports_closed_pipe: Whether a reader that stopped reading (`| head -1`) is a failure to report.
    """

    def __init__(self, name: str, target: Any, reports_closed_pipe: bool = True) -> None:
        super().__init__()
        self.name, self._target, self._reports_closed_pipe = name, target, reports_closed_pipe
        self.error: OSError | None = None  # the first failure

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._target is not None and bool(self._target.isatty())

    def fileno(self) -> int:
        if self._target is None:
            raise io.UnsupportedOperation("fileno")
        return int(self._target.fileno())

    def write(self, content: Any) -> int:
        """Write all bytes, or as many as possible, and return the number of all."""
        size, left = len(content), memoryview(content)
        try:
            if self._target is None:
                raise _closed_error()
            while left:
                written = self._target.write(left)
                if written is None:  # a pipe that does not block, and is full
                    select.select([], [self._target.fileno()], [])
                left = left[written or 0 :]
        except (OSError, ValueError) as error:  # ValueError: the program has closed the stream
            self.report_failure(error if isinstance(error, OSError) else _closed_error())
        return size

    def report_failure(self, error: OSError) -> None:
        """Log an error of this stream, unless one was logged before."""
        if self.error is not None:
            return
        self.error = error  # before the message, which may be written to this stream
        if self._reports_closed_pipe or not self.is_pipe_closed:
            log.warning("can't write to %s: %s; its output may be lost", self.name, error.strerror or error)

    @property
    def is_pipe_closed(self) -> bool:
        """Whether the stream is a pipe from which nobody reads any more."""
        return isinstance(self.error, BrokenPipeError)


def _closed_error() -> OSError:
    return OSError(errno.EBADF, "it is closed")


@contextmanager
def tolerate_output_errors(*, reports_closed_pipe: bool = True) -> Iterator[dict[str, TolerantOutput]]:
    """Make `sys.stdout` and `sys.stderr` tolerant inside the context; yields their outputs by name.

    Args:
        reports_closed_pipe: Whether a reader that stopped reading (`| head -1`) is reported.
    """
    before = {name: getattr(sys, name) for name in STREAM_NAMES}
    outputs = make_output_tolerant(reports_closed_pipe)
    try:
        yield outputs
    finally:
        for name, output in outputs.items():
            stream = getattr(sys, name)
            if getattr(stream, "buffer", None) is output:
                stream.flush()
                setattr(sys, name, before[name])


def make_output_tolerant(reports_closed_pipe: bool = True) -> dict[str, TolerantOutput]:
    """Replace `sys.stdout` and `sys.stderr` by streams whose writing never fails; returns their outputs by name.

    Streams of a notebook or a test, which are not files, stay as they are.
    """
    outputs: dict[str, TolerantOutput] = {}
    for name in STREAM_NAMES:
        stream = _make_tolerant(name, getattr(sys, name), reports_closed_pipe)
        if stream is not None:
            setattr(sys, name, stream)
            output = stream.buffer
            assert isinstance(output, TolerantOutput)
            outputs[name] = output
    return outputs


def _make_tolerant(name: str, stream: TextIO | None, reports_closed_pipe: bool) -> io.TextIOWrapper | None:
    """Make a stream that writes where `stream` does; None if `stream` is not a file or tolerant already."""
    if stream is None:  # it was closed before Python started, or the program has no console (pythonw)
        output = TolerantOutput(name, None, reports_closed_pipe)
        return io.TextIOWrapper(output, "utf-8", "replace", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream.buffer, TolerantOutput):
        return None
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.RawIOBase):
        return None
    output = TolerantOutput(name, raw, reports_closed_pipe)
    try:
        stream.flush()  # what was printed before
    except (OSError, ValueError) as error:
        output.report_failure(error if isinstance(error, OSError) else _closed_error())
    errors = "replace" if stream.errors in _REPLACED_HANDLERS else stream.errors
    return io.TextIOWrapper(
        output, stream.encoding, errors, line_buffering=stream.line_buffering, write_through=stream.write_through
    )
