"""Check a column's kind as a spec writes it, with fixes for frequent errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlspec.data.prepare.kinds.kind import COLUMN_KINDS, TARGET_KINDS, ColumnKind
from dlspec.data.prepare.kinds.kind_reading import read_kind
from dlspec.errors import Code, DataError
from dlspec.parts.registry import Registry

KindRegistry = Registry[type[ColumnKind]]


def make_kind(key: str, name: str, written: object, registry: KindRegistry) -> ColumnKind:
    """Make the kind of a column as written.

    Args:
        key: the setting of `data` that contains the kind: `columns` or `target`
        name: the column
        written: the kind's name, or a mapping from its name to its settings
        registry: the kinds of inputs or of targets

    Raises:
        DataError: if the kind is unknown, or a setting is wrong.
    """
    kind, settings = _split_kind(written)
    if kind not in registry:
        _check_other_registry(key, name, kind, registry)
        _check_dotted_name(key, name, kind, settings, registry)
    return read_kind(written, registry, f"{key}.{name}")


def write_kind(kind: ColumnKind) -> str | dict[str, Any]:
    """Write a kind as a spec does: its name, with the settings that are not the defaults."""
    settings = kind.model_dump(mode="json", exclude_defaults=True)
    return {kind.name: settings} if settings else kind.name


def _split_kind(written: object) -> tuple[str, object]:
    if isinstance(written, Mapping) and len(written) == 1:
        ((kind, settings),) = written.items()
        return str(kind), settings
    return str(written), {}


def _check_other_registry(key: str, name: str, kind: str, registry: KindRegistry) -> None:
    """Refuse a kind of targets for an input, and the other way round."""
    other, wanted = (TARGET_KINDS, "targets") if registry is COLUMN_KINDS else (COLUMN_KINDS, "inputs")
    if kind in other:
        fix = f"choose {', '.join(sorted(registry))}"
        raise DataError(f"{key}.{name}", f"'{kind}' is a kind of {wanted}; {fix}", Code.WRONG_VALUE)


def _check_dotted_name(key: str, name: str, kind: str, settings: object, registry: KindRegistry) -> None:
    """Refuse `data.columns.capital.gain=category`, which the command line splits at its dots."""
    inner = next(iter(settings), "") if isinstance(settings, Mapping) else settings
    if isinstance(inner, str) and inner in registry:
        fix = f"for a column named '{name}.{kind}' write 'data.{key}={{{name}.{kind}: {inner}}}'"
        raise DataError(f"{key}.{name}", f"unknown kind '{kind}'; {fix}", Code.UNKNOWN_CHOICE)
