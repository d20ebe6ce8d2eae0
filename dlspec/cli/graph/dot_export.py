"""Export a picture of a network in Graphviz's DOT format, or drawn by Graphviz. All text from specs is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlspec.cli.graph.box_texts import MAX_LINE_LENGTH, describe_box, find_family, iterate_arrows
from dlspec.cli.graph.frames import find_frame, find_inner_frame
from dlspec.cli.graph.layer_boxes import INPUT, OUTPUT, LayerBox
from dlspec.cli.graph.network_picture import NetworkPicture
from dlspec.errors import UserError
from dlspec.runs.io import write_bytes

FORMATS = ("svg", "pdf", "png", "dot")
# The layout of more boxes takes minutes, and the picture would be unreadable.
MAX_BOXES = 500
GRAY_COLOR, LINE_COLOR, TEXT_COLOR = "#64748b", "#94a3b8", "#0f172a"
# Fill and frame color of each family of layers.
PALETTE: Mapping[str, tuple[str, str]] = {
    "convolution": ("#dbeafe", "#3b82f6"),
    "linear": ("#e0e7ff", "#6366f1"),
    "table": ("#dcfce7", "#22c55e"),
    "sequence": ("#fae8ff", "#c026d3"),
    "resizing": ("#fef3c7", "#d97706"),
    "joining": ("#ffe4e6", "#e11d48"),
    "block": ("#f1f5f9", "#475569"),
    "end": ("#ffffff", "#0f172a"),
    "other": ("#f8fafc", "#64748b"),
}
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
        container = find_frame(box.name, picture)
        if container == name:
            yield f"  {numbers[box.name]} [{_format_box(box, picture.copies.get(box.name, 1))}];"
        child = find_inner_frame(container, name, picture)
        if child and child not in inner:
            inner[child] = None
            ground = CLUSTER_COLORS[depth % len(CLUSTER_COLORS)]
            yield f"  subgraph cluster_{numbers[box.name]}_{depth} {{"
            yield f'  style="rounded,filled"; fillcolor="{ground}"; color="{LINE_COLOR}"; penwidth=0.6; margin=8;'
            yield f"  label=<{_format_cluster_label(child, picture)}>;"
            yield from _format_block_frame(child, picture, numbers, depth + 1)
            yield "  }"


def _format_cluster_label(name: str, picture: NetworkPicture) -> str:
    count = picture.copies.get(name, 1)
    times = f" × {count}" if count > 1 else ""
    return f"<B>{_escape(picture.container_types[name] + times)}</B>  {_format_small_text(name)}"


def _format_box(box: LayerBox, copies: int) -> str:
    fill, frame = PALETTE[find_family(box.lines[0].kind)]
    shape = ", shape=ellipse" if box.lines[0].kind in (INPUT, OUTPUT) else ""
    return f'fillcolor="{fill}", color="{frame}"{shape}, label=<{_format_label(box, copies)}>'


def _format_label(box: LayerBox, copies: int) -> str:
    text = describe_box(box, copies)
    name = f"<B>{_escape(text.title)}</B>"
    first, *more = text.settings or ("",)
    is_short = not more and 0 < len(first) < MAX_LINE_LENGTH // 2
    rows = [f"{name} {_escape(first)}"] if is_short else [name, *map(_escape, text.settings)]
    rows += [_escape(each) for each in (text.beside,) if each]
    rows += [_format_small_text(each) for each in (text.details,) if each]
    return _format_rows(rows)


def _format_rows(rows: Iterable[str]) -> str:
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _format_arrows(picture: NetworkPicture, numbers: Mapping[str, str]) -> Iterator[str]:
    for source, target, label in iterate_arrows(picture):
        attributes = f" [label=<{_escape(f' {label}')}>]" if label else ""
        yield f"  {numbers[source]} -> {numbers[target]}{attributes};"


def _format_small_text(text: str) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{GRAY_COLOR}">{_escape(text)}</FONT>' if text else ""


def _escape(text: str) -> str:
    """Escape text for an HTML-like label; unprintable characters, which XML may not allow, are replaced."""
    return html.escape("".join(each if each.isprintable() else "\ufffd" for each in text))
