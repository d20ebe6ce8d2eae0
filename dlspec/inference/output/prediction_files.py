"""Write predictions to a file chunk by chunk. However the process ends, the file is absent or whole."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dlspec.errors import UserError, find_closest
from dlspec.formatting import quote_for_shell
from dlspec.inference.output.prediction_formats import (
    FORMATS,
    FormatWriter,
    JsonLinesFormat,
    PredictionColumns,
)
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.io import find_temporary_files, open_replacement
from dlspec.runs.lock import try_lock_file

STANDARD_OUTPUT = "-"
ENDINGS = ", ".join(FORMATS)


class PredictionWriter:
    """Writes chunks of predictions. A column `problem` is written from the first row on that has one."""

    def __init__(self, writer: FormatWriter) -> None:
        self._writer = writer
        self.rows = 0  # all rows that were written

    def write(self, columns: PredictionColumns, problems: Mapping[int, str]) -> None:
        """Write some rows.

        Args:
            columns: values by output column, one for each row, in the same order in every chunk
            problems: why a row has no answer, by its position among these rows
        """
        count = max(map(len, columns.values()), default=0)
        reasons = [problems.get(position) for position in range(count)] if problems else None
        self._writer.write(columns, reasons)
        self.rows += count

    @property
    def is_closed(self) -> bool:
        """Whether nobody reads the output any more, as in `| head -3`."""
        return self._writer.is_closed


def check_output(output: str, inputs: Sequence[Path] = ()) -> None:
    """Check that predictions can be written to `output`, before anything is computed.

    Args:
        output: the file that the user names; `-` is standard output
        inputs: the files that are read

    Raises:
        UserError: if its ending is unknown, or it is a folder, a link, or one of the inputs.
    """
    if output == STANDARD_OUTPUT:
        return
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise UserError(_explain_ending(path))
    check_place(path)
    same = next((each for each in inputs if _is_same_file(each, path)), None)
    if same is not None:
        raise UserError(f"the output '{output}' is the input file; write the predictions to another file")


def _explain_ending(path: Path) -> str:
    base = path.with_suffix("") if path.suffix.lower() == ".gz" else path  # predictions are not compressed
    fix = _format_output(_suggest_file(base))
    found = f"the output '{path}' must end in {ENDINGS}, or in / for a folder of masks, or be - for standard output"
    return f"{found}; write {fix}"


def _format_output(path: Path) -> str:
    return quote_for_shell(f"output={path}")


def _suggest_file(path: Path) -> Path:
    """Suggest a name with a known ending; one that is nothing but an ending, such as `.csv`, gets another stem."""
    name = path.name.rstrip(".")
    if not name or name.startswith("."):
        ending = find_closest(name.lower(), FORMATS) if name else ""
        return path.parent / f"predictions{ending or '.csv'}"
    ending = find_closest(path.suffix.lower(), FORMATS) if path.suffix else ""
    return path.with_name(name).with_suffix(ending or ".csv")


def check_place(path: Path, example: str = "predictions.csv") -> None:
    """Check that a file can be written to a place; UserError for folders, links and the like.

    Args:
        path: the file that the user names
        example: the name of a file, for messages
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't write to '{path}': {reason}; name another file") from None
    if mode is not None and stat.S_ISDIR(mode):
        raise UserError(f"the output '{path}' is a folder; write {_format_output(path / example)}")
    if mode is not None and stat.S_ISLNK(mode):
        raise UserError(f"the output '{path}' is a link, which is not followed; name the file itself")
    if mode is not None and not stat.S_ISREG(mode):
        raise UserError(f"the output '{path}' is not a regular file; for standard output write output=-")
    if not path.parent.is_dir():
        raise UserError(f"no folder '{path.parent}' for the output '{path.name}'; create it, or name another file")


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


@contextmanager
def open_prediction_file(output: str) -> Iterator[PredictionWriter]:
    """Open the file for predictions. It gets its name when the context ends without an error, and replaces a file.

    Args:
        output: a file that ends in .csv, .tsv, .jsonl or .parquet; `-` writes JSON lines to standard output
    """
    if output == STANDARD_OUTPUT:
        file = _find_standard_output()
        writer: FormatWriter = JsonLinesFormat(file)
        yield PredictionWriter(writer)
        writer.close()
        _check_written(file)
        return
    path = Path(output)
    remove_abandoned_files(path)
    with open_replacement(path) as file:
        try_lock_file(file.fileno())
        writer = FORMATS[path.suffix.lower()](file)
        yield PredictionWriter(writer)
        writer.close()


def _check_written(file: BinaryIO) -> None:
    """Raise OSError if standard output lost rows, as on a full disk; a pipe that its reader closed is allowed."""
    error = getattr(file, "error", None)
    if error is not None and not isinstance(error, BrokenPipeError):
        found = f"{error.strerror or error}; the predictions are not complete"
        fix = "write them to a file, such as output=predictions.jsonl"
        raise OSError(error.errno, f"{found}: {fix}", "standard output") from error


def _find_standard_output() -> BinaryIO:
    """Return the bytes of standard output; those of a notebook or a test, which have none, are written as text."""
    sys.stdout.flush()
    found: BinaryIO = getattr(sys.stdout, "buffer", None) or _TextOutput()
    return found


class _TextOutput(io.BytesIO):
    """Writes bytes to a standard output that takes text alone."""

    def write(self, content: Any) -> int:
        sys.stdout.write(bytes(content).decode())
        return len(content)


def remove_abandoned_files(path: Path) -> None:
    """Delete the temporary files that a killed process left beside `path`; those that are locked are in use."""
    for each in find_temporary_files(path):
        if is_regular_file(each) and not _is_in_use(each):
            each.unlink(missing_ok=True)


def _is_in_use(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return True
    try:
        return not try_lock_file(descriptor)
    finally:
        os.close(descriptor)
