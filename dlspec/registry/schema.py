"""A part's schema: its settings, derived from the class's own signature and type hints.

One `Setting` checks one value with pydantic and words what it wants; what hints can't say comes from
`dlspec.registry.refinements`.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from dlspec.errors import suggest
from dlspec.spec.expressions import Unknown
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.parts import NOTHING, Part

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Refinement:
    """What a hint does not say of a setting: bounds, literals, another type, who fills it in."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    hint: Any = None
    default: Any = NOTHING


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
        hint: Any = _checked(self.hint, self.refinement)
        return TypeAdapter(
            Annotated[hint, BeforeValidator(_no_stray_bool(self.hint))], config=ConfigDict(arbitrary_types_allowed=True)
        )

    def read(self, value: Any) -> Any:
        """The value in its own type; raises `ValueError` with what is wanted."""
        if isinstance(value, Unknown):
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            raise ValueError(self.wanted) from None

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        return _describe(self.hint, self.refinement)


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

    def read(self, part: Part, mistakes: Mistakes) -> dict[str, Any]:
        """The settings that were written, each checked; unknown and missing ones are mistakes."""
        written = self._written(part, mistakes)
        settings: dict[str, Any] = {}
        for name, value in written.items():
            if name in self.settings:
                settings[name] = self._read_one(part, name, value, mistakes)
        unknown = [name for name in written if name not in self.settings]
        missing = [each.name for each in self.settings.values() if each.is_required and each.name not in written]
        self._tell_unknown(part, unknown, missing, mistakes)
        return settings

    def _written(self, part: Part, mistakes: Mistakes) -> dict[str, Any]:
        if part.value is NOTHING:
            return dict(part.settings)
        name = self.value_setting
        if name is None:
            fix = (
                f"write {self.name}: {{{next(iter(self.settings))}: ...}}" if self.settings else "write its name alone"
            )
            mistakes.add(part.settings_path, f"{self.name} takes no single value", fix, at_value=True)
            return {}
        return {name: part.value}

    def _read_one(self, part: Part, name: str, value: Any, mistakes: Mistakes) -> Any:
        setting = self.settings[name]
        try:
            return setting.read(value)
        except ValueError as wanted:
            found = f"{name} is {_shown(value)}, wanted {wanted}"
            fix = self._as_mapping(value) if part.value is not NOTHING else ""
            mistakes.add(part.where(name), found, fix, at_value=True, shown=self._shown_in(part))
            return value

    def _as_mapping(self, value: Any) -> str:
        """`Conv2d: [32, 3]` and `Conv2d: 32, 3` were meant as several settings: the mapping to write."""
        values = value if isinstance(value, list) else str(value).split(",") if "," in str(value) else []
        names = [each.name for each in self.settings.values() if not each.is_inferred][: len(values)]
        pairs = ", ".join(f"{name}: {str(each).strip()}" for name, each in zip(names, values, strict=False))
        return f"write {self.name}: {{{pairs}}}" if len(values) > 1 else ""

    def _shown_in(self, part: Part) -> str:
        """The part's name, where the path does not end with it."""
        return "" if part.settings_path and self.name in part.settings_path else self.name

    def _tell_unknown(self, part: Part, unknown: list[str], missing: list[str], mistakes: Mistakes) -> None:
        for name in unknown:
            path = (*part.settings_path, name)
            if name in self.fixed:
                found = f"'{name}' is always {str(self.fixed[name]).lower()} here"
                mistakes.add(path, found, "remove it", shown=self._shown_in(part))
                continue
            fix = suggest(name, self.settings) or f"{self.name} has no settings"
            mistakes.add(path, f"no setting '{name}'", fix, shown=self._shown_in(part))
            # A required setting that was only misspelled is told once.
            missing = [each for each in missing if f"'{each}'" not in fix]
        if missing:
            wanted = ", ".join(f"{each} ({self.settings[each].wanted})" for each in missing)
            mistakes.add(part.settings_path, f"{self.name} wants {wanted}", self._how_to_write(part, missing[0]))

    def _how_to_write(self, part: Part, setting: str) -> str:
        if part.settings_path == part.path[:1]:  # flat, in a config group
            return f"add '{setting}: ...' ({part.settings_path[0]}.{setting}=...)"
        return f"write {self.name}: {{{setting}: ...}}"


def derive(
    cls: Callable[..., Any],
    kind: str,
    *,
    name: str = "",
    dropped: frozenset[str] = frozenset(),
    inferred: frozenset[str] = frozenset(),
    fixed: Mapping[str, Any] | None = None,
    refine: Callable[[str, str], Refinement],
    takes_value: bool = True,
    signature_of: Callable[..., Any] | None = None,
) -> Schema:
    """The schema of a class, from the signature of its constructor, or of `signature_of` where that hides it."""
    init = signature_of or inspect.getattr_static(cls, "__init__")
    hints = _hints(init)
    name = name or cls.__name__
    settings: dict[str, Setting] = {}
    for parameter in inspect.signature(init).parameters.values():
        if not _is_setting(parameter, dropped | (fixed or {}).keys()):
            continue
        refinement = refine(name, parameter.name)
        hint = refinement.hint or hints.get(parameter.name, _hint_of(parameter.default))
        default = parameter.default if refinement.default is NOTHING else refinement.default
        settings[parameter.name] = Setting(parameter.name, hint, default, parameter.name in inferred, refinement)
    return Schema(name, kind, cls, settings, fixed or {}, takes_value)


def _hints(init: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(init)
    except NameError:  # a name that PyTorch imports for type checkers alone
        return {}


_NO_SETTINGS = frozenset({"self", "cls", "device", "dtype", "size_average", "reduce", "process_group"})


def _is_setting(parameter: inspect.Parameter, dropped: frozenset[str] | set[str]) -> bool:
    is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return is_named and parameter.name not in _NO_SETTINGS | dropped and not parameter.name.startswith("_")


def _hint_of(default: Any) -> Any:
    return type(default) if isinstance(default, bool | int | float | str) else Any


# ---- hints that pydantic checks ------------------------------------------------------------------------------------


def _checked(hint: Any, refinement: Refinement) -> Any:
    """The hint with strict booleans, lists in place of tensors, no functions, and the refinement's bounds."""
    if hint is bool:
        return Annotated[bool, Strict()]
    if hint in (int, float):
        bounds = Field(ge=refinement.at_least, gt=refinement.above, le=refinement.at_most, allow_inf_nan=hint is float)
        return Annotated[hint, bounds]
    if hint is torch.Tensor:
        return list[float]
    if hint is torch.Size:
        return tuple[_checked(int, refinement), ...]  # type: ignore[misc]  # a hint made at run time
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return Union[tuple(_checked(each, refinement) for each in _alternatives(arguments))]  # noqa: UP007
    if origin in (tuple, list, collections.abc.Sequence):
        inner = tuple(each if each is Ellipsis else _checked(each, refinement) for each in arguments)
        return origin[inner]
    return hint


_UNIONS = (Union, types.UnionType)


def _alternatives(hints: tuple[Any, ...]) -> list[Any]:
    """A union's members that YAML can hold: no functions, and no tensor where a number does."""
    return [each for each in hints if not _is_function(each) and not (each is torch.Tensor and float in hints)]


def _is_function(hint: Any) -> bool:
    return hint is collections.abc.Callable or get_origin(hint) is collections.abc.Callable


def _no_stray_bool(hint: Any) -> Callable[[Any], Any]:
    """`kernel_size: true` is no 1, and the text 'true' is a boolean where only one is wanted."""
    allows_bool = bool in (hint, *get_args(hint)) or hint is Any

    def check(value: Any) -> Any:
        if allows_bool and value in ("true", "false"):
            return value == "true"
        if not allows_bool and any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value])):
            raise ValueError("a boolean")
        return value

    return check


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Any: "a value",
    torch.Tensor: "a list of numbers",
    torch.Size: "a list of whole numbers",
}


def _describe(hint: Any, refinement: Refinement) -> str:
    if hint in (int, float):
        return _WORDS[hint] + _bounds(refinement)
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(each) for each in arguments)
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(_describe(each, refinement) for each in _alternatives(arguments)))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}"
    if origin in (tuple, list, collections.abc.Sequence):
        return "a list"
    return getattr(hint, "__name__", str(hint))


def _bounds(refinement: Refinement) -> str:
    low = f" >= {refinement.at_least:g}" if refinement.at_least is not None else ""
    low = f" > {refinement.above:g}" if refinement.above is not None else low
    high = f" <= {refinement.at_most:g}" if refinement.at_most is not None else ""
    return low + (" and" if low and high else "") + high


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if isinstance(value, str) else text
