"""Type hints as checks of values from YAML: the hint for pydantic, and its description for messages."""

from __future__ import annotations

import collections.abc
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, Field, Strict

from dlspec.errors import join_with_or
from dlspec.language.parse.part import NO_VALUE


@dataclass(frozen=True)
class Constraint:
    """What the type hint of a setting does not express."""

    # Bounds of its numbers, >=, > and <=.
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    hint: Any = None  # replaces the signature's hint
    default: Any = NO_VALUE  # replaces the signature's default
    is_finite: bool = False  # whether its numbers must not be infinite
    unsupported_values: tuple[str, ...] = ()  # valid in PyTorch, but not supported by dlspec


def to_pydantic_hint(hint: Any, constraint: Constraint) -> Any:
    """Convert a hint for pydantic: strict booleans, lists instead of tensors, no functions, and with bounds."""
    if hint is bool:
        return Annotated[bool, Strict()]
    if hint in (int, float):
        allows_infinity = hint is float and not constraint.is_finite
        bounds = Field(
            ge=constraint.at_least, gt=constraint.above, le=constraint.at_most, allow_inf_nan=allows_infinity
        )
        return Annotated[hint, bounds, AfterValidator(_refuse_nan)]
    if _is_torch_type(hint, "Tensor"):
        return list[float]
    if _is_torch_type(hint, "Size"):
        return tuple[to_pydantic_hint(int, constraint), ...]  # type: ignore[misc]  # a hint made at run time
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return Union[tuple(to_pydantic_hint(each, constraint) for each in _yaml_union_members(arguments))]  # noqa: UP007
    if origin in (tuple, list, collections.abc.Sequence):
        inner = tuple(each if each is Ellipsis else to_pydantic_hint(each, constraint) for each in arguments)
        return origin[inner]
    return hint


_UNIONS = (Union, types.UnionType)


def _is_torch_type(hint: Any, name: str) -> bool:
    """Whether a hint is a type of torch. That is not imported here, as exported files are used without it."""
    return getattr(hint, "__module__", "") == "torch" and getattr(hint, "__name__", "") == name


def _yaml_union_members(hints: tuple[Any, ...]) -> list[Any]:
    """Members of a union that YAML can express: no functions, and no tensor if a number is allowed."""
    return [
        each
        for each in hints
        if not _is_callable_hint(each) and not (_is_torch_type(each, "Tensor") and float in hints)
    ]


def _is_callable_hint(hint: Any) -> bool:
    return hint is collections.abc.Callable or get_origin(hint) is collections.abc.Callable


def _refuse_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("not a number")
    return value


def make_bool_check(hint: Any) -> Callable[[Any], Any]:
    """Make a validator that rejects booleans where the hint does not allow them.

    pydantic would convert `kernel_size: true` to 1. Where booleans are allowed, the strings 'true' and 'false' are
    converted to booleans.
    """
    allows_bool = bool in (hint, *get_args(hint)) or hint is Any

    def check(value: Any) -> Any:
        if allows_bool and value in ("true", "false"):
            return value == "true"
        if not allows_bool and any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value])):
            raise ValueError("a boolean")
        return value

    return check


# ---- descriptions of expected values -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TypeDescription:
    """Name of a type in messages, in three forms."""

    one: str  # with its article: a whole number
    bare: str = ""  # after a 1: (a list of 1) whole number
    many: str = ""  # after other counts: (a list of 2) whole numbers

    def get_grammatical_form(self, form: _Form) -> str:
        return {"one": self.one, "bare": self.bare or self.one, "many": self.many or self.bare or self.one}[form]


_Form = Literal["one", "bare", "many"]
_NULL = _TypeDescription("null", many="nulls")
_NOUNS: Mapping[Any, _TypeDescription] = {
    int: _TypeDescription("a whole number", "whole number", "whole numbers"),
    float: _TypeDescription("a number", "number", "numbers"),
    bool: _TypeDescription("true or false"),
    str: _TypeDescription("a string", "string", "strings"),
    type(None): _NULL,
    Any: _TypeDescription("a value"),
}
_TORCH_NOUNS = {"Tensor": _TypeDescription("a list of numbers"), "Size": _TypeDescription("a list of whole numbers")}


def describe_hint(hint: Any, constraint: Constraint) -> str:
    """Describe the values that a hint allows: `a whole number >= 1, a list of 2 whole numbers >= 1 or null`."""
    return _join_with_or(_describe_alternatives(hint, constraint, "one"))


def _describe_alternatives(hint: Any, constraint: Constraint, form: _Form) -> list[str]:
    """List the descriptions of a union's members, null last; a single description for other hints."""
    if hint in _NOUNS:
        return [
            _NOUNS[hint].get_grammatical_form(form) + (_describe_bounds(constraint) if hint in (int, float) else "")
        ]
    for name, noun in _TORCH_NOUNS.items():
        if _is_torch_type(hint, name):
            return [noun.get_grammatical_form(form)]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(each) for each in arguments]
    if origin in _UNIONS:
        words = [
            word for each in _yaml_union_members(arguments) for word in _describe_alternatives(each, constraint, form)
        ]
        return sorted(dict.fromkeys(words), key=lambda word: word == _NULL.get_grammatical_form(form))
    if origin is dict:
        return ["a mapping"]
    if origin in (tuple, list, collections.abc.Sequence):
        return [_describe_list(origin, arguments, constraint)]
    return [getattr(hint, "__name__", str(hint))]


def _describe_list(list_or_tuple_type: Any, item_hints: tuple[Any, ...], constraint: Constraint) -> str:
    """Describe a list or tuple: `a list of 2 whole numbers >= 1`, `a list of numbers`."""
    count = len(item_hints) if list_or_tuple_type is tuple and Ellipsis not in item_hints else None
    inner: Any = Union[tuple(each for each in item_hints if each is not Ellipsis)]  # noqa: UP007
    items = _join_with_or(_describe_alternatives(inner, constraint, "bare" if count == 1 else "many"))
    return f"a list of {f'{count} ' if count else ''}{items}"


def allows_boolean(hint: Any) -> bool:
    """Whether a hint allows true and false."""
    if get_origin(hint) in _UNIONS:
        return any(allows_boolean(each) for each in get_args(hint))
    return hint is bool or (get_origin(hint) is Literal and bool in map(type, get_args(hint)))


def _join_with_or(words: Sequence[str]) -> str:
    words = [part for word in words for part in (("true", "false") if word == "true or false" else (word,))]
    return join_with_or(words)


def _describe_bounds(constraint: Constraint) -> str:
    low = f" >= {constraint.at_least:g}" if constraint.at_least is not None else ""
    low = f" > {constraint.above:g}" if constraint.above is not None else low
    high = f" <= {constraint.at_most:g}" if constraint.at_most is not None else ""
    return low + (" and" if low and high else "") + high
