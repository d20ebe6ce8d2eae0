"""What differs between the tensors of a file and those of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]

# Counters of BatchNorm that old files lack; the results do not depend on them.
COUNTER_SUFFIX = ".num_batches_tracked"


@dataclass(frozen=True)
class ShapeMismatch:
    """A tensor whose shape in the file differs from that in the model."""

    name: str  # in the model
    files: tuple[str, ...]  # the tensors of the file that are joined for it
    shape: Shape  # in the file
    own: Shape

    @property
    def fits_transposed(self) -> bool:
        """Whether the tensor fits after transposing."""
        return self.shape[::-1] == self.own and len(self.files) == 1


@dataclass(frozen=True)
class TypeMismatch:
    """A tensor that has integers where the model has floats, or the other way round."""

    name: str
    file: str
    dtype: str  # in the file
    own: str


@dataclass
class Mismatches:
    """All that differs between a file and a model."""

    own_shapes: Mapping[str, Shape]
    file_shapes: Mapping[str, Shape]
    shapes: list[ShapeMismatch] = field(default_factory=list)
    types: list[TypeMismatch] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)  # names in the file, and what they were renamed to
    missing: list[str] = field(default_factory=list)  # names in the model
    missing_counters: list[str] = field(default_factory=list)  # the same of counters, which may be missing
    # Two names of one tensor of the model, and the file's name of the second, whose values differ.
    conflicts: list[tuple[str, str, str]] = field(default_factory=list)
    filled: int = 0  # tensors of the model that the file has and that fit, without counters
