"""Choices among a group's files, parts or Hydra's plugins: what is not there is told with what there is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from dlspec.config.conf_files import PART_GROUPS
from dlspec.config.launchers import EXTRAS_BY_CHOICE
from dlspec.config.overrides import value_location
from dlspec.errors import UNKNOWN_PART_CODES, Code, Problem, suggest


def check_choice(override: Override, available: Sequence[str]) -> list[Problem]:
    """A file that no folder holds, told in our own words; `known` are those that there are."""
    group = override.key_or_group
    if override.is_delete() or override.is_sweep_override():
        return []
    chosen = override.value()
    names = [str(each) for each in (chosen if isinstance(chosen, list) else [chosen])]
    unknown = [each for each in names if each not in available and not (group in PART_GROUPS and each.isidentifier())]
    noun, location = f"no {'data set' if group == 'data' else group}", value_location(override)
    code = UNKNOWN_PART_CODES.get(group, Code.UNKNOWN_CHOICE)
    return [
        Problem(code, group, f"{noun} '{each}'", _suggest_choice(group, each, available), location) for each in unknown
    ]


def check_installed(override: Override, available: Collection[str]) -> list[Problem]:
    """A launcher or sweeper whose package is not there, with the extra that brings it."""
    group, chosen = override.key_or_group, str(override.value())
    extra = EXTRAS_BY_CHOICE[group].get(chosen)
    if extra is None or chosen in available:
        return []
    fix = f"pip install 'dlspec[{extra}]'"
    return [Problem(Code.NOT_INSTALLED, group, f"'{chosen}' is not installed", fix, value_location(override))]


def _suggest_choice(group: str, chosen: str, available: Sequence[str]) -> str:
    """The nearest name; for a file the name by which it is chosen, or where it must lie for that."""
    if not chosen.endswith((".yaml", ".yml")) and "/" not in chosen:
        return suggest(chosen, available, max_names=20)
    name = Path(chosen).name.removesuffix(".yaml").removesuffix(".yml")
    if name in available:
        return f"write its name alone: {group}={name}"
    return f"a file is chosen by its name: put it at conf/{group}/{name}.yaml and write {group}={name}"
