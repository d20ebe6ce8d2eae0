"""Fit the settings of a scheduler to the groups of its optimizer.

OneCycleLR and CyclicLR set learning rates and momentum themselves: where PyTorch's own classes get one number, they
overwrite what the groups state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from dlspec.errors import Code
from dlspec.jobs.spec import CheckedPart
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import RATES_OF_GROUPS

# Settings that replace learning rates. One number is meant for the learning rate of the optimizer itself.
_RATE_SETTINGS: Mapping[str, Sequence[str]] = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}
# Settings that may be a list with one number for each group.
_LIST_SETTINGS = ("base_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


@dataclass(frozen=True)
class _GroupFitting:
    """A scheduler's settings and the groups that they must fit."""

    part: CheckedPart
    optimizer: Optimizer
    problems: Problems

    @property
    def name(self) -> str:
        return self.part.schema.name

    @property
    def groups(self) -> Sequence[Mapping[str, Any]]:
        return self.optimizer.param_groups

    def add_conflict(self, setting: str, found: str, fix: str, code: Code = Code.CONFLICT) -> None:
        self.problems.add(code, self.part.part.path_of(setting), found, fix, at_value=True)


def fit_settings_to_groups(
    part: CheckedPart, settings: Mapping[str, Any], optimizer: Optimizer, problems: Problems
) -> dict[str, Any]:
    """Give each group its own learning rates: one number is scaled by (the group's lr / the optimizer's lr).

    Args:
        part: The scheduler.
        settings: Its settings.
        optimizer: The optimizer, with the learning rates that it starts with.
        problems: Gets a problem for a list of a wrong length, and for settings that overwrite what a group states.

    Returns:
        The settings for PyTorch.
    """
    fitting, found_before = _GroupFitting(part, optimizer, problems), len(problems)
    _check_learning_rates(fitting)
    _check_list_lengths(fitting, settings)
    if len(problems) > found_before:
        return dict(settings)
    _check_momentum(fitting, settings)
    _check_lowest_rates(fitting, settings)
    return {**settings, **dict(_scale_rates(fitting, settings))}


def _check_learning_rates(fitting: _GroupFitting) -> None:
    if any("lr" not in group for group in fitting.groups):
        found = f"{type(fitting.optimizer).__name__} has no setting 'lr', which {fitting.name} would change"
        fitting.problems.add(Code.CONFLICT, fitting.part.part.path, found, "leave out the scheduler")


def _check_list_lengths(fitting: _GroupFitting, settings: Mapping[str, Any]) -> None:
    count = len(fitting.groups)
    for setting in _LIST_SETTINGS:
        values = settings.get(setting)
        if not isinstance(values, list | tuple) or len(values) == count:
            continue
        found = f"{setting} has {len(values)} numbers, but the optimizer has {count} group{'s' if count != 1 else ''}"
        order = "first that of the parameters that no pattern matches, if there are any, then those of optimizer.groups"
        fix = "write one number" if count == 1 else f"write one number, or one for each group: {order}"
        fitting.add_conflict(setting, found, fix, Code.WRONG_VALUE)


def _scale_rates(fitting: _GroupFitting, settings: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """Yield each setting that replaces learning rates and is one number, with its value for each group."""
    own, rates = fitting.optimizer.defaults.get("lr"), [float(group["lr"]) for group in fitting.groups]
    for setting in _RATE_SETTINGS.get(fitting.name, ()):
        value = settings.get(setting)
        if not isinstance(value, int | float) or all(rate == own for rate in rates):
            continue
        fitting.problems.refuse_changed_rule(RATES_OF_GROUPS, fitting.part.part.path_of(setting), at_value=True)
        if not own:
            found = f"{setting} is one number, which can't be scaled for the groups, as the optimizer's own lr is {own}"
            fitting.add_conflict(setting, found, "set optimizer.lr, or write a list with one number for each group")
            continue
        yield setting, [value * (rate / own) for rate in rates]


def _check_momentum(fitting: _GroupFitting, settings: Mapping[str, Any]) -> None:
    """Report a momentum of a group that the scheduler would replace by that of all groups."""
    is_cycled = fitting.name in _RATE_SETTINGS and settings.get("cycle_momentum", True)
    has_lists = any(isinstance(settings.get(each), list | tuple) for each in ("base_momentum", "max_momentum"))
    if not is_cycled or has_lists or fitting.problems.spec_version < RATES_OF_GROUPS.since:
        return
    own = _get_momentum(fitting.optimizer.defaults)
    for momentum in {_get_momentum(group) for group in fitting.groups} - {own}:
        found = f"{fitting.name} cycles the momentum, so a group's own momentum of {momentum} would have no effect"
        lists = "base_momentum and max_momentum as lists with one number a group"
        fix = f"set scheduler.cycle_momentum to false, or write {lists}"
        fitting.add_conflict("cycle_momentum", found, fix)


def _get_momentum(group: Mapping[str, Any]) -> Any:
    """Return what a scheduler cycles as the momentum: the first of `betas`, or `momentum`."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def _check_lowest_rates(fitting: _GroupFitting, settings: Mapping[str, Any]) -> None:
    """Report an `eta_min` that is a decay for the optimizer, but a rise for one of its groups."""
    lowest, own = settings.get("eta_min"), fitting.optimizer.defaults.get("lr")
    if not isinstance(lowest, int | float) or own is None or own < lowest:
        return
    rate = min(float(group["lr"]) for group in fitting.groups)
    if rate < lowest and fitting.problems.spec_version >= RATES_OF_GROUPS.since:
        found = f"a group has lr {rate:g}, which would rise to eta_min, {lowest:g}"
        fix = f"set eta_min to {rate:g} or less; to keep parameters unchanged, freeze them"
        fitting.add_conflict("eta_min", found, fix)
