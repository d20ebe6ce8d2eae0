"""Read a kind as written in a spec: `category`, or `{number: {scale: quantile}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dlspec.data.prepare.kinds.kind import NOT_YET, ColumnKind
from dlspec.errors import Code, DataError, format_value, suggest
from dlspec.parts.registry import Registry
from dlspec.parts.section_reader import describe_expected


def read_kind(written: object, registry: Registry[type[ColumnKind]], key: str) -> ColumnKind:
    """Read a kind with its settings.

    Args:
        written: the name of a kind, or a mapping from its name to its settings
        registry: `COLUMN_KINDS` or `TARGET_KINDS`
        key: the setting of `data` where it is written, such as `columns.age`

    Returns:
        The kind.

    Raises:
        DataError: if the kind is unknown, or a setting is wrong.
    """
    name, settings = _split_kind(written, key)
    if name in NOT_YET and name not in registry:
        raise DataError(key, f"the kind '{name}' is not supported yet: {NOT_YET[name]}", Code.NOT_YET)
    if name not in registry:
        raise DataError(key, f"unknown kind '{name}'; {suggest(name, registry)}", Code.UNKNOWN_CHOICE)
    try:
        return registry[name].model_validate(settings)
    except ValidationError as error:
        raise _make_setting_error(registry[name], settings, f"{key}.{name}", error) from None
    except DataError as error:
        raise DataError(f"{key}.{name}.{error.key}", str(error), error.finding.code) from None


def _split_kind(written: object, key: str) -> tuple[str, Mapping[str, Any]]:
    if isinstance(written, str):
        return written, {}
    if not isinstance(written, Mapping) or len(written) != 1:
        fix = "write its name, such as category, or {number: {scale: quantile}}"
        raise DataError(key, f"expected the kind of a column, got {format_value(written)}; {fix}", Code.WRONG_TYPE)
    ((name, settings),) = written.items()
    if settings is not None and not isinstance(settings, Mapping):
        found = f"the settings of '{name}' must be a mapping, got {format_value(settings)}"
        raise DataError(f"{key}.{name}", f"{found}; write {name}: {{SETTING: VALUE}}", Code.WRONG_TYPE)
    return str(name), settings or {}


def _make_setting_error(
    kind: type[ColumnKind], settings: Mapping[str, Any], key: str, error: ValidationError
) -> DataError:
    """Make the error for the first wrong setting."""
    first = error.errors(include_url=False)[0]
    where = [str(each) for each in first["loc"] if isinstance(each, int) or str(each) in kind.model_fields]
    path = ".".join([key, *where])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        found = f"'{kind.name}' has no setting '{name}'; {suggest(name, kind.model_fields)}"
        return DataError(path, found, Code.UNKNOWN_KEY)
    if first["type"] == "value_error":
        return DataError(path, str(first["ctx"]["error"]), Code.WRONG_VALUE)
    setting = where[0] if where else ""
    expected = describe_expected(kind, [setting]) or first["msg"].removeprefix("Input should be ")
    found = f"'{setting}' of '{kind.name}' must be {expected}, got {format_value(settings.get(setting))}"
    return DataError(path, found, Code.WRONG_VALUE)
