"""Shapes and layouts of the tensors between layers: the role of each dimension, and the samples' lengths.

A role is one letter: N batch, T time, C channels, S space. A layout is the name of a sequence of roles, such as
`channels-first` for (C, S, S). The batch is always the first dimension; shapes in a spec leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Layout = Literal["features", "sequence", "tokens", "channels-first", "channels-last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def roles_from_layout(layout: Layout, rank: int) -> tuple[str, ...]:
    """Return the roles of `rank` dimensions without the batch: ("C", "S", "S") for `channels-first` and 3."""
    if layout == "features":
        return ("C",) * rank
    if layout == "sequence":
        return ("T",) + ("C",) * (rank - 1)
    if layout == "tokens":
        return ("T",) * rank
    space = ("S",) * (rank - 1)
    return ("C", *space) if layout == "channels-first" else (*space, "C")


def layout_from_roles(roles: tuple[str, ...]) -> Layout:
    """Return the layout that belongs to a tuple of roles without the batch."""
    if not roles or roles[0] == "T":
        return "sequence" if "C" in roles else "tokens" if roles else "features"
    if len(roles) == 1:
        return "features"
    return "channels-first" if roles[0] == "C" else "channels-last"


def guess_layout(shape: Sequence[int]) -> Layout:
    """Guess the layout of a shape without the batch, where nothing else determines it."""
    if len(shape) < 2:
        return "features"
    return "sequence" if len(shape) == 2 else "channels-first"


def format_shape(shape: Iterable[int]) -> str:
    """Format a shape for messages: `(3, 32, 32)`, or `(10)` for one dimension."""
    return f"({', '.join(str(size) for size in shape)})"


@dataclass(frozen=True)
class LengthChange:
    """How a layer changes the length of a sample: (length - removed) // stride * factor + added, and at least 1.

    Equal changes are equal objects, whatever the settings of the layer: `added` is 0 unless `factor` is above 1.
    """

    removed: int = 0
    stride: int = 1
    factor: int = 1
    added: int = 0

    @classmethod
    def from_window(cls, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> LengthChange:
        """Describe a convolution or pooling, by PyTorch's output-size formula.

        Args:
            kernel_size: Steps that the kernel reads.
            stride: Steps between two of its positions.
            padding: Steps that are added on both sides.
            dilation: Distance between two of the steps that the kernel reads.
        """
        return cls(dilation * (kernel_size - 1) + 1 - 2 * padding - stride, stride)

    @classmethod
    def from_factor(cls, factor: int, added: int = 0) -> LengthChange:
        """Describe a layer after which a sample has length * factor + added steps."""
        return cls(removed=-added) if factor == 1 else cls(factor=factor, added=added)

    @property
    def only_adds_steps(self) -> bool:
        """Whether a fixed number of steps is added to every sample, or none."""
        return self.stride == self.factor == 1 and self.removed <= 0


@dataclass(frozen=True)
class Lengths:
    """Where the lengths of a batch's samples come from."""

    field: str  # the input field with the original lengths
    changes: tuple[LengthChange, ...] = ()  # by the layers since, in order; equal lengths have equal changes

    def after(self, change: LengthChange) -> Lengths:
        """Return the lengths after a further change.

        Steps that are added before a convolution are combined with it, so that both together may change nothing.
        """
        changes = self.changes
        if changes and changes[-1].only_adds_steps and change.factor == 1:
            change = LengthChange(change.removed + changes[-1].removed, change.stride)
            changes = changes[:-1]
        return Lengths(self.field, changes if change == LengthChange() else (*changes, change))


NO_PADDING = Lengths("")
"""What a layer's rule returns as lengths where every step of the output is real."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape, layout and lengths of a layer's input or output."""

    shape: tuple[int, ...]  # without the batch
    layout: Layout
    lengths: Lengths | None = None
    vocab_size: int | None = None  # of token indices
    has_batch: bool = True  # false for a `Parameter`
    lengths_lost_at: str = ""  # the layer whose output has a time dimension but no lengths
    hides_steps: bool = False  # a dimension other than the time dimension has a number for each padded step
    explicit_roles: tuple[str, ...] = ()  # where the layout does not determine them: (C, C, S, S) for channel groups
    dtype: str = ""  # "float", or PyTorch's name of another type, such as "bool"; "" where the layout implies it
    constant: Any = field(default=None, repr=False)  # the value of a formula of constants, see `formula_constants.py`

    def __str__(self) -> str:
        return f"{format_shape(self.shape)} {self.layout}"

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each dimension, without the batch."""
        return self.explicit_roles or roles_from_layout(self.layout, len(self.shape))

    @property
    def channels(self) -> int:
        """The size of the channel dimension."""
        return self.shape[self.channels_dim - 1] if self.shape else 1

    @property
    def channels_dim(self) -> int:
        """Index of the channel dimension, counted from the batch as 0."""
        return 1 if self.layout == "channels-first" else len(self.shape)

    @property
    def time_dim(self) -> int | None:
        """Index of the dimension with lengths, counted from the batch as 0; None without one."""
        if self.layout in ("sequence", "tokens"):
            return 1
        return 2 if self.layout == "channels-first" and len(self.shape) == 2 else None
