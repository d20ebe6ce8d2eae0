"""Read `trainer.average`, which is a part: `EMA`, `EMA: 0.99`, `EMA: {decay: 0.99}` or `{type: EMA, decay: 0.99}`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dlspec.errors import Code
from dlspec.language.parse.part import NO_VALUE, Part, parse_part
from dlspec.language.problems import Problems
from dlspec.language.sections.trainer_section import EMA, SWA
from dlspec.parts.registry import Registry, describe_as_class_itself
from dlspec.parts.section_reader import read_section

_CLASSES: tuple[type[EMA] | type[SWA], ...] = (EMA, SWA)
AVERAGES = Registry("average", _CLASSES, describe_as_class_itself)
AVERAGE_PATH = ("trainer", "average")


def read_average(raw: Any, epochs: int | None, problems: Problems) -> EMA | SWA | None:
    """Read the moving average of the weights.

    Args:
        raw: The setting as written, or None.
        epochs: How many epochs the training has, or None if unknown.
        problems: Where everything wrong is reported.

    Returns:
        The average, or None if there is none or it is wrong.
    """
    part = None if raw is None else parse_part(raw, AVERAGE_PATH, problems, kind="average")
    if part is None:
        return None
    average_class = AVERAGES.find(
        replace(part, path=part.path_of_name), problems, at_value=True, setting_names=("decay", "start_epoch")
    )
    if average_class is None:
        return None
    from_value = {} if part.value is NO_VALUE else {next(iter(average_class.model_fields)): part.value}
    average = read_section(average_class, {**from_value, **part.settings}, part.settings_path, problems)
    if isinstance(average, SWA) and epochs is not None:
        _check_start_epoch(average.start_epoch or 1, epochs, part, problems)
    return average


def _check_start_epoch(start: int, epochs: int, part: Part, problems: Problems) -> None:
    if start > epochs:
        found = f"start_epoch is {start}, but there are only {epochs} epochs; nothing would be averaged"
        problems.add(
            Code.WRONG_VALUE,
            part.path_of("start_epoch"),
            found,
            "use a smaller start_epoch, or leave it out to average the last quarter of the epochs",
            at_value=True,
        )
