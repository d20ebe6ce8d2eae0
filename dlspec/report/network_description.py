"""A network as plain data: its layers, and the boxes and arrows of its picture. The command line makes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_LAYERS = 2_000  # that the page lists
MAX_BOXES = 150  # that the page draws; placing more takes a browser seconds


@dataclass(frozen=True)
class DescribedLayer:
    """A line of the table of layers."""

    name: str
    type: str
    output: str  # shape and layout
    parameters: int = 0
    multiply_adds: int = 0  # of the forward pass, per sample
    remarks: str = ""  # frozen, tied, shared


@dataclass(frozen=True)
class DrawnBox:
    """A box of the picture."""

    name: str  # of its layer
    title: str
    family: str  # of similar layers, which have one color
    lines: tuple[str, ...] = ()  # settings, and layers that share the box
    details: tuple[str, ...] = ()  # shapes, parameters
    frame: str = ""  # name of the innermost frame around it


@dataclass(frozen=True)
class DrawnFrame:
    """A frame around the boxes of a block."""

    name: str
    title: str  # type of the block, and how many equal copies it stands for
    parent: str = ""  # name of the frame around it


@dataclass(frozen=True)
class DrawnArrow:
    """An arrow between two boxes."""

    source: str
    target: str
    label: str = ""  # the shape of what flows, where it is new


@dataclass(frozen=True)
class NetworkDescription:
    """Everything about a network that the page of a run shows, or why it is unknown."""

    layers: tuple[DescribedLayer, ...] = ()
    totals: tuple[str, ...] = ()  # parameters, multiply-adds, memory: a line each
    boxes: tuple[DrawnBox, ...] = ()
    frames: tuple[DrawnFrame, ...] = ()
    arrows: tuple[DrawnArrow, ...] = ()
    problem: str = ""  # why the network could not be built

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data, with a limited number of layers; without the picture if it has too many boxes."""
        written = asdict(self) | {"more_layers": max(0, len(self.layers) - MAX_LAYERS)}
        written["layers"] = written["layers"][:MAX_LAYERS]
        if len(self.boxes) > MAX_BOXES:
            written |= {"boxes": [], "frames": [], "arrows": []}
        return written
