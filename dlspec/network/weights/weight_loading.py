"""Load weights into a network, and rename, transpose, split or join tensors where the spec says so."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import Code, KeyPath, UserError, suggest
from dlspec.language.problems import Problems
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.network.divided_values import DividedValues
from dlspec.network.weights.mismatch_report import WEIGHTS_PATH, report_mismatches
from dlspec.network.weights.mismatch_texts import describe_mismatches
from dlspec.network.weights.mismatches import COUNTER_SUFFIX, Mismatches, ShapeMismatch, TypeMismatch
from dlspec.network.weights.rename_patterns import RenamePattern, rename_tensor
from dlspec.network.weights.tensor_files import StoredTensor, list_stored_tensors

_MAX_NAMES = 4


def load_weights(
    module: nn.Module, spec: WeightsSpec, problems: Problems, divided_values: DividedValues | None = None
) -> str:
    """Load a file's weights into a module. Nothing is copied unless everything fits.

    Args:
        module: The network; its parameters and buffers are changed in place.
        spec: The spec's `weights` section.
        problems: Collects what does not fit.
        divided_values: Get the values of a network on the meta device, if it is divided among processes.

    Returns:
        A line for the user that says what was loaded, or '' where a problem was found.
    """
    problem_count = len(problems)
    try:
        stored = list_stored_tensors(Path(spec.path).expanduser())
        loader = WeightLoader(module, spec, stored, problems, divided_values)
        values = loader.collect_values()
        report_mismatches(loader.mismatches, spec, problems)
    except (UserError, RuntimeError) as error:  # RuntimeError: ~NAME without such a user
        problems.add(Code.FILE_UNREADABLE, (*WEIGHTS_PATH, "path"), str(error), at_value=True)
    if len(problems) > problem_count:
        return ""
    loader.copy_values(values)
    return loader.format_report(values)


def load_saved_weights(module: nn.Module, path: Path) -> None:
    """Load the weights that a run saved into its own network. Nothing is copied unless everything fits.

    Raises:
        UserError: If the file can't be read, or the network is not the one that was saved.
    """
    loader = WeightLoader(module, WeightsSpec(path=str(path), strict=True), list_stored_tensors(path), Problems())
    values = loader.collect_values()
    differences = describe_mismatches(loader.mismatches)
    if differences:
        raise UserError(
            f"the network is not the one whose weights '{path}' has: {'; '.join(differences)}. Put back the spec and "
            "the code of your own layers as they were in training"
        )
    loader.copy_values(values)


@dataclass(frozen=True)
class TensorPiece:
    """A tensor of the file, or one part of a tensor that is split over multiple names of the model."""

    name: str
    stored: StoredTensor
    is_transposed: bool
    # Which part this is, counted from 0, and the model's names for all parts.
    division: tuple[int, tuple[str, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole tensor, after transposing."""
        return self.stored.shape[::-1] if self.is_transposed else self.stored.shape

    @property
    def is_whole(self) -> bool:
        """Whether the tensor is not split."""
        return len(self.division[1]) == 1


class WeightLoader:
    """Loader that finds a value for each tensor of the model, and reports missing or unused names and wrong shapes.

    Args:
        module: The network.
        spec: The spec's `weights` section.
        stored: The file's tensors by name.
        problems: Collects what does not fit.
        divided_values: Get each value as soon as it is read, so that only a part of it is kept.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: WeightsSpec,
        stored: Mapping[str, StoredTensor],
        problems: Problems,
        divided_values: DividedValues | None = None,
    ) -> None:
        self.spec, self.stored, self.problems, self.divided_values = spec, stored, problems, divided_values
        self.state = dict(module.state_dict(keep_vars=True))
        self.used_names: set[str] = set()
        self.dropped_names: list[str] = []
        self.fresh = {name for name in self.state if any(fnmatch.fnmatchcase(name, each) for each in spec.fresh)}
        self.mismatches = Mismatches(
            {name: tuple(each.shape) for name, each in self.state.items()},
            {name: each.shape for name, each in stored.items()},
        )

    def collect_values(self) -> dict[str, Tensor]:
        """Read the new values of the model's tensors by name, and collect what does not fit in `mismatches`."""
        self._check_patterns()
        pieces = self._collect_pieces()
        values = {name: self._read_value(name, each) for name, each in pieces.items() if name not in self.fresh}
        filled = {name: each for name, each in values.items() if each is not None}
        self._find_conflicts(filled, pieces)
        self.mismatches.filled = sum(not each.endswith(COUNTER_SUFFIX) for each in filled)
        if self.spec.strict or (self.stored and not pieces.keys() & self.state.keys()):  # no tensor at all fits
            self._find_unused(pieces)
        if self.spec.strict:
            self._find_missing(values)
        return filled

    def copy_values(self, values: Mapping[str, Tensor]) -> None:
        """Copy the new values into the network."""
        with torch.no_grad():
            for name, value in values.items():
                if not self.state[name].is_meta:  # a summary is built without values
                    self.state[name].copy_(value)

    def format_report(self, values: Mapping[str, Tensor]) -> str:
        """Make the line for the user: `weights: 320 of 322 tensors of FILE; kept their initial values: fc.bias`."""
        parts = [f"weights: {len(self.used_names)} of {len(self.stored)} tensors of {self.spec.path}"]
        unused = [name for name in self.stored if name not in self.used_names and name not in self.dropped_names]
        own = [name for name in self._find_unfilled(values) if not name.endswith(COUNTER_SUFFIX)]
        names_by_reason = {"left out": self.dropped_names, "not used": unused, "kept their initial values": own}
        return "; ".join(
            [*parts, *(f"{words}: {_format_names(names)}" for words, names in names_by_reason.items() if names)]
        )

    # ---- tensors by the names of the model -------------------------------------------------------------------------

    def _check_patterns(self) -> None:
        """Report patterns that match nothing.

        If the spec is strict, a rename may match nothing: missing and unused tensors are reported anyway.
        """
        for pattern in () if self.spec.strict else self.spec.rename:
            self._check_pattern(pattern, self.stored, ("rename", pattern), "no tensor of the file")
        for index, pattern in enumerate(self.spec.transpose):
            self._check_pattern(pattern, self.stored, ("transpose", index), "no tensor of the file")
        for index, pattern in enumerate(self.spec.fresh):
            self._check_pattern(pattern, self.state, ("fresh", index), "no parameter")

    def _check_pattern(self, pattern: str, names: Mapping[str, Any], path: KeyPath, what: str) -> None:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            at_value = path[0] != "rename"
            found = f"{what} is named '{pattern}'"
            self.problems.add(
                Code.NO_MATCH,
                (*WEIGHTS_PATH, *path),
                found,
                suggest(pattern, names),
                at_value=at_value,
                at_key=not at_value,
            )

    def _collect_pieces(self) -> dict[str, list[TensorPiece]]:
        """Collect the file's tensors by the model's names.

        Tensors to be joined are in the order of the renames, then in the order of the file.
        """
        renames = [
            RenamePattern(pattern, None if each is None else (each,) if isinstance(each, str) else tuple(each))
            for pattern, each in self.spec.rename.items()
        ]
        found: list[tuple[int, str, TensorPiece]] = []
        for name, stored in self.stored.items():
            order, names = rename_tensor(name, renames)
            if not names:
                self.dropped_names.append(name)
            is_transposed = any(fnmatch.fnmatchcase(name, each) for each in self.spec.transpose)
            found += [
                (order, new, TensorPiece(name, stored, is_transposed, (at, names))) for at, new in enumerate(names)
            ]
        pieces: dict[str, list[TensorPiece]] = {}
        for _, new, piece in sorted(found, key=lambda each: each[0]):
            pieces.setdefault(new, []).append(piece)
        return pieces

    # ---- values ----------------------------------------------------------------------------------------------------

    def _read_value(self, name: str, pieces: Sequence[TensorPiece]) -> Tensor | None:
        """Read the value for one of the model's names; None where the model has no such name or the shapes differ."""
        own = self.state.get(name)
        if own is None:
            return None
        readers = [self._make_reader(each) for each in pieces]
        shapes = [self._find_piece_shape(each) for each in pieces]
        joined_shape = (
            (sum(each[0] for each in shapes), *shapes[0][1:]) if len(shapes) > 1 and all(shapes) else shapes[0]
        )
        if _drop_unit_sizes(joined_shape) != _drop_unit_sizes(own.shape) or any(
            each[1:] != shapes[0][1:] for each in shapes
        ):
            files = tuple(each.name for each in pieces)
            self.mismatches.shapes.append(ShapeMismatch(name, files, tuple(joined_shape), tuple(own.shape)))
            return None
        self.used_names |= {each.name for each in pieces}
        tensors = [each() for each in readers]
        value = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        if value.is_floating_point() != own.is_floating_point():
            theirs, ours = (str(each.dtype).removeprefix("torch.") for each in (value, own))
            self.mismatches.types.append(TypeMismatch(name, pieces[0].name, theirs, ours))
        value = value.reshape(own.shape)
        return value if self.divided_values is None else self.divided_values.set(own, value.to(own.dtype))

    def _make_reader(self, piece: TensorPiece) -> Any:
        start, size = self._find_slice(piece)

        def read() -> Tensor:
            tensor = piece.stored.read()
            tensor = tensor.permute(*reversed(range(tensor.dim()))) if piece.is_transposed else tensor
            return tensor if piece.is_whole else tensor.narrow(0, start, size)

        return read

    def _find_piece_shape(self, piece: TensorPiece) -> tuple[int, ...]:
        return piece.shape if piece.is_whole else (self._find_slice(piece)[1], *piece.shape[1:])

    def _find_slice(self, piece: TensorPiece) -> tuple[int, int]:
        """Return the first row and the number of rows of a part: those of the model's tensor, else equal parts."""
        index, names = piece.division
        rows = piece.shape[0] if piece.shape else 0
        sizes = [self.state[each].shape[0] for each in names if each in self.state and self.state[each].dim()]
        if len(sizes) != len(names) or sum(sizes) != rows:
            sizes = [rows // len(names)] * len(names)
            sizes[-1] = rows - sum(sizes[:-1])  # the last part gets the rest
        return sum(sizes[:index]), sizes[index]

    # ---- what does not fit -----------------------------------------------------------------------------------------

    def _find_conflicts(self, values: Mapping[str, Tensor], pieces: Mapping[str, Sequence[TensorPiece]]) -> None:
        """Find tied or shared tensors that have different values in the file."""
        first: dict[int, str] = {}
        for name, value in values.items():
            own = self.state[name]
            other = first.setdefault(id(own), name)
            if other != name and not torch.equal(values[other].to(own.dtype), value.to(own.dtype)):
                self.mismatches.conflicts.append((other, name, pieces[name][0].name))

    def _find_unused(self, pieces: Mapping[str, Sequence[TensorPiece]]) -> None:
        self.mismatches.unused += [
            (each.name, name) for name, group in pieces.items() if name not in self.state for each in group
        ]

    def _find_missing(self, values: Mapping[str, Any]) -> None:
        for name in self._find_unfilled(values):
            if name.endswith(COUNTER_SUFFIX):
                self.mismatches.missing_counters.append(name)
            elif name not in self.fresh:
                self.mismatches.missing.append(name)

    def _find_unfilled(self, values: Mapping[str, Any]) -> list[str]:
        """List the model's names that get no value, neither directly nor through a tied or shared tensor."""
        filled = {id(self.state[name]) for name in values if name in self.state}
        return [name for name, each in self.state.items() if id(each) not in filled]


def _drop_unit_sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """Remove sizes of 1 from a shape: a position embedding may be (1, T, C) in one file and (T, C) in another."""
    return tuple(each for each in shape if each != 1)


def _format_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else shown
