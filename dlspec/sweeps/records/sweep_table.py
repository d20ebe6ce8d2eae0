"""The table of a sweep's jobs and results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from dlspec.errors import replace_control_characters, shorten_middle
from dlspec.formatting import format_digits, format_table
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.runs.job_state import JobState
from dlspec.sweeps.records.planned_job import SweepEntry

COUNTED_STATES = (
    JobState.FINISHED,
    JobState.REFUSED,
    JobState.FAILED,
    JobState.INTERRUPTED,
    JobState.RUNNING,
    JobState.WAITING,
)
MAX_LABEL_LENGTH, MAX_ERROR_LENGTH = 200, 100


def find_best_entry(entries: Sequence[SweepEntry]) -> SweepEntry | None:
    """Return the job with the best monitored result, or None if no job has a result."""
    measured = [entry for entry in entries if entry.result.has_monitored_result]
    return min(measured, key=lambda entry: (entry.result.rank, entry.job.number), default=None)


def format_label(overrides: Sequence[str], keys: Collection[str]) -> str:
    """Format the overrides that have one of `keys`, those in which the jobs differ; all if none has."""
    differing = [each for each in overrides if split_override(each)[0] in keys] or list(overrides)
    return replace_control_characters(shorten_middle(" ".join(differing), MAX_LABEL_LENGTH))


def format_sweep_table(entries: Sequence[SweepEntry]) -> str:
    """Format a table with a row for each job, best first, and a last line with the number of jobs in each state.

    A row has the settings in which the jobs differ, the results, and the folder.
    """
    keys, results = find_differing_keys(entries), _list_result_names(entries)
    lines = [
        [
            str(entry.job.number),
            *_list_values(entry, keys),
            *_format_results(entry, results),
            _format_folder_or_error(entry),
        ]
        for entry in sorted(entries, key=_sort_key)
    ]
    table = format_table(
        ["job", *keys, *results, "folder"], [[replace_control_characters(cell) for cell in line] for line in lines]
    )
    return f"{table}\n{len(entries)} job{'s' if len(entries) != 1 else ''}: {count_states(entries)}"


def count_states(entries: Sequence[SweepEntry]) -> str:
    """Count the jobs by state: `3 finished, 1 failed`."""
    counts = Counter(entry.status for entry in entries)
    return ", ".join(f"{counts[state]} {state}" for state in COUNTED_STATES if counts[state])


def find_differing_keys(entries: Sequence[SweepEntry]) -> list[str]:
    """List the keys of the overrides whose values differ between the jobs; all keys if there is one job."""
    settings = [_map_settings(entry) for entry in entries]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    return [key for key in keys if len(entries) == 1 or len({each.get(key) for each in settings}) > 1]


def split_override(override: str) -> tuple[str, str]:
    """Split an override into its key and its value; `+` and `~` before the key are left out."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _map_settings(entry: SweepEntry) -> dict[str, str]:
    return dict(split_override(each) for each in entry.job.overrides)


def _list_values(entry: SweepEntry, keys: Sequence[str]) -> list[str]:
    return [_map_settings(entry).get(key, "") for key in keys]


def _list_result_names(entries: Sequence[SweepEntry]) -> list[str]:
    """List the names of the monitored results and of the test results."""
    measured = [entry.result for entry in entries if entry.result.has_monitored_result]
    return list(dict.fromkeys(name for each in measured for name in (each.monitor, *each.test)))


def _format_results(entry: SweepEntry, names: Sequence[str]) -> list[str]:
    result = entry.result
    if not result.has_monitored_result:
        return ["" for _ in names]
    results = {result.monitor: result.monitored, **result.test}
    return [format_digits(results[name]) if name in results else "" for name in names]


def _sort_key(entry: SweepEntry) -> tuple[bool, float, int]:
    """Sort jobs with a result first, from the best to the worst."""
    is_measured = entry.result.has_monitored_result
    return not is_measured, entry.result.rank if is_measured else 0.0, entry.job.number


def _format_folder_or_error(entry: SweepEntry) -> str:
    if entry.status is JobState.FINISHED:
        return format_file_path(entry.job.folder)
    error = entry.result.error
    return f"{entry.status}: {shorten_middle(error, MAX_ERROR_LENGTH)}" if error else entry.status
