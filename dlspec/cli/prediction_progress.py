"""What `predict` prints on stderr: progress, the rows that are left out, and cells that training did not have."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from dlspec.data.encoding.table_notes import describe_notes
from dlspec.errors import replace_in_lines
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk

SECONDS_BEFORE = 2.0  # until progress is shown
SECONDS_BETWEEN = 0.5
SECONDS_BETWEEN_LINES = 30.0  # where the line can't be replaced
MAX_LISTED = 5


class PredictionProgress:
    """Counts the rows of a command and shows them."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next = self._start + SECONDS_BEFORE
        self._is_shown = False
        self._chunk = RowChunk({})
        self.rows = self.left_out = 0
        self._reasons: list[str] = []
        self._notes: Counter[tuple[str, str]] = Counter()

    def watch(self, chunks: Iterable[RowChunk]) -> Iterator[RowChunk]:
        """Yield the chunks, and remember where their rows were read."""
        for self._chunk in chunks:
            yield self._chunk

    def add(self, answers: AnswerChunk, rows: int | None = None) -> None:
        """Count the rows of the last chunk, or as many as given."""
        self.rows += len(self._chunk) if rows is None else rows
        self.left_out += len(answers.problems)
        self._notes += answers.notes
        for position in sorted(answers.problems)[: MAX_LISTED - len(self._reasons)]:
            self._reasons.append(f"{self._chunk.locate(position)}: {answers.problems[position]}")
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        line = f"{self.rows:,} rows, {self.rows / (now - self._start):,.0f} rows/s"
        is_terminal = sys.stderr.isatty()
        self._next = now + (SECONDS_BETWEEN if is_terminal else SECONDS_BETWEEN_LINES)
        self._is_shown = is_terminal
        print(f"\r{line}\033[K" if is_terminal else line, end="" if is_terminal else "\n", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Print what was unknown or missing, and which rows have no prediction."""
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr)
        notes = "; ".join(describe_notes(self._notes))
        lines = [*([f"the rows have {notes}"] if notes else []), *self._describe_left_out()]
        if lines:
            print(replace_in_lines("\n".join(lines)), file=sys.stderr, flush=True)

    def _describe_left_out(self) -> Iterator[str]:
        if not self.left_out:
            return
        if self.left_out == 1:
            yield "1 row has no prediction, as it can't be read:"
        else:
            yield f"{self.left_out:,} rows have no prediction, as they can't be read; the first:"
        yield from (f"    {reason}" for reason in self._reasons)
