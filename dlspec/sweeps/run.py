"""One sweep, from jobs that are asked for to a folder with what came of each.

All specs are checked before the first job trains. What is done is skipped, what was cut goes on from its checkpoint,
what failed is tried again; the folder's sweep.json tells which is which.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

from dlspec.errors import UserError
from dlspec.jobs.identity import code_version
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.report import write_sweep_report
from dlspec.runs.lock import held
from dlspec.sweeps.display import SweepLines, display
from dlspec.sweeps.executors.executor import Began, Ended, Executor
from dlspec.sweeps.plan import (
    CHANGED,
    MOST_TOLD,
    SECONDS_BETWEEN_LOOKS,
    Entry,
    check_shapes,
    know_again,
    number,
    refuse,
    train_changed_again,
    what_is_known,
)
from dlspec.sweeps.records.record import SweepRecord
from dlspec.sweeps.records.sweep_job import Draft, JobEnd, Refusal, SweepJob, checked
from dlspec.sweeps.records.table import Row, read_reached
from dlspec.training.runtime.interruption import Interrupted, Interruption, interruptible

log = logging.getLogger("dlspec")

SECONDS_BETWEEN_RECORDS = 1.0
ENDING = "ending: the jobs that run are saved; Ctrl-C again ends them at once"


class SweepRun:
    """A sweep as it goes on, in the folder of `record`, or in the one of `create`'s, once it is sure to begin.

    `make_executor` takes the number of jobs and their devices. `name` gives a new job's folder below the sweep's,
    `given` is the checksum of data that come from Python. Use it as a context: within it nobody else sweeps there.
    """

    def __init__(
        self,
        settings: SweepSpec,
        record: SweepRecord | None,
        create: Callable[[], SweepRecord],
        make_executor: Callable[[int, Collection[str]], Executor],
        *,
        name: Callable[[SweepJob, int], str] = lambda job, number: str(number),
        given: str = "",
    ) -> None:
        self.settings, self.make_executor, self.given = settings, make_executor, given
        self.entries: list[Entry] = []
        self._create, self._name, self._code = create, name, code_version()
        self._lock = ExitStack()
        self.record = self._locked(record) if record else None
        self._interruption = Interruption()
        self._is_ending = self._is_here = False
        self._written = 0.0

    def __enter__(self) -> SweepRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _locked(self, record: SweepRecord) -> SweepRecord:
        self._lock.enter_context(held(record.folder))
        return record

    @property
    def rows(self) -> list[Row]:
        """The jobs' lines; a sweeper may ask for the same job again."""
        return list({entry.row.number: entry.row for entry in self.entries if entry.row is not None}.values())

    def launch(self, drafts: Sequence[Draft]) -> list[Entry]:
        """Runs the jobs, to which others may follow; what came of each, in their order.

        Raises UserError with every wrong spec where that stops the sweep, Interrupted when a signal asked for the end.
        """
        most = len(drafts) if self.settings.on_invalid == "skip" else MOST_TOLD
        entries = [Entry(found) for found in checked(drafts, self.given, most)]
        refuse(entries, self.settings, len(drafts))
        if self.record is not None:
            know_again(entries, self.record, self._code)
        todo = [entry for entry in entries if entry.is_todo]
        reruns = self.settings.rerun == CHANGED
        devices = {entry.job.device for entry in entries if not entry.is_refused}
        count = len(entries) if reruns else len(todo)
        with self.make_executor(count, devices) as executor:
            if todo or reruns:
                check_shapes(entries, executor)
                refuse(entries, self.settings, len(drafts))
            if reruns:
                train_changed_again(entries)
            self.record = self.record or self._locked(self._create())
            number(entries, self.record, self._name)
            self.entries += entries
            self._train(entries, executor)
        return entries

    def _train(self, entries: Sequence[Entry], executor: Executor) -> None:
        todo = [entry for entry in entries if entry.is_todo]
        self._is_here = executor.shown == "jobs"
        board = display(self.rows, executor.shown)
        try:
            for line in what_is_known(entries):
                board.say(line)
            for entry in entries:
                if isinstance(entry.found, Refusal):
                    board.ended(_row(entry), entry.found.text)
            with interruptible(self._interruption):
                for event in executor.run((entry.job for entry in todo), SECONDS_BETWEEN_LOOKS):
                    self._take(event, todo, board)
                    if self._interruption.signal or self._is_ending:
                        self._stop(executor, board)
        finally:
            board.close()
            self._write(synced=True)
            self._report(is_last=True)
        if self._interruption.signal:
            raise Interrupted(self._interruption.signal)

    def _take(self, event: Began | Ended | None, todo: Sequence[Entry], board: SweepLines) -> None:
        if event is None:
            board.tick()
        elif isinstance(event, Began):
            self._begin(todo[event.task], board)
        else:
            end = JobEnd("failed", event.died, event.died) if event.died else event.result
            self._end(todo[event.task], end, board)
            self._is_ending |= self.settings.fail_fast and end.status in ("failed", "refused")

    def _stop(self, executor: Executor, board: SweepLines) -> None:
        """Once is enough: what runs is saved."""
        if not executor.is_stopping:
            executor.stop()
            if executor.shown == "all":
                board.say(ENDING)

    def _begin(self, entry: Entry, board: SweepLines) -> None:
        row = _row(entry)
        row.began = time.monotonic()
        self._note(entry, JobEnd("running"))
        board.began(row)

    def _end(self, entry: Entry, end: JobEnd, board: SweepLines) -> None:
        row, is_first = _row(entry), not self._interruption.signal and not self._is_ending
        row.seconds, entry.end = time.monotonic() - row.began, end
        if end.status == "finished" and row.folder is not None:
            row.reached = read_reached(row.folder)
        elif end.status == "interrupted" and is_first and self._is_here:
            self._interruption.signal = signal.SIGINT  # the job heard the signal itself
        if self._note(entry, end):
            self._report()
        board.ended(row, end.text)

    def _note(self, entry: Entry, end: JobEnd) -> bool:
        """In the table, and where it was some time ago in the record: what a crash loses is found in the jobs' folders.

        Gives whether the record was written.
        """
        row, known = _row(entry), entry.record
        assert known is not None
        row.status, row.error = known.status, known.error = end.status, end.error
        if end.status == "finished":
            known.code, known.data = self._code, end.data
        is_due = time.monotonic() > self._written + SECONDS_BETWEEN_RECORDS
        if is_due:
            self._write(synced=False)
        return is_due

    def _write(self, *, synced: bool) -> None:
        assert self.record is not None
        self.record.write(synced=synced)
        self._written = time.monotonic()

    def _report(self, *, is_last: bool = False) -> None:
        """Which is not written again and again for every job. What was trained is there without it."""
        assert self.record is not None
        try:
            write_sweep_report(self.record.folder, is_last=is_last)
        except (OSError, UserError) as error:
            log.warning("no report was written: %s", error)


def _row(entry: Entry) -> Row:
    assert entry.row is not None
    return entry.row
