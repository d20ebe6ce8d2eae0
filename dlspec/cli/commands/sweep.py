"""Running a sweep's jobs: `-m` and `resume sweep=FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.cli.spec_arguments import make_spec_parser
from dlspec.compat.hydra import HydraApp
from dlspec.config.composition import CONFIG_NAME, DlspecConfigLoader, start_hydra
from dlspec.config.overrides import parse_overrides
from dlspec.config.untrusted_overrides import must_be_repeated
from dlspec.errors import UserError, format_value
from dlspec.formatting import format_override, quote_for_shell
from dlspec.jobs.error_reporting import EXIT_FAILED, EXIT_INVALID, EXIT_OK
from dlspec.language.yaml.yaml_files import shorten_path
from dlspec.runs.file_names import SWEEP_FILE
from dlspec.runs.job_state import JobState
from dlspec.runs.run_status import resume_command
from dlspec.sweeps.hydra.plugins import register
from dlspec.sweeps.hydra.sweep_task import SweepTask
from dlspec.sweeps.records.planned_job import SweepEntry
from dlspec.sweeps.records.sweep_record import read_sweep_record
from dlspec.sweeps.records.sweep_table import format_sweep_table
from dlspec.training.runtime.interruption import Interrupted

DONE_OR_REFUSED = {JobState.FINISHED, JobState.REFUSED}


def run_sweep_command(hydra: HydraApp, overrides: Sequence[str], config_dir: str | None = None) -> int:
    """Run a sweep, print the table of its jobs, and return the exit code.

    Args:
        hydra: Hydra's application, with dlspec's loader.
        overrides: the overrides of the command line.
        config_dir: the folder of --config-dir, or None.

    Returns:
        1 if a job failed or was not run, 2 if one was refused because of its spec, else 0.
    """
    loader = hydra.config_loader
    assert isinstance(loader, DlspecConfigLoader)
    words = [*overrides, "hydra.mode=MULTIRUN"]
    with SweepTask(loader, list(overrides), config_dir) as task:
        try:
            hydra.multirun(CONFIG_NAME, task, words, with_log_configuration=False)
        except KeyboardInterrupt as error:
            if task.folder is None or not task.entries:  # nothing was trained, and nothing remains
                raise
            raise _add_resume_hint(_format_resume_hint(task.folder), error) from None
        finally:
            _print_outcome(task)
    return _find_exit_code(task.entries)


def _add_resume_hint(advice: str, error: KeyboardInterrupt) -> KeyboardInterrupt:
    """Return the same interruption with advice added to its message."""
    if isinstance(error, Interrupted):
        return Interrupted(error.number, f"{error.more}; {advice}")
    return KeyboardInterrupt(f"{str(error) or 'interrupted'}; {advice}")


def _format_resume_hint(folder: Path) -> str:
    return f"to go on: {resume_command(shorten_path(folder), 'sweep')}"


def _print_outcome(task: SweepTask) -> None:
    """Print the table of jobs, and the command that resumes the sweep if jobs are left."""
    if not task.entries:
        return
    print_message(f"\n{format_sweep_table(task.entries)}")
    left = any(entry.status not in DONE_OR_REFUSED for entry in task.entries)
    if left and task.folder is not None and (task.folder / SWEEP_FILE).exists():
        print_message(_format_resume_hint(task.folder))


def _find_exit_code(entries: Sequence[SweepEntry]) -> int:
    states = {entry.status for entry in entries}
    if states - DONE_OR_REFUSED:
        return EXIT_FAILED
    return EXIT_INVALID if JobState.REFUSED in states else EXIT_OK


# ---- resuming --------------------------------------------------------------------------------------------------------


def resume_sweep(words: Sequence[str]) -> int:
    """Run the remaining jobs of a sweep; other overrides replace those of the original command."""
    arguments = parse_arguments(make_spec_parser("resume"), words)
    given = {each.key_or_group: str(each.input_line) for each in parse_overrides(arguments.overrides)}
    folder = Path(given.pop("sweep").partition("=")[2].strip("'\""))
    if "rerun" in given:
        given["sweep.rerun"] = f"sweep.{given.pop('rerun')}"
    command = _read_sweep_overrides(folder, given, arguments.config_dir)
    register()
    overrides = [*command, format_override("hydra.sweep.dir", str(folder)), *given.values()]
    return run_sweep_command(start_hydra(arguments.config_dir), overrides, arguments.config_dir)


def _read_sweep_overrides(folder: Path, given: dict[str, str], config_dir: str | None) -> list[str]:
    """Read the overrides that started the sweep, without those that are given again."""
    record = read_sweep_record(folder)
    if record is None:
        raise UserError(f"no sweep in '{folder}'; name a folder that contains {SWEEP_FILE}: resume sweep=FOLDER")
    if record.command is None:
        fix = "call it again with that folder: dlspec.sweep(SPEC, over=..., folder=...)"
        raise UserError(f"the sweep in '{folder}' was started from Python; {fix}")
    if record.config_dir is not None and config_dir is None:
        found = f"the sweep in '{folder}' uses config files from {format_value(record.config_dir)}"
        raise UserError(f"{found}; if you trust them, repeat --config-dir")
    parsed = [each for each in parse_overrides(record.command) if each.key_or_group not in {*given, "hydra.sweep.dir"}]
    untrusted = [quote_for_shell(str(each.input_line)) for each in parsed if must_be_repeated(each)]
    if untrusted:
        raise UserError(f"the sweep in '{folder}' may run code; if you trust it, repeat: {' '.join(untrusted)}")
    return [str(each.input_line) for each in parsed]
