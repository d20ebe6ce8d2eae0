"""Check a section with fixed keys (`trainer`, `data`) with pydantic and report its errors as dlspec's problems."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dlspec.errors import Code, InvalidSetting, KeyPath, format_value, suggest
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.problems import Problems, format_path
from dlspec.parts.schema import Constraint, Setting
from dlspec.parts.type_hints import allows_boolean

M = TypeVar("M", bound=BaseModel)
InnerPath = Sequence[Hashable]
"""A path within a section: keys of mappings and indices of lists."""


def read_section(model: type[M], settings: Any, path: KeyPath, problems: Problems) -> M | None:
    """Check a section against its pydantic model.

    Args:
        model: The section's pydantic model.
        settings: The section as written.
        path: The section's path in the spec.
        problems: Where everything wrong is reported.

    Returns:
        The section, or None if anything in it is wrong. Settings that wait for the data are left at their defaults.
    """
    if isinstance(settings, InvalidValue):
        return None
    if not isinstance(settings, dict):
        problems.add(
            Code.WRONG_TYPE,
            path,
            f"expected a mapping, got {format_value(settings)}",
            "write its keys below it",
            at_value=True,
        )
        return None
    before = len(problems)
    for where, value in iterate_leaves(settings):
        _check_boolean(where, value, model, path, problems)
    try:
        read = model.model_validate(_remove_unknown_settings(settings))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            _report_error(each, model, settings, path, problems)
        return None
    return read if len(problems) == before else None


def iterate_leaves(settings: Mapping[Any, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value of nested mappings that is not a mapping itself, with its path."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from iterate_leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _remove_unknown_settings(settings: Any) -> Any:
    """Remove the settings whose values depend on data that are not opened yet."""
    if not isinstance(settings, dict):
        return settings
    return {key: _remove_unknown_settings(each) for key, each in settings.items() if not isinstance(each, UnknownValue)}


def _check_boolean(
    setting_path: KeyPath, value: Any, model: type[BaseModel], path: KeyPath, problems: Problems
) -> None:
    """Report a boolean where a number is expected: pydantic would convert `epochs: true` to 1."""
    expected = describe_expected(model, setting_path) if isinstance(value, bool) else ""
    if expected and not allows_boolean(_find_hint(model, setting_path)[0]):
        problems.add(
            Code.WRONG_VALUE,
            (*path, *setting_path),
            f"'{format_path(setting_path)}' must be {expected}, got {format_value(value)}",
            at_value=True,
        )


def _report_error(
    error: ErrorDetails, model: type[BaseModel], settings: Mapping[Any, Any], path: KeyPath, problems: Problems
) -> None:
    where = error["loc"]
    full_path = (*path, *where)
    if error["type"] == "extra_forbidden":
        parent_model = _find_union_member(_find_hint(model, where[:-1])[0], BaseModel)
        problems.add(Code.UNKNOWN_KEY, full_path, "unknown key", suggest(str(where[-1]), parent_model.model_fields))
    elif error["type"] == "missing":
        parent_model = _find_union_member(_find_hint(model, where[:-1])[0], BaseModel)
        name = str(where[-1])
        fix = f"add '{name}: ...', or {format_path(full_path)}=... on the command line"
        problems.add(
            Code.MISSING_VALUE,
            full_path[:-1],
            f"'{name}' is missing: {parent_model.model_fields[name].description}",
            fix,
        )
    elif error["type"] == "value_error":
        reason = error["ctx"]["error"]
        code, inner = (reason.code, reason.path) if isinstance(reason, InvalidSetting) else (Code.WRONG_VALUE, ())
        problems.add(code, (*full_path, *inner), str(reason), at_value=True)
    else:
        while (
            _find_hint(model, where)[0] is None
        ):  # pydantic reports each member of a union, with its own name at the end of the path
            where = where[:-1]
        value = error["input"] if where == error["loc"] else reduce(getitem, where, settings)
        expected = describe_expected(model, where) or _pydantic_expectation(error)
        problems.add(
            Code.WRONG_VALUE,
            (*path, *where),
            f"'{format_path(where)}' must be {expected}, got {format_value(value)}",
            at_value=True,
        )


def _pydantic_expectation(error: ErrorDetails) -> str:
    """Extract from pydantic's message what it expects, for type hints that dlspec can't describe."""
    return error["msg"].removeprefix("Input should be ")


def describe_expected(model: type[BaseModel], field_path: InnerPath) -> str:
    """Describe what a section's field, or an item within it, must be; '' if the model has no such field."""
    hint, bounds = _find_hint(model, field_path)
    if hint is None or not field_path:
        return ""
    if _find_union_member(hint, BaseModel) or _find_union_member(hint, dict):
        return "a mapping"
    refinement = Constraint(at_least=bounds.get("ge"), above=bounds.get("gt"), at_most=bounds.get("le"))
    below = f" and < {bounds['lt']:g}" if "lt" in bounds else ""
    return Setting("", hint, constraint=refinement).wanted + below


def _find_hint(model: type[BaseModel], field_path: InnerPath) -> tuple[Any, dict[str, float]]:
    """Find the plain type hint and the bounds of a field, a mapping's value or a list's item; None if there is none."""
    hint: Any = model
    bounds: dict[str, float] = {}
    for key in field_path:
        inner, items = (
            _find_union_member(hint, BaseModel),
            _find_union_member(hint, list if isinstance(key, int) else dict),
        )
        if inner is not None and key in inner.model_fields:
            field = inner.model_fields[str(key)]
            hint, bounds = _unwrap_annotated(field.annotation, field.metadata)
        elif inner is None and items is not None:
            hint, bounds = _unwrap_annotated(get_args(items)[-1], [])
        else:
            return None, {}
    return hint, bounds


def _find_union_member(hint: Any, kind: type) -> Any:
    """Find the member of a union that is of this kind: `list[int]` in `list[int] | None`. None if there is none."""
    for each in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        found = get_origin(each) or each
        if isinstance(found, type) and issubclass(found, kind):
            return each
    return None


def _unwrap_annotated(hint: Any, metadata: Sequence[Any]) -> tuple[Any, dict[str, float]]:
    """Split `Annotated` hints, also within a union, into the plain hint and its bounds."""
    bounded = [each for each in get_args(hint) if get_origin(each) is Annotated] if get_origin(hint) is Union else []
    for each in bounded:
        plain, bounds = _unwrap_annotated(each, metadata)
        return Union[tuple(plain if one is each else one for one in get_args(hint))], bounds  # noqa: UP007
    if get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        metadata = [*metadata, *(each for field in more for each in getattr(field, "metadata", [field]))]
    return hint, {
        name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)
    }
