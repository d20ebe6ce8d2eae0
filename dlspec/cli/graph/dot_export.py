"""Export a picture of a network in Graphviz's DOT format, or drawn by Graphviz. All text from specs is escaped."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlspec.cli.graph.layer_boxes import INPUT, OUTPUT, BoxLine, LayerBox
from dlspec.cli.graph.network_picture import NetworkPicture, find_container
from dlspec.errors import UserError, format_value
from dlspec.layouts import format_shape
from dlspec.runs.io import write_bytes

FORMATS = ("svg", "pdf", "png", "dot")
# The layout of more boxes takes minutes, and the picture would be unreadable.
MAX_BOXES = 500
# A box shows at most this many characters in a line of settings, and at most this many such lines.
MAX_LINE_LENGTH, MAX_SETTING_LINES = 44, 4
GRAY_COLOR, LINE_COLOR, TEXT_COLOR = "#64748b", "#94a3b8", "#0f172a"
# Fill and frame color, by the module that defines a layer's class.
PALETTE: Mapping[str, tuple[str, str]] = {
    "conv": ("#dbeafe", "#3b82f6"),
    "linear": ("#e0e7ff", "#6366f1"),
    "sparse": ("#dcfce7", "#22c55e"),
    "positions": ("#dcfce7", "#22c55e"),
    "parameter": ("#dcfce7", "#22c55e"),
    "attention": ("#fae8ff", "#c026d3"),
    "transformer": ("#fae8ff", "#c026d3"),
    "recurrent": ("#fae8ff", "#c026d3"),
    "pooling": ("#fef3c7", "#d97706"),
    "reducing": ("#fef3c7", "#d97706"),
    "upsampling": ("#fef3c7", "#d97706"),
    "merging": ("#ffe4e6", "#e11d48"),
    "folded": ("#f1f5f9", "#475569"),
    "input": ("#ffffff", "#0f172a"),
    "output": ("#ffffff", "#0f172a"),
}
OTHER_COLORS = ("#f8fafc", "#64748b")
# Background colors of blocks, alternating with the depth of nesting.
CLUSTER_COLORS = ("#f8fafc", "#eef2f7")


def write_picture(picture: NetworkPicture, path: Path) -> None:
    """Write a picture in the format of the file's extension; raise UserError if it can't be drawn or written."""
    text = format_dot(picture)
    kind = path.suffix.removeprefix(".").lower()
    content = text.encode(errors="replace") if kind == "dot" else _render(text, kind)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"can't write '{path}': {error.strerror}") from None


def check_picture_path(path: Path) -> None:
    """Raise UserError if a picture can't be written to this path or pygraphviz is missing; called before building."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise UserError(f"--graph: '{path}' must end with one of {endings}: write --graph network.svg")
    if not path.parent.is_dir():
        raise UserError(f"--graph: folder '{path.parent}' does not exist")
    if kind != "dot":
        _import_pygraphviz()


def _import_pygraphviz() -> Any:
    try:
        import pygraphviz
    except ImportError:
        fix = "pip install 'dlspec[graph]', or write a .dot file and draw it with another program"
        raise UserError(f"--graph needs pygraphviz, which is not installed: {fix}") from None
    return pygraphviz


def _render(text: str, kind: str) -> bytes:
    content: bytes = _import_pygraphviz().AGraph(string=text).draw(format=kind, prog="dot")
    return content


# ---- DOT -----------------------------------------------------------------------------------------------------------


def format_dot(picture: NetworkPicture) -> str:
    """Format a picture in the DOT language. Boxes are named by numbers, so that names from a spec can't be DOT code."""
    if len(picture.boxes) > MAX_BOXES:
        found = f"the picture would have {len(picture.boxes):,} boxes, the maximum is {MAX_BOXES}"
        raise UserError(f"{found}: fold them with --depth 2")
    numbers = {box.name: f"n{at}" for at, box in enumerate(picture.boxes)}
    lines = [*_HEADER_LINES, *_format_block_frame("", picture, numbers), *_format_arrows(picture, numbers), "}"]
    return "\n".join(lines) + "\n"


_HEADER_LINES = (
    "digraph network {",
    '  graph [rankdir=TB, nodesep=0.3, ranksep=0.35, fontname="Helvetica,Arial,sans-serif", fontsize=11, labeljust=l,'
    f' fontcolor="{TEXT_COLOR}", bgcolor=white, pad=0.2];',
    '  node [shape=box, style="rounded,filled", penwidth=0.8, fontname="Helvetica,Arial,sans-serif", fontsize=11,'
    f' fontcolor="{TEXT_COLOR}", margin="0.09,0.04", height=0.3];',
    f'  edge [color="{LINE_COLOR}", arrowsize=0.6, fontname="Helvetica,Arial,sans-serif", fontsize=9,'
    f' fontcolor="{GRAY_COLOR}"];',
)


def _format_block_frame(
    name: str, picture: NetworkPicture, numbers: Mapping[str, str], depth: int = 0
) -> Iterator[str]:
    """Format the boxes in a block and its inner blocks; the name '' is the whole network."""
    inner: dict[str, None] = {}
    for box in picture.boxes:
        container = _find_framed_container(box.name, picture)
        if container == name:
            yield f"  {numbers[box.name]} [{_format_box(box, picture.copies.get(box.name, 1))}];"
        child = _find_inner_container(container, name, picture)
        if child and child not in inner:
            inner[child] = None
            ground = CLUSTER_COLORS[depth % len(CLUSTER_COLORS)]
            yield f"  subgraph cluster_{numbers[box.name]}_{depth} {{"
            yield f'  style="rounded,filled"; fillcolor="{ground}"; color="{LINE_COLOR}"; penwidth=0.6; margin=8;'
            yield f"  label=<{_format_cluster_label(child, picture)}>;"
            yield from _format_block_frame(child, picture, numbers, depth + 1)
            yield "  }"


def _find_framed_container(name: str, picture: NetworkPicture) -> str:
    """Find the innermost block or container around a box that is drawn as a frame.

    A Sequential has a frame only if it represents multiple copies.
    """
    container = find_container(name, picture.container_types)
    while container and picture.container_types[container] == "Sequential" and container not in picture.copies:
        container = _find_outer_container(container, picture)
    return container


def _find_outer_container(container: str, picture: NetworkPicture) -> str:
    outer = container.rpartition(".")[0]
    return _find_framed_container(outer, picture) if outer else ""


def _find_inner_container(container: str, name: str, picture: NetworkPicture) -> str:
    """Find the block directly in `name` that is `container` or contains it; '' if `container` is not inside `name`."""
    before = ""
    while container and container != name:
        before, container = container, _find_outer_container(container, picture)
    return before if container == name else ""


def _format_cluster_label(name: str, picture: NetworkPicture) -> str:
    count = picture.copies.get(name, 1)
    times = f" × {count}" if count > 1 else ""
    return f"<B>{_escape(picture.container_types[name] + times)}</B>  {_format_small_text(name)}"


def _format_box(box: LayerBox, copies: int) -> str:
    fill, frame = PALETTE.get(box.lines[0].kind, OTHER_COLORS)
    shape = ", shape=ellipse" if box.lines[0].kind in (INPUT, OUTPUT) else ""
    return f'fillcolor="{fill}", color="{frame}"{shape}, label=<{_format_label(box, copies)}>'


def _format_label(box: LayerBox, copies: int) -> str:
    kind = box.lines[0].kind
    if kind in (INPUT, OUTPUT):
        return _format_rows(
            [f"<B>{_escape(box.lines[0].type)}</B>", _format_small_text(format_shape(box.output.shape))]
        )
    first, *beside = box.lines
    rows = _format_layer(first, copies)
    if beside:
        rows.append(_escape(", ".join(" ".join([line.type, *_wrap_settings(line)]) for line in beside)))
    parameters = sum(line.parameters for line in box.lines)
    about = [f"{parameters:,} parameters"] if parameters else []
    about += [remark for remark in dict.fromkeys(line.remarks for line in box.lines) if remark]
    if about:
        rows.append(_format_small_text(", ".join(about)))
    return _format_rows(rows)


def _format_rows(rows: Iterable[str]) -> str:
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _format_layer(line: BoxLine, copies: int) -> list[str]:
    """Format a layer's name with its settings, on the same line if they are short."""
    name = f"<B>{_escape(line.type + (f' × {copies}' if copies > 1 else ''))}</B>"
    settings = _wrap_settings(line)
    if len(settings) == 1 and len(settings[0]) < MAX_LINE_LENGTH // 2:
        return [f"{name} {_escape(settings[0])}"]
    return [name, *map(_escape, settings)]


def _wrap_settings(line: BoxLine) -> list[str]:
    """Format settings as in the spec, wrapped between settings; for a Formula its expression."""
    if line.type == "Formula":
        return textwrap.wrap(str(line.settings["formula"]), MAX_LINE_LENGTH)[:MAX_SETTING_LINES]
    words = [f"{name} {format_value(each, 30)}".replace(" ", "\0") for name, each in line.settings.items()]
    lines = textwrap.wrap(", ".join(words), MAX_LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines[:MAX_SETTING_LINES]]


def _format_arrows(picture: NetworkPicture, numbers: Mapping[str, str]) -> Iterator[str]:
    """Format the arrows between boxes, labeled with the shape unless the source box keeps the shape of its input."""
    boxes = {box.name: box for box in picture.boxes}
    for box in picture.boxes:
        for each in box.takes:
            source = boxes[each.layer]
            is_new = not source.takes or source.takes[0].value.shape != each.value.shape
            label = f" {format_shape(each.value.shape)}" if is_new and source.lines[0].kind != INPUT else ""
            output = f" {each.output}" if each.output and source.lines[0].kind != INPUT else ""
            attributes = f" [label=<{_escape(output + label)}>]" if output + label else ""
            yield f"  {numbers[each.layer]} -> {numbers[box.name]}{attributes};"


def _format_small_text(text: str) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{GRAY_COLOR}">{_escape(text)}</FONT>' if text else ""


def _escape(text: str) -> str:
    """Escape text for an HTML-like label; unprintable characters, which XML may not allow, are replaced."""
    return html.escape("".join(each if each.isprintable() else "\ufffd" for each in text))
