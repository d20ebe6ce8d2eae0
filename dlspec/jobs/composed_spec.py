"""Compose the overrides of a command line into a run's `Preparation`, or report every problem in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from dlspec.compat.hydra import HydraApp
from dlspec.config.composition import ComposedConfig, DlspecConfigLoader, InvalidOverrides, compose
from dlspec.config.conf_files import GROUPS
from dlspec.config.job_config import JobConfig
from dlspec.errors import SpecError
from dlspec.jobs.run_preparation import Preparation


def compose_or_raise(overrides: Sequence[str], hydra: HydraApp) -> ComposedConfig:
    """Compose the config; raises SpecError with every problem of the overrides and of the rest of the config."""
    try:
        return compose(overrides, hydra)
    except InvalidOverrides as refused:
        raise collect_override_problems(refused) from None


def collect_override_problems(refused: InvalidOverrides) -> SpecError:
    """Collect the problems of the overrides, and those in the config as it is without them."""
    try:
        make_preparation(refused.composed).read()
    except SpecError as error:
        others = [each for each in error.problems if re.split("[. ]", each.path)[0] not in refused.groups]
        return SpecError([*refused.problems, *others])
    return refused


def make_preparation(composed: ComposedConfig) -> Preparation:
    """Make the steps that turn a composed config into a run."""
    return Preparation(composed.tree, composed.find_locations, _list_choices(composed.loader))


def make_job_preparation(config: JobConfig, loader: DlspecConfigLoader) -> Preparation:
    """Make the steps that turn the config of a sweep's job into a run.

    Args:
        config: The job's config.
        loader: Finds where a wrong key is written.
    """
    return Preparation(config.tree, partial(loader.find_locations, config.overrides), _list_choices(loader))


def _list_choices(loader: DlspecConfigLoader) -> dict[str, list[str]]:
    """List the config files of each group."""
    return {group: loader.files(group) for group in GROUPS}
