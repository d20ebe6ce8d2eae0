"""A patch for submitit (1.5): a job whose process was lost counts as failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from dlspec.compat.hydra import make_failed_return


@contextmanager
def treat_lost_jobs_as_failed() -> Iterator[None]:
    """Make submitit's launcher treat a lost job as failed, within this context.

    Without it the launcher stops at the lost job, and the results of the other jobs are lost too.
    """
    try:
        from submitit.core.core import Job
    except ImportError:
        yield
        return

    def results_or_failure(job: Job[Any]) -> list[Any]:
        try:
            return original_results(job)
        except Exception as error:
            return [make_failed_return(error)]

    original_results = Job.results
    with mock.patch.object(Job, "results", results_or_failure):
        yield
