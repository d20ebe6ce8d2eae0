"""`resume`: continue a run from its newest checkpoint (`run=FOLDER`), or a sweep (`sweep=FOLDER`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from dlspec.cli.argument_parsing import parse_arguments
from dlspec.cli.commands.sweep import resume_sweep
from dlspec.cli.console_output import print_message
from dlspec.cli.spec_arguments import make_spec_parser
from dlspec.config.composition import start_hydra
from dlspec.config.overrides import parse_overrides, value_location
from dlspec.config.saved_run import RUN_FIX
from dlspec.errors import UserError, replace_control_characters
from dlspec.formatting import format_override
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.ranks import join_ranks
from dlspec.jobs.run_resuming import (
    continue_run,
    find_changes,
    find_run_folder,
    is_run_finished,
    lock_newest_checkpoint,
    make_resumed_job,
    refuse_changes,
)
from dlspec.training.distributed import ProcessGroup


def main(argv: Sequence[str]) -> int:
    """Resume the run or sweep that the arguments name, and return the exit code."""
    if any(word.startswith("sweep=") for word in argv):
        return resume_sweep(argv)
    arguments = parse_arguments(make_spec_parser("resume"), argv)
    with join_ranks() as group:
        resume_run(arguments.overrides, arguments.config_dir, group)
    return 0


def resume_run(words: Sequence[str], config_dir: str | None, group: ProcessGroup) -> None:
    """Resume a run from its newest checkpoint, unless it is finished.

    Args:
        words: the run and the settings that change.
        config_dir: a folder with config files of the user.
        group: the processes that train together; the first one reads the checkpoint and sends it to the others.
    """
    folder, allowed, overrides = _parse_resume_arguments(words)
    lock = lock_newest_checkpoint(folder) if group.is_writer else nullcontext()
    with lock as own:
        found = group.broadcast(own)
        composed = compose_or_raise([format_override("run", str(folder)), *overrides], start_hydra(config_dir))
        job = make_resumed_job(make_preparation(composed), found)
        if not group.is_writer:
            if group.broadcast(True):
                job.take_part(found)
            return
        changed = find_changes(
            folder, job, found, [each.key_or_group.lstrip("+~") for each in parse_overrides(overrides)]
        )
        refuse_changes(folder, job, found, changed, allowed)
        if found is not None and not changed.keys() - {"trainer.progress"} and is_run_finished(folder):
            shown = replace_control_characters(str(folder))
            print(f"{shown} is finished; to train longer add trainer.epochs=N", file=sys.stderr)
            group.broadcast(False)
            return
        group.broadcast(True)
        continue_run(job, folder, found)
    print_message(str(folder))


def _parse_resume_arguments(words: Sequence[str]) -> tuple[Path, list[str], list[str]]:
    """Return the run's folder, the settings that may have changed (`resume.allow`), and the other overrides."""
    folder: Path | None = None
    allowed: list[str] = []
    others: list[str] = []
    for override in parse_overrides(
        [each if "=" in each or each[:1] in "~+" else format_override("run", each) for each in words]
    ):
        value = None if override.is_sweep_override() else override.value()
        if override.key_or_group == "run":
            folder = find_run_folder(str(value or ""), value_location(override))
        elif override.key_or_group == "resume.allow":
            allowed += [str(each) for each in (value if isinstance(value, list) else [value])]
        else:
            others.append(str(override.input_line))
    if folder is None:
        raise UserError(f"no run given; {RUN_FIX}")
    return folder, allowed, others
