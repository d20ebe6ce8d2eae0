"""Processes that torchrun has started: connect them, and end all of them if one fails."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlspec.config.saved_run import find_latest_run
from dlspec.errors import UserError, replace_in_lines
from dlspec.formatting import first_line
from dlspec.jobs.error_reporting import EXIT_FAILED, EXIT_INTERRUPTED, message_and_exit_code
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.file_names import ENVIRONMENT_FILE, SPEC_FILE
from dlspec.runs.io import read_json_object
from dlspec.training.distributed import FailedElsewhere, ProcessGroup, count_started_processes, register_process_group

if TYPE_CHECKING:
    from dlspec.training.rank_group import RankGroup


def refuse_sweep_of_ranks() -> None:
    """Raise UserError for a sweep under torchrun: a sweep starts its jobs itself."""
    if count_started_processes() > 1:
        fix = "leave out torchrun (sweep.workers=N trains N jobs at a time), or train a single run"
        raise UserError(f"a sweep can't run under torchrun, which starts processes for one run: {fix}")


def describe_launch(group: ProcessGroup) -> dict[str, Any]:
    """Describe the processes of a run for environment.json; empty for a single one."""
    return {"processes": group.world_size, "torchrun": _identify_launch()} if group.is_parallel else {}


def find_restarted_run(folder: Path, *, is_named: bool) -> Path | None:
    """Find the run that torchrun restarts after a failure (`--max-restarts`); None for a first start.

    Args:
        folder: The folder that the config names.
        is_named: Whether the user named it; else the run is below runs/.
    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    if is_named and is_regular_file(folder / SPEC_FILE):
        found = folder
    else:
        try:
            found = find_latest_run(*([folder.parent] if is_named else []))
        except UserError:
            return None
    environment = read_json_object(found / ENVIRONMENT_FILE) or {}
    resumed = environment.get("resumed")
    entries = [environment, *(resumed if isinstance(resumed, list) else [])]
    launches = [each.get("torchrun") for each in entries if isinstance(each, dict)]
    return found if _identify_launch() in launches else None


def _identify_launch() -> str:
    """Return what all attempts of one torchrun share."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return f"{socket.gethostname()} {os.getppid()}" if name in ("", "none") else name


@contextmanager
def join_ranks() -> Iterator[ProcessGroup]:
    """Connect this process to the others of torchrun inside the `with` block; without torchrun it is alone.

    If one process fails, all end, and one line says which.
    """
    if count_started_processes() == 1:
        yield ProcessGroup()
        return
    from dlspec.training.rank_group import start_rank_group, stop_rank_group

    group, is_done = start_rank_group(), False
    register_process_group(group)
    try:
        yield group
        is_done = True
        stop_rank_group(group, waits=True)
    except KeyboardInterrupt as interrupted:
        if group.is_writer:
            raise
        raise SystemExit(getattr(interrupted, "code", EXIT_INTERRUPTED)) from None
    except Exception as error:
        _report_failure(group, error)
        raise
    finally:
        register_process_group(None)
        if not is_done:
            stop_rank_group(group, waits=False)


def _report_failure(group: RankGroup, error: Exception) -> None:
    """Tell the other processes about an error and print it; raise SystemExit unless a traceback is of use."""
    from dlspec.training.rank_group import RankFailed

    if isinstance(error, FailedElsewhere):
        raise SystemExit(EXIT_FAILED) from None
    if isinstance(error, RankFailed):
        if group.rank == error.reporter:
            _print_line(str(error))
        raise SystemExit(EXIT_FAILED) from None
    message, code = message_and_exit_code(error) or (f"{type(error).__name__}: {first_line(error)}", EXIT_FAILED)
    group.report_failure(first_line(message))
    is_wrong_input = isinstance(error, UserError)
    if is_wrong_input and group.rank and group.find_failure_of_first() == first_line(message):
        raise SystemExit(code) from None  # the first process prints the same
    if is_wrong_input and not group.rank:
        return
    _print_line(f"rank {group.rank}: {message}")
    if message_and_exit_code(error) is not None:
        raise SystemExit(code) from None


def _print_line(message: str) -> None:
    print(replace_in_lines(message), file=sys.stderr, flush=True)
