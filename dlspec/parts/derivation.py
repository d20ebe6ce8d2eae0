"""Derives a part's schema from its class's own signature and type hints."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlspec.language.parse.part import NOTHING
from dlspec.parts.hints import Refinement
from dlspec.parts.schema import Schema, Setting


@dataclass(frozen=True)
class Derivation:
    """How settings are derived of a signature.

    `refine` gives what hints can't say, by the names of the part and the setting. Arguments that are `dropped` are no
    settings, nor are the `fixed` ones, which have these values; those that are `inferred` may be left open.
    `takes_value` is false where one value behind the name could mean several settings.
    """

    refine: Callable[[str, str], Refinement]
    dropped: frozenset[str] = frozenset()
    inferred: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    takes_value: bool = True


def derive(
    cls: Callable[..., Any], kind: str, how: Derivation, signature_of: Callable[..., Any] | None = None
) -> Schema:
    """The schema of a class, from the signature of its constructor, or of `signature_of` where that hides it."""
    init = signature_of or inspect.getattr_static(cls, "__init__")
    hints = _hints(init)
    name = cls.__name__
    settings: dict[str, Setting] = {}
    for parameter in inspect.signature(init).parameters.values():
        if not _is_setting(parameter, how.dropped | how.fixed.keys()):
            continue
        refinement = how.refine(name, parameter.name)
        hint = refinement.hint or hints.get(parameter.name, _hint_of(parameter.default))
        default = parameter.default if refinement.default is NOTHING else refinement.default
        hint = hint | None if default is None and hint is not Any else hint  # some of PyTorch's hints forget it
        settings[parameter.name] = Setting(parameter.name, hint, default, parameter.name in how.inferred, refinement)
    return Schema(name, kind, cls, settings, how.fixed, how.takes_value)


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
