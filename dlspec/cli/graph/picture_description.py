"""Describe a network's picture as plain data, which the page of a run draws."""

from __future__ import annotations

from collections.abc import Iterator

from dlspec.cli.graph.box_texts import describe_box, find_family, iterate_arrows
from dlspec.cli.graph.frames import find_frame, find_outer_frame
from dlspec.cli.graph.layer_boxes import INPUT, OUTPUT, LayerBox
from dlspec.cli.graph.network_picture import NetworkPicture
from dlspec.report.network_description import DrawnArrow, DrawnBox, DrawnFrame


def describe_boxes(picture: NetworkPicture) -> tuple[DrawnBox, ...]:
    """Describe the boxes, in the order in which the layers run."""
    return tuple(_describe_drawn_box(box, picture) for box in picture.boxes)


def describe_arrows(picture: NetworkPicture) -> tuple[DrawnArrow, ...]:
    """Describe the arrows between the boxes."""
    return tuple(DrawnArrow(*each) for each in iterate_arrows(picture))


def describe_frames(picture: NetworkPicture) -> tuple[DrawnFrame, ...]:
    """Describe the frames around blocks, each outer one before those inside."""
    frames = {frame: None for box in picture.boxes for frame in _iterate_frames(box, picture)}
    return tuple(
        DrawnFrame(name, _format_frame_title(name, picture), find_outer_frame(name, picture)) for name in sorted(frames)
    )


def _describe_drawn_box(box: LayerBox, picture: NetworkPicture) -> DrawnBox:
    text = describe_box(box, picture.copies.get(box.name, 1))
    lines = (*text.settings, *([text.beside] if text.beside else []))
    details = (text.details,) if text.details else ()
    is_end = box.lines[0].kind in (INPUT, OUTPUT)
    frame = "" if is_end else find_frame(box.name, picture)
    return DrawnBox(box.name, text.title, find_family(box.lines[0].kind), lines, details, frame)


def _iterate_frames(box: LayerBox, picture: NetworkPicture) -> Iterator[str]:
    frame = find_frame(box.name, picture)
    while frame:
        yield frame
        frame = find_outer_frame(frame, picture)


def _format_frame_title(name: str, picture: NetworkPicture) -> str:
    count = picture.copies.get(name, 1)
    times = f" × {count}" if count > 1 else ""
    return f"{picture.container_types[name]}{times}"
