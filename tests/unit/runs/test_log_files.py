"""Log files of runs that train in threads of one process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlspec.runs.log_file import CAN_WAIT, add_log_file, flush_log_files, separate_job_logs

log = logging.getLogger("dlspec")


@pytest.fixture
def handlers() -> Iterator[list[logging.Handler]]:
    found: list[logging.Handler] = []
    before = log.level
    log.setLevel(logging.DEBUG)
    yield found
    log.setLevel(before)
    for handler in found:
        logging.getLogger().removeHandler(handler)
        handler.close()


def test_a_thread_writes_the_lines_that_wait_in_its_own_log(tmp_path: Path, handlers: list[logging.Handler]) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    barrier = threading.Barrier(2)

    def run(folder: Path, *, flushes: bool) -> None:
        folder.mkdir()
        with separate_job_logs():
            handlers.append(add_log_file(folder))
            barrier.wait()
            log.info("an epoch of %s", folder.name, extra=CAN_WAIT)
            barrier.wait()
            if flushes:
                flush_log_files()

    threads = [
        threading.Thread(target=run, args=(folder,), kwargs={"flushes": folder.name == "first"}) for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folders[0] / "log.txt").read_text().splitlines()[0].endswith("INFO an epoch of first")
    assert not (folders[1] / "log.txt").exists()
    for handler in handlers:
        handler.flush()
    assert [len((folder / "log.txt").read_text().splitlines()) for folder in folders] == [1, 1]
