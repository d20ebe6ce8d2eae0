"""A part's schema: its settings with their types and defaults.

`schema_derivation` derives schemas from signatures. A `Setting` checks one value with pydantic and describes what is
expected. `setting_constraints` adds what type hints can't express.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from dlspec.errors import Code, find_closest, suggest
from dlspec.language.expressions.expression_parsing import UnknownValue, list_children
from dlspec.language.parse.part import ENTRY_KEYS, NO_VALUE, Part
from dlspec.language.problems import Problems
from dlspec.parts.name_suggestions import SETTING_SUGGESTIONS
from dlspec.parts.type_hints import Constraint as Constraint
from dlspec.parts.type_hints import describe_hint, make_bool_check, to_pydantic_hint

REQUIRED = inspect.Parameter.empty
# Words that are often written for a key of an entry of `layers`.
_ENTRY_KEY_WORDS = {"inputs": "from", "input": "from", "times": "repeat"}


@dataclass(frozen=True)
class Setting:
    """One setting of a part: an argument of its constructor."""

    name: str
    hint: Any
    default: Any = REQUIRED
    is_inferred: bool = False  # may be left out: determined from the input, as `in_features` is
    constraint: Constraint = field(default_factory=Constraint)

    @property
    def is_required(self) -> bool:
        """Whether the setting must be written: it has no default and is not inferred."""
        return self.default is REQUIRED and not self.is_inferred

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        hint: Any = to_pydantic_hint(self.hint, self.constraint)
        return TypeAdapter(
            Annotated[hint, BeforeValidator(make_bool_check(self.hint))],
            config=ConfigDict(arbitrary_types_allowed=True),
        )

    def read(self, value: Any) -> Any:
        """Convert a value from YAML to the setting's type.

        Values that depend on the data and are not available yet are returned unchanged.

        Raises:
            ValueError: the value does not fit; the message is a description of the expected values.
        """
        if _has_unknown(value):
            return value
        try:
            return self._adapter.validate_python(value)
        except (ValidationError, OverflowError):  # OverflowError: an integer too large for a float
            raise ValueError(self.wanted) from None

    def accepts(self, value: Any) -> bool:
        """Whether `read` accepts the value."""
        try:
            self.read(value)
        except ValueError:
            return False
        return True

    @property
    def wanted(self) -> str:
        """Description of the expected values, such as 'a whole number >= 1'."""
        return describe_hint(self.hint, self.constraint)


@dataclass(frozen=True)
class _IntendedSettings:
    """A guess at the settings that a wrong single value was meant to set, and what to write instead.

    Both are empty if nothing fits.
    """

    settings: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Schema:
    """A part's class and its settings, in the order of its constructor's arguments."""

    name: str
    kind: str  # layer, loss, optimizer, ...
    build: Callable[..., Any]  # the class; called with the settings
    settings: Mapping[str, Setting]
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that dlspec sets itself, such as `batch_first`
    takes_value: bool = True  # whether the short form with a single value is allowed, `Linear: 10`

    @property
    def value_setting(self) -> str | None:
        """Name of the setting that a single value sets: `out_features` in `Linear: 10`.

        None if the part does not take a single value.
        """
        own = [each for each in self.settings.values() if not each.is_inferred]
        inferred = [each for each in self.settings.values() if each.is_inferred]
        if not self.takes_value or not self.settings:
            return None
        if own and (own[0].is_required or not inferred):
            return own[0].name
        return inferred[0].name if inferred else None

    def read(self, part: Part, problems: Problems) -> dict[str, Any]:
        """Check the settings that were written; report unknown, missing and wrong ones.

        Returns:
            The settings that were written, converted to their types. Wrong values are kept unchanged.
        """
        written = self._collect_part_settings(part, problems)
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
        """Report unknown setting names only; for parts whose values are not available yet."""
        self._report_unknown_and_missing(
            part, [name for name in part.settings if name not in self.settings], [], problems
        )

    def _collect_part_settings(self, part: Part, problems: Problems) -> dict[str, Any]:
        if part.value is NO_VALUE:
            return dict(part.settings)
        name = self.value_setting
        if name is None:
            fix = f"write {self.name}: {{{next(iter(self.settings))}: ...}}" if self.settings else "write only its name"
            if isinstance(part.value, list) and not self.settings:
                fix = f"write {self.name}: {{from: {_format_value(part.value)}}}".replace("'", "")
            problems.add(
                Code.WRONG_TYPE, part.settings_path, f"{self.name} does not accept a single value", fix, at_value=True
            )
            return {}
        return {name: part.value}

    def _read_setting(self, part: Part, name: str, value: Any, problems: Problems) -> Any:
        setting = self.settings[name]
        try:
            return setting.read(value)
        except ValueError:
            found = f"'{name}' must be {setting.wanted}, got {_quote_value(value)}"
            is_unsupported = isinstance(value, str) and value in setting.constraint.unsupported_values
            fix = f"'{value}' is not supported" if is_unsupported else self._guess_settings(part.value).fix
            problems.add(
                Code.NOT_YET if is_unsupported else Code.WRONG_VALUE,
                part.path_of(name),
                found,
                fix,
                at_value=True,
                shown=self._format_name_if_not_in_path(part),
            )
            return value

    def _guess_settings(self, value: Any) -> _IntendedSettings:
        """Guess which settings a single value was meant to set, as in `Conv2d: [32, 3]` or `Conv2d: 32, 3`.

        Try dlspec's order first (without inferred settings), then PyTorch's, in which `Linear: [64, 10]` starts with
        the input size.
        """
        values = value if isinstance(value, list) else [each.strip() for each in str(value).split(",")]
        own = [each.name for each in self.settings.values() if not each.is_inferred]
        names = list(dict.fromkeys([str(self.value_setting), *own]))
        if self._are_values_valid(names, values):
            return _IntendedSettings(
                tuple(names[: len(values)]), f"write {self.name}: {{{_format_pairs(names, values)}}}"
            )
        if not self._are_values_valid(list(self.settings), values):
            return _IntendedSettings()
        by_position = dict(zip(self.settings, values, strict=False))
        inferred = [name for name in by_position if self.settings[name].is_inferred]
        kept = {name: each for name, each in by_position.items() if name not in inferred}
        is_single = list(kept) == [self.value_setting]
        text = str(kept[names[0]]) if is_single else f"{{{_format_pairs(list(kept), list(kept.values()))}}}"
        are = "is" if len(inferred) == 1 else "are"
        return _IntendedSettings(tuple(kept), f"write {self.name}: {text} ({', '.join(inferred)} {are} inferred)")

    def _are_values_valid(self, names: list[str], values: list[Any]) -> bool:
        """Whether there are at least two values and each is valid for the setting at its position."""
        if not 1 < len(values) <= len(names):
            return False
        return all(self.settings[name].accepts(each) for name, each in zip(names, values, strict=False))

    def _format_name_if_not_in_path(self, part: Part) -> str:
        """The part's name to show after the path, or '' if the path already contains it."""
        return "" if part.settings_path and self.name in part.settings_path else self.name

    def _report_unknown_and_missing(
        self, part: Part, unknown: list[str], missing: list[str], problems: Problems
    ) -> None:
        for name in unknown:
            path = (*part.settings_path, name)
            if name in self.fixed:
                found = f"'{name}' is always {str(self.fixed[name]).lower()} here"
                shown = self._format_name_if_not_in_path(part)
                problems.add(Code.FIXED_SETTING, path, found, "remove it", shown=shown, at_key=True)
                continue
            fix = self._suggest_fix(str(name))
            problems.add(
                Code.UNKNOWN_SETTING,
                path,
                f"unknown setting '{name}'",
                fix,
                shown=self._format_name_if_not_in_path(part),
                at_key=True,
            )
            # Do not also report a required setting as missing if it was only misspelled.
            missing = [each for each in missing if each != self._guess_setting_name(str(name))]
        if missing:
            expected = ", ".join(f"{each} ({self.settings[each].wanted})" for each in missing)
            problems.add(
                Code.MISSING_VALUE,
                part.settings_path,
                f"{self.name} requires {expected}",
                self._suggest_complete_entry(part, missing),
            )

    def _suggest_fix(self, name: str) -> str:
        intended = self._guess_setting_name(name)
        if intended and intended == self._find_pytorch_setting_name(name):
            return f"PyTorch calls it '{intended}'"
        if self._is_activation_key(name):
            return "add the activation as a separate entry after the layer: - ReLU"
        return (
            f"did you mean '{intended}'?"
            if intended
            else suggest(name, self.settings) or f"{self.name} has no settings"
        )

    def _guess_setting_name(self, name: str) -> str:
        """The setting or key that an unknown name was probably meant to be, or ''."""
        names = [*self.settings, *(ENTRY_KEYS if self.kind == "layer" else ())]
        if self.kind == "layer" and name not in self.settings and name in _ENTRY_KEY_WORDS:
            return _ENTRY_KEY_WORDS[name]
        return self._find_pytorch_setting_name(name) or (
            "" if self._is_activation_key(name) else find_closest(name, names)
        )

    def _find_pytorch_setting_name(self, name: str) -> str:
        """PyTorch's name for a setting that Keras and others call `name`, or ''."""
        return next((each for each in SETTING_SUGGESTIONS.get(name, ()) if each in self.settings), "")

    def _is_activation_key(self, name: str) -> bool:
        return self.kind == "layer" and name in ("activation", "act", "activation_fn", "nonlinearity")

    def _suggest_complete_entry(self, part: Part, missing: list[str]) -> str:
        if part.settings_path == part.path[:1]:  # written flat, in a section of its own: `type: Adam`
            return f"add '{missing[0]}: ...', or {part.settings_path[0]}.{missing[0]}=... on the command line"
        written = part.settings if part.value is NO_VALUE else {str(self.value_setting): part.value}
        known = [(self.settings[name], value) for name, value in written.items() if name in self.settings]
        pairs = [f"{each.name}: {_format_value(value) if each.accepts(value) else '...'}" for each, value in known]
        return f"write {self.name}: {{{', '.join([*pairs, *(f'{each}: ...' for each in missing)])}}}"


def _has_unknown(value: Any) -> bool:
    """Whether the value, or an item of it, depends on data that are not available yet."""
    return isinstance(value, UnknownValue) or any(_has_unknown(each) for each in list_children(value))


def _quote_value(value: Any) -> str:
    return f"'{_format_value(value)}'" if isinstance(value, str) else _format_value(value)


def _format_pairs(names: list[str], values: list[Any]) -> str:
    return ", ".join(f"{name}: {_format_value(each)}" for name, each in zip(names, values, strict=False))


def _format_value(value: Any) -> str:
    """Format a value as in YAML; cut it at 60 characters."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."
