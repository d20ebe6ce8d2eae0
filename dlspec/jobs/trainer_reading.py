"""Read the trainer's settings, and the warm-up and interval of the scheduler."""

from __future__ import annotations

import re
from typing import Any, Literal

from dlspec.errors import Code, KeyPath, find_closest, format_value
from dlspec.jobs.spec import CheckedPart
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.problems import Problems
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.limits import explain_raising_limit, get_limit
from dlspec.parts.section_reader import read_section
from dlspec.parts.specs.average_spec import read_average

# Schedulers that can't have a warm-up, and why or what to use instead.
REASONS_AGAINST_WARMUP = dict.fromkeys(
    ("OneCycleLR", "CyclicLR"), "it raises the learning rate itself: see its settings"
)
# Settings of the trainer that count something, by the limit that they may not exceed.
_COUNTS_BY_LIMIT = {
    "epochs": ("epochs", "patience"),
    "steps": ("max_steps", "limit_batches", "accumulate", "checkpoint_steps"),
}
_DEVICE_PATTERN = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_DEVICE_SYNONYMS = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps"}


def remove_keys(raw: Any, *keys: str) -> Any:
    """Return a section without some of its keys; other values are returned unchanged."""
    return {each: value for each, value in raw.items() if each not in keys} if isinstance(raw, dict) else raw


def read_trainer(raw: Any, problems: Problems) -> TrainerSpec | None:
    """Read the trainer's settings; None if there is a problem."""
    trainer = read_section(TrainerSpec, remove_keys(raw, "average"), ("trainer",), problems)
    average = raw.get("average") if isinstance(raw, dict) else None
    average_spec = read_average(average, trainer.epochs if trainer else None, problems)
    if trainer is None:
        return None
    _check_counts(trainer, problems)
    _check_device_and_monitor(trainer, problems)
    return trainer.model_copy(update={"average": average_spec})


def _check_counts(trainer: TrainerSpec, problems: Problems) -> None:
    """Report counts that no training reaches, most of them numbers with a few zeros too many."""
    for limit, keys in _COUNTS_BY_LIMIT.items():
        for key in keys:
            count = getattr(trainer, key)
            if count is not None and count > get_limit(limit):
                report_large_count(("trainer", key), count, limit, problems)


def report_large_count(path: KeyPath, count: int, limit: str, problems: Problems) -> None:
    """Report a setting that exceeds a limit.

    Args:
        path: The setting's path.
        count: Its value.
        limit: The name of the limit.
        problems: Gets the problem.
    """
    found = f"'{path[-1]}' is {count:,}, at most {get_limit(limit):,} are allowed"
    problems.add(Code.TOO_LARGE, path, found, explain_raising_limit(limit), at_value=True)


def _check_device_and_monitor(trainer: TrainerSpec, problems: Problems) -> None:
    """Check how `device` and `monitor` are written; whether they exist is checked when the run is built."""
    if not _DEVICE_PATTERN.fullmatch(trainer.device):
        meant = _DEVICE_SYNONYMS.get(trainer.device.lower()) or find_closest(
            trainer.device, ("auto", "cpu", "cuda", "mps")
        )
        fix = f"did you mean '{meant}'?" if meant else "write auto, cpu, cuda, cuda:1 (a number) or mps"
        problems.add(
            Code.UNKNOWN_DEVICE, ("trainer", "device"), f"unknown device '{trainer.device}'", fix, at_value=True
        )
    if not trainer.monitor.startswith(("train/", "val/")):
        result = re.sub(r"^[a-z]*/|^(val|valid|validation|train|test)_", "", trainer.monitor) or "loss"
        found = f"'{trainer.monitor}' is not the name of a result: names start with train/ or val/"
        problems.add(
            Code.UNKNOWN_CHOICE,
            ("trainer", "monitor"),
            found,
            f"write val/{result} or train/{result}",
            at_value=True,
        )


def read_warmup(raw: Any, scheduler: CheckedPart | None, problems: Problems) -> int:
    """Read the length of the warm-up, in which the learning rate rises.

    Args:
        raw: The `scheduler` section.
        scheduler: The scheduler, if it was found.
        problems: Gets a problem for a wrong value, or a scheduler that can't have a warm-up.

    Returns:
        The number of steps; 0 without a warm-up.
    """
    warmup = raw.get("warmup") if isinstance(raw, dict) else None
    if warmup is None or isinstance(warmup, UnknownValue):
        return 0
    if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 1:
        found = f"warmup must be a whole number of steps >= 1, got {format_value(warmup)}"
        problems.add(Code.WRONG_VALUE, ("scheduler", "warmup"), found, at_value=True)
        return 0
    if warmup > get_limit("steps"):
        report_large_count(("scheduler", "warmup"), warmup, "steps", problems)
        return 0
    if scheduler is not None and scheduler.schema.name in REASONS_AGAINST_WARMUP:
        found, fix = f"{scheduler.schema.name} can't have a warmup", REASONS_AGAINST_WARMUP[scheduler.schema.name]
        problems.add(Code.CONFLICT, ("scheduler", "warmup"), found, fix)
    return warmup


def read_interval(raw: Any, scheduler: CheckedPart | None, problems: Problems) -> Literal["step", "epoch"] | None:
    """Read how often the scheduler steps.

    Args:
        raw: The `scheduler` section.
        scheduler: The scheduler, if it was found.
        problems: Gets a problem for a wrong value.

    Returns:
        The interval; None if the config does not set it.
    """
    interval = raw.get("interval") if isinstance(raw, dict) else None
    if interval == "step" and scheduler is not None and scheduler.schema.name == "ReduceLROnPlateau":
        _refuse_plateau_of_steps(problems)
    if interval == "step" or interval == "epoch" or interval is None:
        return interval
    if isinstance(interval, InvalidValue):
        return None
    found = f"interval must be step or epoch, got {format_value(interval)}"
    problems.add(Code.WRONG_VALUE, ("scheduler", "interval"), found, at_value=True)
    return None


def _refuse_plateau_of_steps(problems: Problems) -> None:
    if problems.spec_version >= 2:  # before, the interval was ignored
        found = "ReduceLROnPlateau is stepped after every epoch, as it needs the results of an epoch"
        problems.add(Code.CONFLICT, ("scheduler", "interval"), found, "leave out the interval", at_value=True)
