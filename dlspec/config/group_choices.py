"""Checks of choices: unknown or too many files and parts of a group, and plugins of Hydra that are not installed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from dlspec.config.conf_files import PART_GROUPS, SINGLE_CHOICE_GROUPS, explain_misplaced_file
from dlspec.config.launchers import EXTRAS_BY_CHOICE
from dlspec.config.overrides import value_location
from dlspec.errors import UNKNOWN_PART_CODES, Code, Problem, format_value, suggest


def check_choice(override: Override, available: Sequence[str]) -> list[Problem]:
    """Return a problem for each chosen name that is neither in `available` nor, in a group of parts, a part's name.

    More than one name is a problem too where only the last would count.
    """
    group = override.key_or_group
    if override.is_delete() or override.is_sweep_override():
        return []
    chosen = override.value()
    names = [str(each) for each in (chosen if isinstance(chosen, list) else [chosen])]
    unknown = [each for each in names if each not in available and not _may_be_part(group, each)]
    if len(names) > 1 and group in SINGLE_CHOICE_GROUPS and not unknown:
        return [_multiple_choices_problem(override, names)]
    noun, location = f"unknown {'data set' if group == 'data' else group}", value_location(override)
    code = UNKNOWN_PART_CODES.get(group, Code.UNKNOWN_CHOICE)
    not_yet = _find_planned_sources() if group == "data" and unknown else {}
    return [
        Problem(Code.NOT_YET, group, f"the data set '{each}' is not supported yet", not_yet[each], location)
        if each in not_yet
        else Problem(code, group, f"{noun} '{each}'", _suggest_choice(group, each, available), location)
        for each in unknown
    ]


def _may_be_part(group: str, name: str) -> bool:
    """Whether the name of a part may be meant, which is looked up later: no file in a wrong place has this name."""
    if group not in PART_GROUPS or not name.isidentifier():
        return False
    return not explain_misplaced_file(group, name) or name in _list_parts(group)


def _list_parts(group: str) -> Collection[str]:
    """List the parts of a group. This imports PyTorch."""
    from dlspec.parts.torch.torch_metrics import metric_registry
    from dlspec.parts.torch.torch_parts import LOSSES, OPTIMIZERS, SCHEDULERS

    if group == "metrics":
        return metric_registry()
    return {"loss": LOSSES, "optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}[group]


def _find_planned_sources() -> Mapping[str, str]:
    from dlspec.parts.name_suggestions import SOURCES_NOT_YET

    return SOURCES_NOT_YET


def _multiple_choices_problem(override: Override, names: Sequence[str]) -> Problem:
    group = override.key_or_group
    fix = f"write one of them, or -m {group}={','.join(names)} to sweep over them"
    return Problem(
        Code.SEVERAL_VALUES, group, f"{group} takes one choice, got {len(names)}", fix, value_location(override)
    )


def check_choice_type(override: Override) -> list[Problem]:
    """Return a problem for a choice that is not a name, a list of names or null (`hydra/launcher=16`)."""
    value = None if override.is_sweep_override() else override.value()
    names = value if isinstance(value, list) and not override.is_delete() else [value]
    if all(isinstance(each, str | None) for each in names):
        return []
    group = override.key_or_group
    fix = f"write ~{group}" if override.is_delete() else f"write {group}=NAME"
    found = f"expected a name, got {format_value(value)}"
    return [Problem(Code.WRONG_TYPE, group, found, fix, value_location(override))]


def check_installed(override: Override, available: Collection[str]) -> list[Problem]:
    """Return a problem for a launcher or sweeper that is not installed; the fix names the extra that installs it."""
    group, chosen = override.key_or_group, str(override.value())
    extra = EXTRAS_BY_CHOICE[group].get(chosen)
    if extra is None or chosen in available:
        return []
    fix = f"pip install 'dlspec[{extra}]'"
    return [Problem(Code.NOT_INSTALLED, group, f"'{chosen}' is not installed", fix, value_location(override))]


def _suggest_choice(group: str, chosen: str, available: Sequence[str]) -> str:
    """Suggest a name: the nearest one or, for a file's path, how to choose that file by its name."""
    if not chosen.endswith((".yaml", ".yml")) and "/" not in chosen:
        return explain_misplaced_file(group, chosen) or suggest(chosen, available, max_names=20)
    name = Path(chosen).name.removesuffix(".yaml").removesuffix(".yml")
    if name in available:
        return f"write only its name: {group}={name}"
    return f"files are chosen by name: save it as conf/{group}/{name}.yaml and write {group}={name}"
