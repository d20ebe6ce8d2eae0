"""The lines of a text file: decoded, counted, with limits. Every error is a DataError with file and line."""

from __future__ import annotations

import codecs
import io
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from dlspec.data.files.quoted_cells import count_line_breaks
from dlspec.data.tables.input_files import open_binary, report_read_errors
from dlspec.errors import Code, DataError

MAX_CELL_CHARACTERS = 16_000_000
MAX_LINE_CHARACTERS = 4 * MAX_CELL_CHARACTERS
BLOCK_CHARACTERS = 4_000_000  # of all lines that are read ahead
_BLOCK_BYTES = 1 << 16
# Byte order marks, longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TextLines:
    """Iterator over the lines of a file, which keeps the lines of the current row and counts all.

    A line that begins with `comment` is left out, unless it is inside of a quoted cell.
    """

    def __init__(self, file: Path, encoding: str, comment: str | None = None) -> None:
        self.file = file
        self.codec = encoding  # the one in use
        self.found_encoding: str | None = None  # by a byte order mark, where it is not the one that was asked for
        self.line = 0  # number of the last line
        self.comment_lines = 0
        self.is_ascii = True  # whether all lines since the last reset are ASCII
        self._comment = comment
        self._row_lines: list[str] = []
        self._text: TextIO = io.StringIO()
        self._pending: deque[str] = deque()  # lines that were read ahead

    def take_row(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self._row_lines = self._row_lines, []
        return lines

    @contextmanager
    def open(self) -> Iterator[Iterator[str]]:
        """Open the file and yield an iterator over its lines."""
        try:
            with self._open_bytes() as stream:
                self._choose_codec(stream.peek(4)[:4])
                with io.TextIOWrapper(stream, encoding=self.codec, newline="") as self._text:
                    yield self._iterate()
        except UnicodeError:
            raise self._make_encoding_error() from None

    def _open_bytes(self) -> AbstractContextManager[io.BufferedReader]:
        return open_binary(self.file)

    def skip(self, lines: Iterator[str], count: int) -> None:
        """Leave out lines at the start; DataError if there are not more."""
        comment, self._comment = self._comment, None
        for _ in range(count):
            if next(lines, None) is None:
                found = f"'{self.file}' has {self.line} lines, and data.skip={count} leaves out all"
                raise DataError("skip", found, Code.WRONG_VALUE)
            self.take_row()
        self._comment = comment

    def _choose_codec(self, start: bytes) -> None:
        wanted = codecs.lookup(self.codec).name
        marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
        if marked is None or marked.startswith(wanted) or wanted == marked.removesuffix("-sig"):
            self.codec = marked or self.codec
        elif wanted in ("utf-8", "utf-8-sig"):
            self.codec = self.found_encoding = marked
        else:
            name = marked.removesuffix("-sig")
            found = f"'{self.file}' begins with the byte order mark of {name}, but data.encoding is {self.codec}"
            raise DataError("encoding", f"{found}; write data.encoding={name}", Code.CONFLICT)

    def take_plain_lines(self, count: int, quote: str | None) -> list[str]:
        """Return the next lines if no line needs a closer look, and count them; [] otherwise, and at the end.

        Such lines are rows by themselves: without quotes, comments and single carriage returns.

        Args:
            count: the most lines to return
            quote: the character that a line must not contain; None for none
        """
        if self._pending or self._comment is not None:
            return []
        read, lines, size = partial(self._text.readline, MAX_LINE_CHARACTERS + 1), list[str](), 0
        for line in islice(iter(read, ""), count):
            lines.append(line)
            size += len(line)
            if size >= BLOCK_CHARACTERS:  # asked of every line: a few that are very long would fill the memory
                break
        text = "".join(lines)
        has_other_ends = "\r" in text and text.count("\r") != text.count("\r\n")
        if size > MAX_CELL_CHARACTERS or "\0" in text or has_other_ends or (quote is not None and quote in text):
            self._pending.extend(lines)
            return []
        self.line += len(lines)
        self.is_ascii = self.is_ascii and text.isascii()
        return lines

    def return_lines(self, lines: list[str]) -> None:
        """Put back what `take_plain_lines` has returned: rows that must be read one by one."""
        self.line -= len(lines)
        self._pending.extend(lines)

    def _read_line(self) -> str:
        return self._pending.popleft() if self._pending else self._text.readline(MAX_LINE_CHARACTERS + 1)

    def _iterate(self) -> Iterator[str]:
        while line := self._read_line():
            self.line += 1
            if len(line) > MAX_LINE_CHARACTERS:
                found = f"{self.file}:{self.line}: the line has more than {MAX_LINE_CHARACTERS // 10**6} MB"
                raise DataError("path", f"{found}; is this a text file?", Code.TOO_LARGE)
            if "\0" in line:
                raise self._make_nul_error()
            if self._comment is not None and not self._row_lines and line.startswith(self._comment):
                self.comment_lines += 1
                continue
            if not line.isascii():
                self.is_ascii = False
            self._row_lines.append(line)
            yield line

    def _make_nul_error(self) -> DataError:
        fix = "write data.encoding=utf-16-le if it is UTF-16, else convert it to text"
        return DataError("path", f"{self.file}:{self.line}: contains a NUL character; {fix}", Code.FILE_UNREADABLE)

    def _make_encoding_error(self) -> DataError:
        line, byte = self._find_undecodable_byte()
        found = f"{self.file}:{line}: {byte} not valid {self.codec.removesuffix('-sig')}"
        fix = "write data.encoding=cp1252 (Windows), latin-1, or what the file was saved in"
        return DataError("encoding", f"{found}; {fix}", Code.FILE_UNREADABLE)

    def _find_undecodable_byte(self) -> tuple[int, str]:
        return _find_undecodable_byte(self.file, self.codec)


class StandardInputLines(TextLines):
    """The lines of standard input, each as soon as it is there."""

    def __init__(self, encoding: str = "utf-8", comment: str | None = None) -> None:
        super().__init__(Path("standard input"), encoding, comment)

    @contextmanager
    def _open_bytes(self) -> Iterator[io.BufferedReader]:
        raw: Any = _StandardInput()
        with report_read_errors(self.file), io.BufferedReader(raw) as stream:
            yield stream

    def _find_undecodable_byte(self) -> tuple[int, str]:
        return self.line + 1, "a byte in or after this line is"  # it can't be read again


class _StandardInput(io.RawIOBase):
    """The bytes of standard input. Closing this leaves standard input open."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        source: Any = sys.stdin.buffer
        return int(source.readinto1(buffer))


def _find_undecodable_byte(file: Path, codec: str) -> tuple[int, str]:
    """Find the first line and byte that can't be decoded. Files are decoded in blocks, so this reads it again."""
    decoder, line = codecs.getincrementaldecoder(codec)(), 1
    with open_binary(file) as stream:
        while block := stream.read(_BLOCK_BYTES):
            try:
                line += count_line_breaks(decoder.decode(block))
            except UnicodeDecodeError as error:
                good = bytes(error.object[: error.start]).decode(codec, "ignore")
                return line + count_line_breaks(good), f"byte 0x{error.object[error.start]:02x} is"
            except UnicodeError:
                return line, "the text is"
    return line, "the end is"
