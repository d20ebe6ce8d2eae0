"""Processes that torchrun has started: connect them, and end all of them if one fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlspec.errors import UserError, replace_in_lines
from dlspec.formatting import first_line
from dlspec.jobs.error_reporting import EXIT_FAILED, EXIT_INTERRUPTED, message_and_exit_code
from dlspec.training.distributed import ProcessGroup, count_started_processes, register_process_group

if TYPE_CHECKING:
    from dlspec.training.rank_group import RankGroup


def refuse_sweep_of_ranks() -> None:
    """Raise UserError for a sweep under torchrun: a sweep starts its jobs itself."""
    if count_started_processes() > 1:
        fix = "leave out torchrun (sweep.jobs=N trains N jobs at a time), or -m"
        raise UserError(f"a sweep (-m) can't run under torchrun, which starts processes for one run: {fix}")


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

    if isinstance(error, RankFailed):
        if not error.is_reported and group.rank == min({0, 1} - {error.rank}):
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
