"""What flows between layers: a shape, the role of each dimension, and whether samples keep lengths of their own.

A role is one letter: N batch, T time, C channels, S space. A layout is the name of a row of roles; the batch always
comes first and is left out of every shape in a spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Layout = Literal["features", "sequence", "tokens", "channels-first", "channels-last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def roles_from_layout(layout: Layout, rank: int) -> tuple[str, ...]:
    """The roles of a value's `rank` dimensions, batch left out: `roles("channels-first", 3)` is `("C", "S", "S")`."""
    if layout == "features":
        return ("C",) * rank
    if layout == "sequence":
        return ("T",) + ("C",) * (rank - 1)
    if layout == "tokens":
        return ("T",) * rank
    space = ("S",) * (rank - 1)
    return ("C", *space) if layout == "channels-first" else (*space, "C")


def layout_from_roles(roles: tuple[str, ...]) -> Layout:
    """The layout that a row of roles, batch left out, has."""
    if not roles or roles[0] == "T":
        return "sequence" if "C" in roles else "tokens" if roles else "features"
    if len(roles) == 1:
        return "features"
    return "channels-first" if roles[0] == "C" else "channels-last"


def guess_layout(shape: Sequence[int]) -> Layout:
    """The layout that a shape, batch left out, most likely has where nothing else tells."""
    if len(shape) < 2:
        return "features"
    return "sequence" if len(shape) == 2 else "channels-first"


def format_shape(shape: Iterable[int]) -> str:
    """A shape as messages show it: `(3, 32, 32)`, and `(10)` for one dimension."""
    return f"({', '.join(str(size) for size in shape)})"


@dataclass(frozen=True)
class Window:
    """What a convolution or pooling does to a length, by PyTorch's output-size formula."""

    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@dataclass(frozen=True)
class Lengths:
    """Each sample's own length: that of an input field, and the windows that it went through since."""

    field: str
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """A layer's input or output; the batch is left out of `shape`. A `Parameter` has none: `has_batch` is false.

    `lost` names the layer behind which samples have no lengths any more, though there are steps. `explicit_roles` are the
    roles of its dimensions where the layout does not tell them: (C, C, S, S), channels in groups.
    """

    shape: tuple[int, ...]
    layout: Layout
    lengths: Lengths | None = None
    vocab_size: int | None = None
    has_batch: bool = True
    lengths_lost_at: str = ""
    explicit_roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{format_shape(self.shape)} {self.layout}"

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each dimension, batch left out."""
        return self.explicit_roles or roles_from_layout(self.layout, len(self.shape))

    @property
    def channels(self) -> int:
        """The size of the channel dimension."""
        return self.shape[self.channels_dim - 1] if self.shape else 1

    @property
    def channels_dim(self) -> int:
        """The channels' dimension as PyTorch counts it, the batch being 0."""
        return 1 if self.layout == "channels-first" else len(self.shape)

    @property
    def time_dim(self) -> int | None:
        """The dimension along which samples may have lengths, the batch being 0; None where there is none."""
        if self.layout in ("sequence", "tokens"):
            return 1
        return 2 if self.layout == "channels-first" and len(self.shape) == 2 else None
