"""Kinds of the user's own: `@dlspec.column("name")` on a function or class that reads a cell as an array."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, create_model
from typing_extensions import override

from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat, list_cells
from dlspec.data.prepare.kinds.kind import (
    COLUMN_KINDS,
    TARGET_KINDS,
    ColumnKind,
    Encoded,
    FittedShape,
    Role,
    Rows,
    load_kinds,
    register_kind,
    register_saved,
)
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.errors import Code, DataError, suggest
from dlspec.layouts import LAYOUTS, Layout, format_shape, guess_layout

R = TypeVar("R", bound=Callable[..., Any])
MAX_SIZE = 100_000_000  # numbers of one cell
MAX_RANK = 4


class UserKind(ColumnKind):
    """A kind of the user's own; its settings are the arguments of the user's class."""

    role: ClassVar[Role] = "field"
    make_reader: ClassVar[Callable[..., Any]]  # the user's class; for a function, what returns it
    layout: ClassVar[Layout | None] = None  # None: guessed from the shape

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedUserKind:
        unfitted = FittedUserKind((), "features", user_kind=type(self), settings=self.model_dump(mode="json"))
        arrays, problems = unfitted.read_cells(column[training])
        known = [each for each in arrays if each is not None]
        if not known:
            reason = next(iter(problems.values()), "they are all missing")
            raise DataError(name, f"no training row of '{name}' can be read as {self.name}: {reason}", Code.BAD_DATA)
        shape, has_lengths = _find_shape(known, self.layout)
        layout = self.layout or guess_layout(shape)
        vocab_size = int(max(each.max(initial=0) for each in known)) + 1 if layout == "tokens" else None
        return replace(unfitted, shape_of_row=shape, layout_of_row=layout, tokens=vocab_size, has_lengths=has_lengths)


def _find_shape(arrays: list[NDArray[Any]], layout: Layout | None) -> tuple[tuple[int, ...], bool]:
    """Return the shape of a row, and whether rows differ in length; DataError where they differ in another way."""
    shapes = sorted({each.shape for each in arrays})
    if len(shapes) == 1:
        return shapes[0], False
    has_time = layout in ("sequence", "tokens") or (layout is None and len(shapes[0]) == 2)
    if has_time and len({shape[1:] for shape in shapes}) == 1:
        return shapes[-1], True
    found = " and ".join(map(format_shape, shapes[:3]))
    raise DataError("columns", f"the cells differ in shape: {found}; only a sequence or tokens may differ in length")


def column(name: str, layout: Layout | None = None) -> Callable[[R], R]:
    """Register a function or class as a kind of column.

    The function, or the class's method `read`, converts the text of a cell to an array of numbers. A class may have an
    attribute `layout`, settings as arguments, and a method `write` that converts an array of predictions to a cell.

    Args:
        name: the name of the kind in `data.columns`
        layout: layout of the arrays; by default that of the class, or a guess from the shape

    Returns:
        A decorator.
    """

    def register(reader: R) -> R:
        kind = _make_kind(reader, layout or getattr(reader, "layout", None))
        load_kinds()  # so that a name of dlspec's own is refused here
        registries = [COLUMN_KINDS, TARGET_KINDS] if hasattr(reader, "write") else [COLUMN_KINDS]
        for registry in registries:
            register_kind(name, registry)(kind)
        return reader

    return register


def _make_kind(reader: Callable[..., Any], layout: Layout | None) -> type[UserKind]:
    if layout is not None and layout not in LAYOUTS:
        raise DataError(
            "columns", f"unknown layout '{layout}'; {suggest(layout, get_args(Layout))}", Code.UNKNOWN_CHOICE
        )
    is_class = isinstance(reader, type)
    if is_class and not callable(getattr(reader, "read", None)):
        raise DataError("columns", f"the class {reader.__name__} needs a method read(cell)", Code.MISSING_VALUE)
    settings = _list_settings(reader) if is_class else {}
    kind = create_model(reader.__name__, __base__=UserKind, __module__=reader.__module__, **settings)
    kind.__qualname__, kind.__doc__ = reader.__qualname__, reader.__doc__
    kind.make_reader = staticmethod(reader) if is_class else staticmethod(lambda: _FunctionReader(reader))
    kind.layout = layout
    return kind


@dataclass(frozen=True)
class _FunctionReader:
    read: Callable[[str], Any]


def _list_settings(reader: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a class as pydantic's fields."""
    found = inspect.signature(reader, eval_str=True).parameters.values()
    return {
        each.name: (
            Any if each.annotation is each.empty else each.annotation,
            Field(... if each.default is each.empty else each.default),
        )
        for each in found
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }


@register_saved("column")
@dataclass(frozen=True)
class FittedUserKind(FittedShape):
    """A column of a kind of the user's own."""

    user_kind: type[UserKind] = field(kw_only=True)
    settings: Mapping[str, Any] = field(kw_only=True)

    def read_cells(self, column: NDArray[Any]) -> tuple[list[NDArray[Any] | None], dict[int, str]]:
        """Read the cells as arrays; None where one is missing, or wrong with the reason."""
        reader = self.user_kind.make_reader(**self.settings)
        arrays: list[NDArray[Any] | None] = []
        problems: dict[int, str] = {}
        for row, cell in enumerate(list_cells(column)):
            try:
                arrays.append(None if cell is None else _check_array(reader.read(cell)))
            except Exception as error:  # whatever the user's code raises concerns this cell
                arrays.append(None)
                problems[row] = f"{type(error).__name__}: {error}"
        return arrays, problems

    def apply(self, column: NDArray[Any]) -> Encoded:
        arrays, problems = self.read_cells(column)
        is_tokens = self.layout == "tokens"
        values = np.zeros((len(arrays), *self.shape), np.int64 if is_tokens else np.float32)
        lengths = np.ones(len(arrays), np.int64)
        for row, array in enumerate(arrays):
            reason = "the cell is missing" if array is None else self._find_wrong(array)
            if array is None or reason:
                problems.setdefault(row, reason)
                continue
            lengths[row] = min(len(array), self.shape[0]) if self.has_lengths else 1
            steps = slice(int(lengths[row])) if self.has_lengths else slice(None)
            values[row, steps] = array[steps]
        cut = sum(array is not None and self.has_lengths and len(array) > self.shape[0] for array in arrays)
        return Encoded(values, lengths if self.has_lengths else None, problems, {"cut": cut} if cut else {})

    def _find_wrong(self, array: NDArray[Any]) -> str:
        """Say what is wrong with an array, or return ''."""
        is_alike = array.shape[1:] == self.shape[1:] and array.ndim and len(array) if self.has_lengths else False
        if array.shape != self.shape and not is_alike:
            return f"shape {format_shape(array.shape)}, expected {format_shape(self.shape)}"
        if self.tokens is not None and not ((array >= 0) & (array < self.tokens)).all():
            return f"tokens must be from 0 to {self.tokens - 1}"
        return ""

    def invert(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert predictions (N, *shape) to cells (N,) by the kind's `write`."""
        reader = self.user_kind.make_reader(**self.settings)
        cells = np.empty(len(values), object)
        cells[:] = [reader.write(each) for each in values]
        return cells

    def to_json(self) -> dict[str, Any]:
        saved = {"kind": self.kind, "name": self.user_kind.name, "settings": dict(self.settings)}
        rest = {"shape": list(self.shape), "layout": self.layout, "has_lengths": self.has_lengths}
        return {**saved, **rest, "num_tokens": self.tokens}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedUserKind:
        """Rebuild from the result of `to_json`; DataError if that is damaged, or the kind is not registered."""
        values = SavedValues(saved, ("name", "settings", "shape", "layout", "has_lengths", "num_tokens"))
        name = values.get_text("name", 100)
        kind = COLUMN_KINDS.get(name)
        if kind is None or not issubclass(kind, UserKind):
            fix = "import the module that defines it, with 'imports' in the spec"
            raise DataError("columns", f"the kind '{name}' is not registered: {fix}", Code.UNKNOWN_CHOICE)
        shape, layout = values.values["shape"], values.get_choice("layout", LAYOUTS)
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_RANK
            or not all(type(each) is int and each > 0 for each in shape)
        ):
            raise make_saved_error("shape must be a list of sizes")
        if prod(shape) > MAX_SIZE:
            raise make_saved_error(f"shape has more than {MAX_SIZE:,} numbers")
        tokens = None if values.values["num_tokens"] is None else values.get_integer("num_tokens", 1, 2**31)
        kept: Layout = next(each for each in LAYOUTS if each == layout)
        has_lengths, settings = values.get_flag("has_lengths"), _read_settings(kind, values)
        return cls(tuple(shape), kept, tokens, has_lengths, user_kind=kind, settings=settings)


def _read_settings(kind: type[UserKind], values: SavedValues) -> dict[str, Any]:
    try:
        return kind.model_validate(values.values["settings"]).model_dump(mode="json")
    except ValueError:
        raise make_saved_error(f"its settings are not those of the kind '{kind.name}'") from None


def _check_array(read: object) -> NDArray[Any]:
    """Return what the user's code read as an array of finite numbers; ValueError if it is something else."""
    array = np.asarray(read)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected an array of numbers, got dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("the array contains numbers that are not finite")
    return array
