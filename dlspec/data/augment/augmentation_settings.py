"""Read the setting `augment`: a list of augmentations for every image field, or a mapping from fields to lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from dlspec.data.augment.augmentation_registry import augmentation_registry
from dlspec.data.augment.mixing import Mixing
from dlspec.errors import Code, KeyPath, format_value
from dlspec.formatting import first_line
from dlspec.language.expressions.expression_parsing import UnknownValue, list_children
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema

ALL_FIELDS = ""  # the key of a list that was written for every image field
MAX_AUGMENTATIONS = 100  # of one field; a longer list would take seconds a batch
RANGES = frozenset({"degrees", "ratio", "scale", "shear"})  # settings that may be [from, to]
EXAMPLE = "[RandomHorizontalFlip, RandomAffine: {degrees: 10}]"


@dataclass(frozen=True)
class AugmentationTerm:
    """An augmentation as written."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The augmentation's name."""
        return self.schema.name

    @property
    def is_mixing(self) -> bool:
        """Whether it mixes samples, as MixUp does."""
        return isinstance(self.schema.build, type) and issubclass(self.schema.build, Mixing)

    @property
    def inner_path(self) -> KeyPath:
        """The keys from `augment` to this augmentation."""
        path = self.part.path_of_name
        return path[path.index("augment") + 1 :]

    def build(self) -> Any:
        """Make kornia's module, or the object that mixes samples."""
        return self.schema.build(**self.settings)


AugmentationTerms = Mapping[str, tuple[AugmentationTerm, ...]]


def read_augmentations(raw: Any, path: KeyPath, problems: Problems) -> AugmentationTerms:
    """Read the setting `augment`.

    Args:
        raw: the setting as written.
        path: its path.
        problems: collects everything that is wrong.

    Returns:
        The augmentations by field; those of every image field under ''. Empty if there are none.
    """
    if not raw or isinstance(raw, UnknownValue):
        return {}
    if not isinstance(raw, str | list | tuple | dict):
        fix = f"write a list: augment: {EXAMPLE}"
        problems.add(Code.WRONG_TYPE, path, f"'augment' must be a list, got {format_value(raw)}", fix, at_value=True)
        return {}
    try:
        names = augmentation_registry()
    except ImportError:
        fix = "pip install 'dlspec[images]'"
        problems.add(Code.NOT_INSTALLED, path, "'augment' needs kornia, which is not installed", fix)
        return {}
    if isinstance(raw, dict) and not any(key in names for key in raw):
        lists = {str(key): (each, (*path, key)) for key, each in raw.items()}
    else:
        lists = {ALL_FIELDS: (raw, path)}
    found = {key: _read_list(each, inner, problems) for key, (each, inner) in lists.items()}
    return {key: terms for key, terms in found.items() if terms}


def _read_list(raw: Any, path: KeyPath, problems: Problems) -> tuple[AugmentationTerm, ...]:
    """Read the augmentations of one field; a single one may be written without a list."""
    if isinstance(raw, dict) and len(raw) > 1 and "type" not in raw:
        entries = ", ".join(f"{key}: ..." for key in raw)
        problems.add(Code.WRONG_TYPE, path, "'augment' must be a list, got a mapping", f"write a list: [{entries}]")
        return ()
    pairs = [(raw, path)] if isinstance(raw, str | dict) else _number_entries(raw, path, problems)
    terms = [_read_term(entry, inner, problems) for entry, inner in pairs]
    found = tuple(each for each in terms if each is not None)
    _check_order(found, problems)
    return found


def _number_entries(raw: Any, path: KeyPath, problems: Problems) -> Sequence[tuple[Any, KeyPath]]:
    if not isinstance(raw, list | tuple):
        found = f"the augmentations of a field must be a list, got {format_value(raw)}"
        problems.add(Code.WRONG_TYPE, path, found, f"write a list: {EXAMPLE}", at_value=True)
        return []
    if len(raw) > MAX_AUGMENTATIONS:
        found = f"has {len(raw):,} augmentations; at most {MAX_AUGMENTATIONS} are allowed"
        problems.add(Code.TOO_LARGE, path, found, "remove some")
        return []
    return [(entry, (*path, index)) for index, entry in enumerate(raw)]


def _read_term(entry: Any, path: KeyPath, problems: Problems) -> AugmentationTerm | None:
    before = len(problems)
    part = parse_part(entry, path, problems, kind="augmentation")
    if part is None:
        return None
    part = replace(part, path=part.path_of_name)
    schema = augmentation_registry().find(part, problems)
    if schema is None:
        return None
    _check_known(part, problems)
    term = AugmentationTerm(part, schema, schema.read(part, problems))
    _check_ranges(term, problems)
    if len(problems) == before:
        _try_to_build(term, problems)
    return term if len(problems) == before else None


def _check_known(part: Part, problems: Problems) -> None:
    """Report settings that are facts of the data: an augmentation is read before the data are open."""
    for name, value in [*part.settings.items(), ("", part.value)]:
        unknown = next((each for each in (value, *list_children(value)) if isinstance(each, UnknownValue)), None)
        if unknown is not None:
            found = f"{unknown} is unknown until the data are open"
            problems.add(Code.KNOWN_TOO_LATE, part.path_of(name), found, "write the value itself", at_value=True)


def _check_ranges(term: AugmentationTerm, problems: Problems) -> None:
    """Report ranges that end before they start, which kornia does not always see."""
    for name in RANGES & term.settings.keys():
        value = term.settings[name]
        if isinstance(value, list | tuple) and len(value) in (2, 4) and any(a > b for a, b in _pair(value)):
            found = f"'{name}' must be [from, to], got {format_value(list(value))}"
            problems.add(Code.WRONG_VALUE, term.part.path_of(name), found, "swap them", at_value=True)


def _pair(values: Sequence[float]) -> Sequence[tuple[float, float]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _try_to_build(term: AugmentationTerm, problems: Problems) -> None:
    """Build an augmentation once, as kornia checks the ranges of most settings in its constructors."""
    try:
        term.build()
    except Exception as error:  # kornia raises errors of many types
        reason = first_line(error)
        named = (each for each in term.settings if re.search(rf"\b{re.escape(each)}\b", reason))
        setting = next(named, next(iter(term.settings), ""))
        path = term.part.path_of(setting)
        found = f"{term.name} does not accept these settings"
        problems.add(Code.WRONG_VALUE, path, found, f"kornia says: {reason}", at_value=True)


def _check_order(terms: Sequence[AugmentationTerm], problems: Problems) -> None:
    """Report a MixUp or CutMix before another augmentation: whole samples are mixed at the end."""
    for first, second in pairwise(terms):
        if first.is_mixing and not second.is_mixing:
            found = f"{first.name} mixes the finished images, so it comes after {second.name}"
            problems.add(Code.CONFLICT, first.part.path, found, f"move {first.name} to the end of the list")
