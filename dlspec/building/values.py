"""What flows between layers: a shape, a layout, and whether samples keep lengths of their own."""

from __future__ import annotations

from dataclasses import dataclass

from dlspec.layouts import Layout


@dataclass(frozen=True)
class Value:
    """A layer's input or output; the batch is left out of `shape`."""

    shape: tuple[int, ...]
    layout: Layout
    lengths: bool = False
    vocab_size: int | None = None

    def __str__(self) -> str:
        sizes = ", ".join(str(size) for size in self.shape)
        return f"({sizes}) {self.layout}"

    @property
    def channels(self) -> int:
        """The size of the channel dimension."""
        return self.shape[0] if self.layout == "channels-first" else self.shape[-1]
