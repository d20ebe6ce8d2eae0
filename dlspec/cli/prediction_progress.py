"""What `predict` prints on stderr: progress, the rows that are left out, and cells that training did not have."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from dlspec.data.encoding.table_notes import describe_notes
from dlspec.errors import replace_in_lines
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk
from dlspec.progress_lines import ProgressLine

MAX_LISTED = 5


class PredictionProgress:
    """Counts the rows of a command and shows them, with the device that computes them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._line = ProgressLine()
        self._chunk = RowChunk({})
        self.rows = self.left_out = 0
        self._reasons: list[str] = []
        self._notes: Counter[tuple[str, str]] = Counter()

    def watch(self, chunks: Iterable[RowChunk]) -> Iterator[RowChunk]:
        """Yield the chunks, and remember where their rows were read."""
        for self._chunk in chunks:
            yield self._chunk

    def add(self, answers: AnswerChunk) -> None:
        """Count the rows of the last chunk."""
        self.rows += len(self._chunk)
        self.left_out += len(answers.problems)
        self._notes += answers.notes
        for position in sorted(answers.problems)[: MAX_LISTED - len(self._reasons)]:
            self._reasons.append(f"{self._chunk.locate(position)}: {answers.problems[position]}")
        if self._line.is_due:
            speed = self.rows / (time.monotonic() - self._line.began)
            self._line.show(f"{self.rows:,} rows, {speed:,.0f} rows/s on {self._device}")

    def finish(self) -> None:
        """Print what was unknown or missing, and which rows have no prediction."""
        self._line.close()
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
