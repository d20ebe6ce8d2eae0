"""From the words of a command line to the steps of a run, or to every mistake in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlspec.compat.hydra import HydraApp
from dlspec.config.composition import Composed, Refused, compose
from dlspec.config.conf_files import GROUPS
from dlspec.errors import SpecError
from dlspec.jobs.preparation import Preparation


def composed_or_refused(overrides: Sequence[str], hydra: HydraApp) -> Composed:
    """The config, or every mistake at once: the overrides' own, and those of form in what they would have changed."""
    try:
        return compose(overrides, hydra)
    except Refused as refused:
        raise every_mistake(refused) from None


def every_mistake(refused: Refused) -> SpecError:
    """The overrides' mistakes and those of form in the config that they would have changed."""
    try:
        preparation(refused.composed).read()
    except SpecError as error:
        others = [each for each in error.problems if re.split("[. ]", each.path)[0] not in refused.groups]
        return SpecError([*refused.problems, *others])
    return refused


def preparation(composed: Composed, *, is_resumed: bool = False) -> Preparation:
    """The steps from a composed config to a run."""
    choices = {group: composed.loader.files(group) for group in GROUPS}
    return Preparation(composed.tree, composed.places, choices, is_resumed=is_resumed)
