"""A part's schema: its settings, as `derivation` finds them in its class's signature.

One `Setting` checks one value with pydantic and words what it wants; what hints can't say comes from
`dlspec.parts.refinements`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from dlspec.errors import Code, near, suggest
from dlspec.language.expressions.expressions import Unknown, children_of
from dlspec.language.parse.part import ENTRY_KEYS, NOTHING, Part
from dlspec.language.problems import Problems
from dlspec.parts.foreign_names import FOREIGN_SETTINGS
from dlspec.parts.hints import Refinement as Refinement
from dlspec.parts.hints import checked, in_words, no_stray_bool

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One argument of a part's constructor."""

    name: str
    hint: Any
    default: Any = REQUIRED
    is_inferred: bool = False
    refinement: Refinement = field(default_factory=Refinement)

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED and not self.is_inferred

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        hint: Any = checked(self.hint, self.refinement)
        return TypeAdapter(
            Annotated[hint, BeforeValidator(no_stray_bool(self.hint))], config=ConfigDict(arbitrary_types_allowed=True)
        )

    def read(self, value: Any) -> Any:
        """The value in its own type; raises `ValueError` with what is wanted."""
        if _waits(value):
            return value
        try:
            return self._adapter.validate_python(value)
        except (ValidationError, OverflowError):  # a number that no float holds
            raise ValueError(self.wanted) from None

    def accepts(self, value: Any) -> bool:
        """Whether `read` takes the value."""
        try:
            self.read(value)
        except ValueError:
            return False
        return True

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        return in_words(self.hint, self.refinement)


@dataclass(frozen=True)
class _Meant:
    """The settings that one value was probably meant as, and what to write instead; empty where it makes no sense."""

    settings: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Schema:
    """A part's class and its settings in the order of its constructor."""

    name: str
    kind: str
    build: Callable[..., Any]
    settings: Mapping[str, Setting]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    takes_value: bool = True

    @property
    def value_setting(self) -> str | None:
        """The setting that one value stands for (`Linear: 10`)."""
        own = [each for each in self.settings.values() if not each.is_inferred]
        inferred = [each for each in self.settings.values() if each.is_inferred]
        if not self.takes_value or not self.settings:
            return None
        if own and (own[0].is_required or not inferred):
            return own[0].name
        return inferred[0].name if inferred else None

    def read(self, part: Part, problems: Problems) -> dict[str, Any]:
        """The settings that were written, each checked; unknown and missing ones are mistakes."""
        written = self._written(part, problems)
        settings: dict[str, Any] = {}
        before = len(problems)
        for name, value in written.items():
            if name in self.settings:
                settings[name] = self._read_one(part, name, value, problems)
        meant = self._read_as_several(part.value).settings if len(problems) > before else ()
        unknown = [name for name in written if name not in self.settings]
        missing = [each.name for each in self.settings.values() if each.is_required and each.name not in written]
        missing = [each for each in missing if each not in meant]
        self._tell_unknown(part, unknown, missing, problems)
        return settings

    def check_names(self, part: Part, problems: Problems) -> None:
        """The settings' names alone, where no values are known."""
        self._tell_unknown(part, [name for name in part.settings if name not in self.settings], [], problems)

    def _written(self, part: Part, problems: Problems) -> dict[str, Any]:
        if part.value is NOTHING:
            return dict(part.settings)
        name = self.value_setting
        if name is None:
            fix = (
                f"write {self.name}: {{{next(iter(self.settings))}: ...}}" if self.settings else "write its name alone"
            )
            if isinstance(part.value, list) and not self.settings:
                fix = f"write {self.name}: {{from: {_plain(part.value)}}}".replace("'", "")
            problems.add(Code.WRONG_TYPE, part.settings_path, f"{self.name} takes no single value", fix, at_value=True)
            return {}
        return {name: part.value}

    def _read_one(self, part: Part, name: str, value: Any, problems: Problems) -> Any:
        setting = self.settings[name]
        try:
            return setting.read(value)
        except ValueError:
            found = f"{name} is {_shown(value)}, wanted {setting.wanted}"
            is_later = isinstance(value, str) and value in setting.refinement.not_yet
            fix = f"'{value}' is not there yet" if is_later else self._read_as_several(part.value).fix
            problems.add(
                Code.NOT_YET if is_later else Code.WRONG_VALUE,
                part.where(name),
                found,
                fix,
                at_value=True,
                shown=self._shown_in(part),
            )
            return value

    def _read_as_several(self, value: Any) -> _Meant:
        """`Conv2d: [32, 3]` and `Conv2d: 32, 3` were meant as several settings: the mapping to write, if they fit.

        Otherwise they may stand in PyTorch's order, in which `Linear: [64, 10]` says the input's size first.
        """
        values = value if isinstance(value, list) else [each.strip() for each in str(value).split(",")]
        own = [each.name for each in self.settings.values() if not each.is_inferred]
        names = list(dict.fromkeys([str(self.value_setting), *own]))
        if self._fit(names, values):
            return _Meant(tuple(names[: len(values)]), f"write {self.name}: {{{_pairs(names, values)}}}")
        if not self._fit(list(self.settings), values):
            return _Meant()
        meant = dict(zip(self.settings, values, strict=False))
        inferred = [name for name in meant if self.settings[name].is_inferred]
        kept = {name: each for name, each in meant.items() if name not in inferred}
        alone = list(kept) == [self.value_setting]
        text = str(kept[names[0]]) if alone else f"{{{_pairs(list(kept), list(kept.values()))}}}"
        are = "is" if len(inferred) == 1 else "are"
        return _Meant(tuple(kept), f"write {self.name}: {text} ({', '.join(inferred)} {are} inferred)")

    def _fit(self, names: list[str], values: list[Any]) -> bool:
        """Whether each value is one for the setting in its place."""
        if not 1 < len(values) <= len(names):
            return False
        return all(self.settings[name].accepts(each) for name, each in zip(names, values, strict=False))

    def _shown_in(self, part: Part) -> str:
        """The part's name, where the path does not end with it."""
        return "" if part.settings_path and self.name in part.settings_path else self.name

    def _tell_unknown(self, part: Part, unknown: list[str], missing: list[str], problems: Problems) -> None:
        for name in unknown:
            path = (*part.settings_path, name)
            if name in self.fixed:
                found = f"'{name}' is always {str(self.fixed[name]).lower()} here"
                problems.add(Code.FIXED_SETTING, path, found, "remove it", shown=self._shown_in(part))
                continue
            fix = self._suggestion(str(name))
            problems.add(Code.UNKNOWN_SETTING, path, f"no setting '{name}'", fix, shown=self._shown_in(part))
            # A required setting that was only misspelled is told once.
            missing = [each for each in missing if each != self._meant_setting(str(name))]
        if missing:
            wanted = ", ".join(f"{each} ({self.settings[each].wanted})" for each in missing)
            problems.add(
                Code.MISSING_VALUE, part.settings_path, f"{self.name} wants {wanted}", self._how_to_write(part, missing)
            )

    def _suggestion(self, name: str) -> str:
        meant = self._meant_setting(name)
        if meant and meant == self._translated(name):
            return f"in PyTorch: '{meant}'"
        if self._is_activation(name):
            return "write the activation as an entry of its own below it, - ReLU"
        return f"did you mean '{meant}'?" if meant else suggest(name, self.settings) or f"{self.name} has no settings"

    def _meant_setting(self, name: str) -> str:
        """The setting or key that an unknown name probably stands for, or ''."""
        names = [*self.settings, *(ENTRY_KEYS if self.kind == "layer" else ())]
        return self._translated(name) or ("" if self._is_activation(name) else near(name, names))

    def _translated(self, name: str) -> str:
        """PyTorch's name for a setting that Keras and others call `name`, or ''."""
        return next((each for each in FOREIGN_SETTINGS.get(name, ()) if each in self.settings), "")

    def _is_activation(self, name: str) -> bool:
        return self.kind == "layer" and name in ("activation", "act", "activation_fn", "nonlinearity")

    def _how_to_write(self, part: Part, missing: list[str]) -> str:
        if part.settings_path == part.path[:1]:  # flat, in a config group
            return f"add '{missing[0]}: ...' ({part.settings_path[0]}.{missing[0]}=...)"
        written = part.settings if part.value is NOTHING else {str(self.value_setting): part.value}
        known = [(self.settings[name], value) for name, value in written.items() if name in self.settings]
        pairs = [f"{each.name}: {_plain(value) if each.accepts(value) else '...'}" for each, value in known]
        return f"write {self.name}: {{{', '.join([*pairs, *(f'{each}: ...' for each in missing)])}}}"


def _waits(value: Any) -> bool:
    """Whether something in the value is not known yet."""
    return isinstance(value, Unknown) or any(_waits(each) for each in children_of(value))


def _shown(value: Any) -> str:
    return f"'{_plain(value)}'" if isinstance(value, str) else _plain(value)


def _pairs(names: list[str], values: list[Any]) -> str:
    return ", ".join(f"{name}: {_plain(each)}" for name, each in zip(names, values, strict=False))


def _plain(value: Any) -> str:
    """The value as YAML has it, cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."
