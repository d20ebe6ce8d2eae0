"""What is to be done in a sweep: its jobs as they were checked, and as its folder knows them already."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dlspec.errors import UserError
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.sweeps.executors.executor import Ended, Executor
from dlspec.sweeps.records.record import JobRecord, SweepRecord, is_done
from dlspec.sweeps.records.sweep_job import Check, JobEnd, Refusal, SweepJob
from dlspec.sweeps.records.table import Row, differing, label, read_reached

SECONDS_FOR_CHECKS = 20.0
"""Shapes that are not checked by then are checked when their job begins."""
SECONDS_BETWEEN_LOOKS = 0.1
MOST_TOLD = 20
CHANGED = "changed"


@dataclass
class Entry:
    """A job on its way: as it was checked, as the sweep's folder knows it, and its line in the table.

    `changed` says what its result was made with that is another now, '' where nothing is.
    """

    found: SweepJob | Refusal
    record: JobRecord | None = None
    is_done: bool = False
    changed: str = ""
    row: Row | None = None
    end: JobEnd | None = None

    @property
    def job(self) -> SweepJob:
        assert isinstance(self.found, SweepJob)
        return self.found

    @property
    def is_refused(self) -> bool:
        return isinstance(self.found, Refusal)

    @property
    def is_todo(self) -> bool:
        return not self.is_refused and not self.is_done


def refuse(entries: Sequence[Entry], settings: SweepSpec, count: int) -> None:
    """UserError with the wrong specs, where one of the `count` jobs is wrong and that stops the sweep, or all are."""
    wrong = [entry for entry in entries if entry.is_refused]
    if not wrong or (settings.on_invalid == "skip" and len(wrong) < count):
        return
    rows = [Row(number, entry.found.overrides) for number, entry in enumerate(entries)]
    keys = differing(rows)
    texts: dict[str, list[str]] = {}
    for row, entry in zip(rows, entries, strict=True):
        if isinstance(entry.found, Refusal):
            texts.setdefault(entry.found.text, []).append(f"[{row.number}] {label(row, keys)}")
    lines = [line for text, jobs in list(texts.items())[:MOST_TOLD] for line in (*jobs[:MOST_TOLD], text)]
    raise UserError("\n".join([*lines, _counted(len(wrong), len(entries), count)]))


def _counted(wrong: int, looked: int, count: int) -> str:
    which = f"the first {wrong}" if wrong == looked < count else str(wrong)
    fix = "; sweep.on_invalid=skip trains the others" if wrong < looked else ""
    return f"{which} of {count} job{'s' if count != 1 else ''} refused: none was trained{fix}"


def know_again(entries: Sequence[Entry], record: SweepRecord, code: str) -> None:
    """Finds in the sweep's folder the jobs that it has, and which of them are done."""
    known = record.known()
    for entry in entries:
        found = next(known.get(entry.found.hash, iter(())), None)
        if found is not None:
            entry.record = found
            entry.is_done = not entry.is_refused and is_done(record.folder / found.folder)
            entry.changed = "code" if entry.is_done and found.code not in ("", code) else ""
    matched = [id(entry.record) for entry in entries]
    record.jobs = [job for job in record.jobs if id(job) in matched or job.status != "refused"]


def check_shapes(entries: Sequence[Entry], executor: Executor) -> None:
    """Builds one job of each shape where they differ, a wrong one is refused; and of what is done looks at the data."""
    shapes: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.is_refused:
            shapes.setdefault(entry.job.shape_key, []).append(entry)
    differ = sum(any(each.is_todo for each in alike) for alike in shapes.values()) > 1
    looked = [alike for alike in shapes.values() if differ or any(each.is_done for each in alike)]
    for event in executor.run(_within(SECONDS_FOR_CHECKS, [alike[0].job for alike in looked]), SECONDS_BETWEEN_LOOKS):
        if isinstance(event, Ended) and not event.died:
            _judge(looked[event.task], event.result)


def _within(seconds: float, jobs: Iterable[SweepJob]) -> Iterator[Check]:
    """Those that can begin within so many seconds."""
    end = time.monotonic() + seconds
    for job in jobs:
        if time.monotonic() > end:
            return
        yield Check(job)


def _judge(alike: Sequence[Entry], end: JobEnd) -> None:
    if end.status == "interrupted":
        raise KeyboardInterrupt
    if end.status == "refused" and alike[0].is_todo:
        alike[0].found = Refusal(alike[0].found.overrides, end.error, end.text)
    for entry in alike:
        if entry.is_done and entry.record is not None and end.data and entry.record.data not in ("", end.data):
            entry.changed = "data"


def train_changed_again(entries: Sequence[Entry]) -> None:
    """Jobs whose result was made with something else are no longer done."""
    for entry in entries:
        if entry.changed and entry.is_done:
            entry.is_done, entry.found = False, replace(entry.job, anew=True)


def what_is_known(entries: Sequence[Entry]) -> list[str]:
    """What a person should know of the jobs that are done already."""
    done = [entry for entry in entries if entry.is_done]
    lines = [f"{len(done)} of {len(entries)} jobs are done already"] if done else []
    counts = Counter(entry.changed for entry in done if entry.changed)
    fix = "their results are kept; sweep.rerun=changed trains them again"
    what = {"code": "by another version of the code", "data": "with other data"}
    return lines + [f"{count} of them were trained {what[key]}: {fix}" for key, count in counts.items()]


def number(entries: Sequence[Entry], record: SweepRecord, name: Callable[[SweepJob, int], str]) -> None:
    """Each has a number and a folder from now on, and the sweep's folder says so before anything is trained."""
    for entry in entries:
        is_known = entry.record is not None
        entry.record = known = entry.record or _new(entry.found, record, name)
        folder = record.folder / known.folder if known.folder else None
        known.error = ""
        entry.row = Row(known.number, entry.found.overrides, folder)
        if isinstance(entry.found, Refusal):
            known.status, known.error = "refused", entry.found.error
        elif folder is not None:
            known.status = "finished" if entry.is_done else "waiting"
            entry.row.reached = read_reached(folder) if entry.is_done else None
            entry.found = replace(entry.job, number=known.number, folder=folder, is_known=is_known)
        entry.row.status, entry.row.error = known.status, known.error
    record.write()


def _new(found: SweepJob | Refusal, record: SweepRecord, name: Callable[[SweepJob, int], str]) -> JobRecord:
    number = record.new_number()
    folder = record.free_name(name(found, number)) if isinstance(found, SweepJob) else ""
    record.jobs.append(JobRecord(number, folder, found.hash, list(found.overrides)))
    return record.jobs[-1]
