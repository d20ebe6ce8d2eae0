"""A part's schema: its settings, as `derivation` finds them in its class's signature.

One `Setting` checks one value with pydantic and words what it wants; what hints can't say comes from
`dlspec.parts.setting_constraints`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from dlspec.errors import Code, find_closest, suggest
from dlspec.language.expressions.evaluator import UnknownValue, children_of
from dlspec.language.parse.part import ENTRY_KEYS, NO_VALUE, Part
from dlspec.language.problems import Problems
from dlspec.parts.name_suggestions import SETTING_SUGGESTIONS
from dlspec.parts.type_hints import Constraint as Constraint
from dlspec.parts.type_hints import describe_hint, make_bool_check, to_pydantic_hint

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One argument of a part's constructor."""

    name: str
    hint: Any
    default: Any = REQUIRED
    is_inferred: bool = False
    constraint: Constraint = field(default_factory=Constraint)

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED and not self.is_inferred

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        hint: Any = to_pydantic_hint(self.hint, self.constraint)
        return TypeAdapter(
            Annotated[hint, BeforeValidator(make_bool_check(self.hint))],
            config=ConfigDict(arbitrary_types_allowed=True),
        )

    def read(self, value: Any) -> Any:
        """The value in its own type; raises `ValueError` with what is wanted."""
        if _has_unknown(value):
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
        return describe_hint(self.hint, self.constraint)


@dataclass(frozen=True)
class _IntendedSettings:
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
        written = self._written_settings(part, problems)
        settings: dict[str, Any] = {}
        before = len(problems)
        for name, value in written.items():
            if name in self.settings:
                settings[name] = self._read_setting(part, name, value, problems)
        intended = self._guess_settings(part.value).settings if len(problems) > before else ()
        unknown = [name for name in written if name not in self.settings]
        missing = [each.name for each in self.settings.values() if each.is_required and each.name not in written]
        missing = [each for each in missing if each not in intended]
        self._report_unknown_and_missing(part, unknown, missing, problems)
        return settings

    def check_names(self, part: Part, problems: Problems) -> None:
        """The settings' names alone, where no values are known."""
        self._report_unknown_and_missing(
            part, [name for name in part.settings if name not in self.settings], [], problems
        )

    def _written_settings(self, part: Part, problems: Problems) -> dict[str, Any]:
        if part.value is NO_VALUE:
            return dict(part.settings)
        name = self.value_setting
        if name is None:
            fix = (
                f"write {self.name}: {{{next(iter(self.settings))}: ...}}" if self.settings else "write its name alone"
            )
            if isinstance(part.value, list) and not self.settings:
                fix = f"write {self.name}: {{from: {_format_value(part.value)}}}".replace("'", "")
            problems.add(Code.WRONG_TYPE, part.settings_path, f"{self.name} takes no single value", fix, at_value=True)
            return {}
        return {name: part.value}

    def _read_setting(self, part: Part, name: str, value: Any, problems: Problems) -> Any:
        setting = self.settings[name]
        try:
            return setting.read(value)
        except ValueError:
            found = f"{name} is {_quote_value(value)}, wanted {setting.wanted}"
            is_unsupported = isinstance(value, str) and value in setting.constraint.unsupported_values
            fix = f"'{value}' is not there yet" if is_unsupported else self._guess_settings(part.value).fix
            problems.add(
                Code.NOT_YET if is_unsupported else Code.WRONG_VALUE,
                part.path_of(name),
                found,
                fix,
                at_value=True,
                shown=self._name_if_not_in_path(part),
            )
            return value

    def _guess_settings(self, value: Any) -> _IntendedSettings:
        """`Conv2d: [32, 3]` and `Conv2d: 32, 3` were meant as several settings: the mapping to write, if they fit.

        Otherwise they may stand in PyTorch's order, in which `Linear: [64, 10]` says the input's size first.
        """
        values = value if isinstance(value, list) else [each.strip() for each in str(value).split(",")]
        own = [each.name for each in self.settings.values() if not each.is_inferred]
        names = list(dict.fromkeys([str(self.value_setting), *own]))
        if self._values_fit(names, values):
            return _IntendedSettings(
                tuple(names[: len(values)]), f"write {self.name}: {{{_format_pairs(names, values)}}}"
            )
        if not self._values_fit(list(self.settings), values):
            return _IntendedSettings()
        by_position = dict(zip(self.settings, values, strict=False))
        inferred = [name for name in by_position if self.settings[name].is_inferred]
        kept = {name: each for name, each in by_position.items() if name not in inferred}
        is_single = list(kept) == [self.value_setting]
        text = str(kept[names[0]]) if is_single else f"{{{_format_pairs(list(kept), list(kept.values()))}}}"
        are = "is" if len(inferred) == 1 else "are"
        return _IntendedSettings(tuple(kept), f"write {self.name}: {text} ({', '.join(inferred)} {are} inferred)")

    def _values_fit(self, names: list[str], values: list[Any]) -> bool:
        """Whether each value is one for the setting in its place."""
        if not 1 < len(values) <= len(names):
            return False
        return all(self.settings[name].accepts(each) for name, each in zip(names, values, strict=False))

    def _name_if_not_in_path(self, part: Part) -> str:
        """The part's name, where the path does not end with it."""
        return "" if part.settings_path and self.name in part.settings_path else self.name

    def _report_unknown_and_missing(
        self, part: Part, unknown: list[str], missing: list[str], problems: Problems
    ) -> None:
        for name in unknown:
            path = (*part.settings_path, name)
            if name in self.fixed:
                found = f"'{name}' is always {str(self.fixed[name]).lower()} here"
                problems.add(Code.FIXED_SETTING, path, found, "remove it", shown=self._name_if_not_in_path(part))
                continue
            fix = self._suggest_fix(str(name))
            problems.add(Code.UNKNOWN_SETTING, path, f"no setting '{name}'", fix, shown=self._name_if_not_in_path(part))
            # A required setting that was only misspelled is told once.
            missing = [each for each in missing if each != self._intended_setting(str(name))]
        if missing:
            expected = ", ".join(f"{each} ({self.settings[each].wanted})" for each in missing)
            problems.add(
                Code.MISSING_VALUE,
                part.settings_path,
                f"{self.name} wants {expected}",
                self._suggest_complete_entry(part, missing),
            )

    def _suggest_fix(self, name: str) -> str:
        intended = self._intended_setting(name)
        if intended and intended == self._pytorch_setting(name):
            return f"in PyTorch: '{intended}'"
        if self._means_activation(name):
            return "write the activation as an entry of its own below it, - ReLU"
        return (
            f"did you mean '{intended}'?"
            if intended
            else suggest(name, self.settings) or f"{self.name} has no settings"
        )

    def _intended_setting(self, name: str) -> str:
        """The setting or key that an unknown name probably stands for, or ''."""
        names = [*self.settings, *(ENTRY_KEYS if self.kind == "layer" else ())]
        return self._pytorch_setting(name) or ("" if self._means_activation(name) else find_closest(name, names))

    def _pytorch_setting(self, name: str) -> str:
        """PyTorch's name for a setting that Keras and others call `name`, or ''."""
        return next((each for each in SETTING_SUGGESTIONS.get(name, ()) if each in self.settings), "")

    def _means_activation(self, name: str) -> bool:
        return self.kind == "layer" and name in ("activation", "act", "activation_fn", "nonlinearity")

    def _suggest_complete_entry(self, part: Part, missing: list[str]) -> str:
        if part.settings_path == part.path[:1]:  # flat, in a config group
            return f"add '{missing[0]}: ...' ({part.settings_path[0]}.{missing[0]}=...)"
        written = part.settings if part.value is NO_VALUE else {str(self.value_setting): part.value}
        known = [(self.settings[name], value) for name, value in written.items() if name in self.settings]
        pairs = [f"{each.name}: {_format_value(value) if each.accepts(value) else '...'}" for each, value in known]
        return f"write {self.name}: {{{', '.join([*pairs, *(f'{each}: ...' for each in missing)])}}}"


def _has_unknown(value: Any) -> bool:
    """Whether something in the value is not known yet."""
    return isinstance(value, UnknownValue) or any(_has_unknown(each) for each in children_of(value))


def _quote_value(value: Any) -> str:
    return f"'{_format_value(value)}'" if isinstance(value, str) else _format_value(value)


def _format_pairs(names: list[str], values: list[Any]) -> str:
    return ", ".join(f"{name}: {_format_value(each)}" for name, each in zip(names, values, strict=False))


def _format_value(value: Any) -> str:
    """The value as YAML has it, cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."
