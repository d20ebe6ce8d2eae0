"""Rows of the user's own: `@dlspec.rows("name")` on a function that yields the rows of a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field, create_model, model_validator

from dlspec.data.sources.source import data_source
from dlspec.data.sources.table_settings import list_paths
from dlspec.data.sources.table_source import TableSource
from dlspec.data.tables.read_options import ReadOptions
from dlspec.errors import Code, DataError, InvalidSetting

if TYPE_CHECKING:
    from dlspec.data.sources.table_rows import TableRows
    from dlspec.data.tables.table import Table

Row = Mapping[str, Any]
R = TypeVar("R", bound=Callable[..., Iterable[Row]])
# The options of reading that also concern cells in Python.
_OPTIONS_OF_CELLS = frozenset({"decimal", "thousands", "bad_rows"})


class UserRows(TableSource):
    """Rows that a function of the user's own yields."""

    read_path: ClassVar[Callable[..., Iterable[Row]]]  # the user's function

    path: str | list[str] | None = Field(None, description="the path, or a list of paths, that the function is given")

    @model_validator(mode="after")
    def _check_options(self) -> UserRows:
        for key, option in ReadOptions.model_fields.items():
            if key not in _OPTIONS_OF_CELLS and getattr(self, key) != option.default:
                found = f"{key} has no effect on rows that {_get_name(type(self).read_path)} reads; remove it"
                raise InvalidSetting((key,), found, Code.UNUSED)
        return self

    def read_rows(self) -> TableRows:
        """Call the user's function for every path."""
        from dlspec.data.sources.table_rows import add_joined_tables, join_files
        from dlspec.data.tables.table import ReadNotes

        if self.path is None:
            raise DataError("path", "no path is given; write data.path=PATH", Code.MISSING_VALUE)
        paths = {key: list_paths(getattr(self, key)) for key in ("path", "validation", "test")}
        read = {
            key: [_read_path(type(self).read_path, path, key) for path in listed]
            for key, listed in paths.items()
            if listed
        }
        tables = _make_tables(read, paths)
        return add_joined_tables(join_files({key: (table, ReadNotes()) for key, table in tables.items()}), self.join)


def rows(name: str) -> Callable[[R], R]:
    """Register a function as a source of rows: `data.type: NAME`, with all settings of a table.

    The function is called with `data.path` as it is written, and yields rows: mappings from the names of columns to
    cells, which are text, numbers, dates, true or false, lists, or None. `data.path` may be a list of paths, and
    `data.validation` and `data.test` paths too: the function is called once for each of them.
    """

    def register(read_path: R) -> R:
        source = create_model(_get_name(read_path), __base__=UserRows, __module__=read_path.__module__)
        source.__qualname__, source.__doc__ = _get_name(read_path), read_path.__doc__
        source.read_path = staticmethod(read_path)
        data_source(name)(source)
        return read_path

    return register


def _get_name(read_path: Callable[..., Any]) -> str:
    return str(getattr(read_path, "__qualname__", type(read_path).__qualname__))


def _read_path(read_path: Callable[..., Iterable[Row]], path: str, key: str) -> list[Row]:
    """Collect the rows of a path; DataError if there is none."""
    found = list(iterate_user_rows(read_path, path, key))
    if not found:
        raise DataError(key, f"{_get_name(read_path)} yields no row for '{path}'")
    return found


def iterate_user_rows(read_path: Callable[..., Iterable[Row]], path: str, key: str) -> Iterator[Row]:
    """Yield the rows of a path.

    Args:
        read_path: the user's function
        path: its argument
        key: the setting that names the path

    Raises:
        DataError: if the function raises an error, or yields something other than rows.
    """
    count = 0
    try:
        for row in _iterate(read_path(path), read_path, key):
            count += 1
            if not isinstance(row, Mapping):
                expected = 'expected a mapping such as {"age": 30, "label": "yes"}'
                raise DataError(
                    key, f"{_get_name(read_path)} yields {type(row).__name__} as row {count}; {expected}",
                    Code.WRONG_TYPE,
                )  # fmt: skip
            yield dict(row)  # a copy, as a function may yield one mapping again and again
    except DataError:
        raise
    except Exception as error:  # whatever the user's code raises concerns this path
        where = f"{_locate_error(error, read_path)}, after {count:,} rows of '{path}'"
        raise DataError(key, f"{_get_name(read_path)} raised {type(error).__name__} at {where}: {error}") from error


def _iterate(returned: object, read_path: Callable[..., Any], key: str) -> Iterator[Any]:
    if not isinstance(returned, Iterable) or isinstance(returned, Mapping):
        found = f"{_get_name(read_path)} returned {type(returned).__name__}; write yield for each row, or return a list"
        raise DataError(key, found, Code.WRONG_TYPE)
    return iter(returned)


def _locate_error(error: BaseException, read_path: Callable[..., Any]) -> str:
    """Return the file and line of the user's function in which an error was raised."""
    import inspect
    import traceback
    from pathlib import Path

    from dlspec.language.yaml.yaml_files import format_file_path

    code = getattr(inspect.unwrap(read_path), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is dlspec's
    own = [frame for frame in frames if code is None or frame.filename == code.co_filename]
    if own:
        return f"{format_file_path(Path(own[-1].filename))}:{own[-1].lineno}"
    return f"{format_file_path(Path(code.co_filename))}:{code.co_firstlineno}" if code is not None else "its call"


def _make_tables(read: Mapping[str, list[list[Row]]], paths: Mapping[str, Sequence[str]]) -> dict[str, Table]:
    """Make a table for each setting that names paths.

    Columns are converted over all rows together: integers in one split and integers with gaps in another get one type.
    """
    from dlspec.data.tables.python_rows import table_from_python

    try:
        whole = table_from_python([row for parts in read.values() for part in parts for row in part])
    except DataError as error:
        raise DataError("path", error.finding.found, error.finding.code) from None
    tables, start = {}, 0
    for key, parts in read.items():
        stop = start + sum(map(len, parts))
        tables[key] = _take_part(whole, slice(start, stop), parts, paths[key])
        start = stop
    return tables


def _take_part(whole: Table, taken: slice, parts: Sequence[Sequence[Row]], paths: Sequence[str]) -> Table:
    """Take the rows of one setting from the table of all rows, with the columns that these rows have.

    Args:
        whole: the table of all rows
        taken: which of them
        parts: these rows as they were read, by path
        paths: the paths
    """
    import numpy as np

    from dlspec.data.tables.column_names import normalize_name
    from dlspec.data.tables.table import Table

    names = {normalize_name(str(name)) for name in {name for part in parts for row in part for name in row}}
    counts = [len(part) for part in parts]
    return Table(
        {name: column[taken] for name, column in whole.columns.items() if name in names}, tuple(paths),
        np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        np.concatenate([np.arange(1, count + 1) for count in counts]),
    )  # fmt: skip
