"""What a type hint means for a value from YAML: the check that pydantic makes of it, and the same in words."""

from __future__ import annotations

import collections.abc
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from pydantic import AfterValidator, Field, Strict

from dlspec.language.parse.part import NOTHING


@dataclass(frozen=True)
class Refinement:
    """What a hint does not say of a setting: bounds, literals, another type, who fills it in."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    hint: Any = None
    default: Any = NOTHING
    not_yet: tuple[str, ...] = ()


def checked(hint: Any, refinement: Refinement) -> Any:
    """The hint with strict booleans, lists in place of tensors, no functions, and the refinement's bounds."""
    if hint is bool:
        return Annotated[bool, Strict()]
    if hint in (int, float):
        bounds = Field(ge=refinement.at_least, gt=refinement.above, le=refinement.at_most, allow_inf_nan=hint is float)
        return Annotated[hint, bounds, AfterValidator(_no_nan)]
    if hint is torch.Tensor:
        return list[float]
    if hint is torch.Size:
        return tuple[checked(int, refinement), ...]  # type: ignore[misc]  # a hint made at run time
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return Union[tuple(checked(each, refinement) for each in _alternatives(arguments))]  # noqa: UP007
    if origin in (tuple, list, collections.abc.Sequence):
        inner = tuple(each if each is Ellipsis else checked(each, refinement) for each in arguments)
        return origin[inner]
    return hint


_UNIONS = (Union, types.UnionType)


def _alternatives(hints: tuple[Any, ...]) -> list[Any]:
    """A union's members that YAML can hold: no functions, and no tensor where a number does."""
    return [each for each in hints if not _is_function(each) and not (each is torch.Tensor and float in hints)]


def _is_function(hint: Any) -> bool:
    return hint is collections.abc.Callable or get_origin(hint) is collections.abc.Callable


def _no_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("no number")
    return value


def no_stray_bool(hint: Any) -> Callable[[Any], Any]:
    """`kernel_size: true` is no 1, and the text 'true' is a boolean where only one is wanted."""
    allows_bool = bool in (hint, *get_args(hint)) or hint is Any

    def check(value: Any) -> Any:
        if allows_bool and value in ("true", "false"):
            return value == "true"
        if not allows_bool and any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value])):
            raise ValueError("a boolean")
        return value

    return check


# ---- what is wanted, in words --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Noun:
    """What a value is called: `one` with its article, `bare` behind a 1, `many` behind another count."""

    one: str
    bare: str = ""
    many: str = ""

    def in_form(self, form: _Form) -> str:
        return {"one": self.one, "bare": self.bare or self.one, "many": self.many or self.bare or self.one}[form]


_Form = Literal["one", "bare", "many"]
_NULL = _Noun("null", many="nulls")
_NOUNS: Mapping[Any, _Noun] = {
    int: _Noun("a whole number", "whole number", "whole numbers"),
    float: _Noun("a number", "number", "numbers"),
    bool: _Noun("true or false"),
    str: _Noun("text"),
    type(None): _NULL,
    Any: _Noun("a value"),
    torch.Tensor: _Noun("a list of numbers"),
    torch.Size: _Noun("a list of whole numbers"),
}


def in_words(hint: Any, refinement: Refinement) -> str:
    """`a whole number >= 1, a list of 2 whole numbers >= 1 or null`."""
    return _joined(_alternatives_in_words(hint, refinement, "one"))


def _alternatives_in_words(hint: Any, refinement: Refinement, form: _Form) -> list[str]:
    """Each thing that a value may be, null last."""
    if hint in _NOUNS:
        return [_NOUNS[hint].in_form(form) + (_bounds(refinement) if hint in (int, float) else "")]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(each) for each in arguments]
    if origin in _UNIONS:
        words = [word for each in _alternatives(arguments) for word in _alternatives_in_words(each, refinement, form)]
        return sorted(dict.fromkeys(words), key=lambda word: word == _NULL.in_form(form))
    if origin is dict:
        return ["a mapping"]
    if origin in (tuple, list, collections.abc.Sequence):
        return [_list_in_words(origin, arguments, refinement)]
    return [getattr(hint, "__name__", str(hint))]


def _list_in_words(origin: Any, arguments: tuple[Any, ...], refinement: Refinement) -> str:
    """`a list of 2 whole numbers >= 1`, `a list of numbers`."""
    count = len(arguments) if origin is tuple and Ellipsis not in arguments else None
    inner: Any = Union[tuple(each for each in arguments if each is not Ellipsis)]  # noqa: UP007
    items = _joined(_alternatives_in_words(inner, refinement, "bare" if count == 1 else "many"))
    return f"a list of {f'{count} ' if count else ''}{items}"


def takes_boolean(hint: Any) -> bool:
    """Whether true and false are among the values that a hint allows."""
    if get_origin(hint) in _UNIONS:
        return any(takes_boolean(each) for each in get_args(hint))
    return hint is bool or (get_origin(hint) is Literal and bool in map(type, get_args(hint)))


def _joined(words: list[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _bounds(refinement: Refinement) -> str:
    low = f" >= {refinement.at_least:g}" if refinement.at_least is not None else ""
    low = f" > {refinement.above:g}" if refinement.above is not None else low
    high = f" <= {refinement.at_most:g}" if refinement.at_most is not None else ""
    return low + (" and" if low and high else "") + high
