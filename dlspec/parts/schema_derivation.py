"""Derive a part's schema from the signature and type hints of its class."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.language.parse.part import NO_VALUE
from dlspec.parts.schema import Schema, Setting
from dlspec.parts.type_hints import Constraint


@dataclass(frozen=True)
class SchemaOptions:
    """Options for deriving settings from a signature."""

    # Returns what type hints can't express, given the names of the part and the setting.
    find_constraint: Callable[[str, str], Constraint]
    ignored: frozenset[str] = frozenset()  # arguments that do not become settings
    # Arguments of PyTorch's classes that do not become settings; a user's own class may have a setting of this name.
    ignored_of_torch: frozenset[str] = frozenset()
    inferred: frozenset[str] = frozenset()  # arguments that may be left out and are then inferred from the input
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that always have these values
    takes_value: bool = True  # false if it would be ambiguous which setting a single value sets


def derive_schema(
    cls: Callable[..., Any], kind: str, options: SchemaOptions, constructor: Callable[..., Any] | None = None
) -> Schema:
    """Derive the schema of a class or function.

    Args:
        cls: The class, or a function such as those of `torch.nn.init`.
        kind: The kind of part: layer, loss, optimizer, ...
        options: Which arguments become settings, and their constraints.
        constructor: The callable whose signature is read, if it is not `cls.__init__`.

    Returns:
        The schema, with the settings in the order of the arguments.
    """
    source = constructor or inspect.getattr_static(cls, "__init__")
    hints = _read_type_hints(source)
    name = cls.__name__
    ignored, find_constraint = options.ignored | options.fixed.keys(), options.find_constraint
    if is_written_by_user(source):
        find_constraint = _find_no_constraint
    else:
        ignored |= _IGNORED_ARGUMENTS_OF_TORCH | options.ignored_of_torch
    settings: dict[str, Setting] = {}
    for parameter in inspect.signature(source).parameters.values():
        if not _is_setting(parameter, ignored):
            continue
        constraint = find_constraint(name, parameter.name)
        hint = constraint.hint or hints.get(parameter.name, _hint_from_default(parameter.default))
        default = parameter.default if constraint.default is NO_VALUE else constraint.default
        hint = hint | None if default is None and hint is not Any else hint  # some of PyTorch's hints omit the None
        settings[parameter.name] = Setting(
            parameter.name, hint, default, parameter.name in options.inferred, constraint
        )
    return Schema(name, kind, cls, settings, options.fixed, options.takes_value)


def _read_type_hints(init: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(init)
    except NameError:  # a name that PyTorch imports only for type checkers
        return {}


_LIBRARIES = ("torch", "torchmetrics", "kornia", "dlspec", "builtins")  # whose parts have constraints here


def is_written_by_user(source: Callable[..., Any]) -> bool:
    """Whether a constructor is a user's own, so that PyTorch's meaning of an argument's name does not apply to it."""
    return getattr(source, "__module__", "").partition(".")[0] not in _LIBRARIES


def _find_no_constraint(part: str, setting: str) -> Constraint:
    return Constraint()


_IGNORED_ARGUMENTS = frozenset({"self", "cls", "device", "dtype"})
_IGNORED_ARGUMENTS_OF_TORCH = frozenset({"size_average", "reduce", "process_group"})


def _is_setting(parameter: inspect.Parameter, ignored: frozenset[str] | set[str]) -> bool:
    is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return is_named and parameter.name not in _IGNORED_ARGUMENTS | ignored and not parameter.name.startswith("_")


def _hint_from_default(default: Any) -> Any:
    return type(default) if isinstance(default, bool | int | float | str) else Any
