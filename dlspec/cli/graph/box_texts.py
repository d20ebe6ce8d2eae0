"""What the boxes and arrows of a network's picture say, whatever draws them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dlspec.cli.graph.layer_boxes import FOLDED, INPUT, OUTPUT, BoxLine, LayerBox
from dlspec.cli.graph.network_picture import NetworkPicture
from dlspec.errors import format_value
from dlspec.layouts import format_shape

# A box shows at most this many characters in a line of settings, and at most this many such lines.
MAX_LINE_LENGTH, MAX_SETTING_LINES = 44, 4
# The family of a layer, by the module that defines its class. Similar layers have one color.
FAMILIES: Mapping[str, str] = {
    "conv": "convolution",
    "linear": "linear",
    **dict.fromkeys(("sparse", "positions", "parameter"), "table"),
    **dict.fromkeys(("attention", "transformer", "recurrent"), "sequence"),
    **dict.fromkeys(("pooling", "reducing", "upsampling"), "resizing"),
    "merging": "joining",
    FOLDED: "block",
    **dict.fromkeys((INPUT, OUTPUT), "end"),
}


@dataclass(frozen=True)
class BoxText:
    """The lines of a box."""

    title: str
    settings: tuple[str, ...] = ()  # of its first layer
    beside: str = ""  # the other layers in the box, with their settings
    details: str = ""  # parameters and remarks; for an input or output its shape


def find_family(kind: str) -> str:
    """Return the family of a layer, which decides its color."""
    return FAMILIES.get(kind, "other")


def describe_box(box: LayerBox, copies: int) -> BoxText:
    """Describe a box that represents this many equal copies."""
    first, *beside = box.lines
    if first.kind in (INPUT, OUTPUT):
        return BoxText(first.type, details=format_shape(box.output.shape))
    parameters = sum(line.parameters for line in box.lines)
    about = [f"{parameters:,} parameters"] if parameters else []
    about += [remark for remark in dict.fromkeys(line.remarks for line in box.lines) if remark]
    return BoxText(
        first.type + (f" × {copies}" if copies > 1 else ""),
        tuple(_wrap_settings(first)),
        ", ".join(" ".join([line.type, *_wrap_settings(line)]) for line in beside),
        ", ".join(about),
    )


def iterate_arrows(picture: NetworkPicture) -> Iterator[tuple[str, str, str]]:
    """Yield source, target and label of each arrow: the shape, unless the source keeps the shape of its input."""
    boxes = {box.name: box for box in picture.boxes}
    for box in picture.boxes:
        for each in box.takes:
            source = boxes[each.layer]
            is_new = not source.takes or source.takes[0].value.shape != each.value.shape
            is_input = source.lines[0].kind == INPUT
            label = [each.output, format_shape(each.value.shape) if is_new else ""]
            yield each.layer, box.name, "" if is_input else " ".join(word for word in label if word)


def _wrap_settings(line: BoxLine) -> list[str]:
    """Format settings as in the spec, wrapped between settings; for a Formula its expression."""
    if line.type == "Formula":
        return textwrap.wrap(str(line.settings["formula"]), MAX_LINE_LENGTH)[:MAX_SETTING_LINES]
    words = [f"{name} {format_value(each, 30)}".replace(" ", "\0") for name, each in line.settings.items()]
    lines = textwrap.wrap(", ".join(words), MAX_LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines[:MAX_SETTING_LINES]]
