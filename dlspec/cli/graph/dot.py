"""A picture of a network as Graphviz's DOT, and drawn by it. All text from specs is escaped."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlspec.cli.graph.boxes import INPUT, OUTPUT, Box, Line
from dlspec.cli.graph.picture import Picture, holder_of
from dlspec.errors import UserError, shown
from dlspec.layouts import format_shape
from dlspec.runs.io import write_bytes

FORMATS = ("svg", "pdf", "png", "dot")
MOST_BOXES = 500
"""Laying out more takes minutes, and nobody could read it."""
LONGEST, MOST_LINES = 44, 4
"""Characters of a line of settings, and lines."""
GRAY, LINE, INK = "#64748b", "#94a3b8", "#0f172a"
# Fill and frame by the module that a layer comes from.
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
OTHER = ("#f8fafc", "#64748b")
CLUSTERS = ("#f8fafc", "#eef2f7")
"""The ground of a block, and of one in it, in turn."""


def draw(picture: Picture, path: Path) -> None:
    """Writes the picture as the path's ending says; UserError where it can't be drawn or written."""
    text = dot_of(picture)
    kind = path.suffix.removeprefix(".").lower()
    content = text.encode() if kind == "dot" else _rendered(text, kind)
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(f"can't write '{path}': {error.strerror}") from None


def check_path(path: Path) -> None:
    """UserError where no picture can be written there, or nothing can draw it: asked before a network is built."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        endings = ", ".join(f".{each}" for each in FORMATS)
        raise UserError(f"--graph: '{path}' ends with none of {endings}: write --graph network.svg")
    if not path.parent.is_dir():
        raise UserError(f"--graph: there is no folder '{path.parent}'")
    if kind != "dot":
        _graphviz()


def _graphviz() -> Any:
    try:
        import pygraphviz
    except ImportError:
        fix = "pip install 'dlspec[graph]', or write a .dot file for a program of your own"
        raise UserError(f"--graph draws with pygraphviz, which is not installed: {fix}") from None
    return pygraphviz


def _rendered(text: str, kind: str) -> bytes:
    content: bytes = _graphviz().AGraph(string=text).draw(format=kind, prog="dot")
    return content


# ---- as DOT --------------------------------------------------------------------------------------------------------


def dot_of(picture: Picture) -> str:
    """The picture in Graphviz's language. Boxes have numbers for names, so that no name from a spec is code."""
    if len(picture.boxes) > MOST_BOXES:
        found = f"the picture would have {len(picture.boxes):,} boxes, and {MOST_BOXES} are the most that are drawn"
        raise UserError(f"{found}: fold them, --depth 2")
    numbers = {box.name: f"n{at}" for at, box in enumerate(picture.boxes)}
    lines = [*_HEAD, *_cluster("", picture, numbers), *_arrows(picture, numbers), "}"]
    return "\n".join(lines) + "\n"


_HEAD = (
    "digraph network {",
    '  graph [rankdir=TB, nodesep=0.3, ranksep=0.35, fontname="Helvetica,Arial,sans-serif", fontsize=11, labeljust=l,'
    f' fontcolor="{INK}", bgcolor=white, pad=0.2];',
    '  node [shape=box, style="rounded,filled", penwidth=0.8, fontname="Helvetica,Arial,sans-serif", fontsize=11,'
    f' fontcolor="{INK}", margin="0.09,0.04", height=0.3];',
    f'  edge [color="{LINE}", arrowsize=0.6, fontname="Helvetica,Arial,sans-serif", fontsize=9, fontcolor="{GRAY}"];',
)


def _cluster(name: str, picture: Picture, numbers: Mapping[str, str], depth: int = 0) -> Iterator[str]:
    """The boxes that stand in a block, and the blocks in it; '' is the whole network."""
    inner: dict[str, None] = {}
    for box in picture.boxes:
        holder = _shown_holder(box.name, picture)
        if holder == name:
            yield f"  {numbers[box.name]} [{_box(box, picture.copies.get(box.name, 1))}];"
        child = _child(holder, name, picture)
        if child and child not in inner:
            inner[child] = None
            ground = CLUSTERS[depth % len(CLUSTERS)]
            yield f"  subgraph cluster_{numbers[box.name]}_{depth} {{"
            yield f'  style="rounded,filled"; fillcolor="{ground}"; color="{LINE}"; penwidth=0.6; margin=8;'
            yield f"  label=<{_cluster_label(child, picture)}>;"
            yield from _cluster(child, picture, numbers, depth + 1)
            yield "  }"


def _shown_holder(name: str, picture: Picture) -> str:
    """The innermost block or container around a box that has a frame; a Sequential only where it stands for copies."""
    holder = holder_of(name, picture.holders)
    while holder and picture.holders[holder] == "Sequential" and holder not in picture.copies:
        holder = _around(holder, picture)
    return holder


def _around(holder: str, picture: Picture) -> str:
    outer = holder.rpartition(".")[0]
    return _shown_holder(outer, picture) if outer else ""


def _child(holder: str, name: str, picture: Picture) -> str:
    """The block directly in `name` that `holder` is or stands in, '' where it does not stand there."""
    before = ""
    while holder and holder != name:
        before, holder = holder, _around(holder, picture)
    return before if holder == name else ""


def _cluster_label(name: str, picture: Picture) -> str:
    count = picture.copies.get(name, 1)
    times = f" × {count}" if count > 1 else ""
    return f"<B>{_text(picture.holders[name] + times)}</B>  {_small(name)}"


def _box(box: Box, copies: int) -> str:
    fill, frame = PALETTE.get(box.lines[0].kind, OTHER)
    shape = ", shape=ellipse" if box.lines[0].kind in (INPUT, OUTPUT) else ""
    return f'fillcolor="{fill}", color="{frame}"{shape}, label=<{_label(box, copies)}>'


def _label(box: Box, copies: int) -> str:
    kind = box.lines[0].kind
    if kind in (INPUT, OUTPUT):
        return _rows([f"<B>{_text(box.lines[0].type)}</B>", _small(format_shape(box.output.shape))])
    first, *beside = box.lines
    rows = _lines(first, copies)
    if beside:
        rows.append(_text(", ".join(" ".join([line.type, *_settings(line)]) for line in beside)))
    parameters = sum(line.parameters for line in box.lines)
    about = [f"{parameters:,} parameters"] if parameters else []
    about += [remark for remark in dict.fromkeys(line.remarks for line in box.lines) if remark]
    if about:
        rows.append(_small(", ".join(about)))
    return _rows(rows)


def _rows(rows: Iterable[str]) -> str:
    cells = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows)
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">{cells}</TABLE>'


def _lines(line: Line, copies: int) -> list[str]:
    """The layer's name, and its settings beside it or below."""
    name = f"<B>{_text(line.type + (f' × {copies}' if copies > 1 else ''))}</B>"
    told = _settings(line)
    if len(told) == 1 and len(told[0]) < LONGEST // 2:
        return [f"{name} {_text(told[0])}"]
    return [name, *map(_text, told)]


def _settings(line: Line) -> list[str]:
    """Names and values, as they were written, in lines that no setting is torn between; of a formula its text."""
    if line.type == "Formula":
        return textwrap.wrap(str(line.settings["formula"]), LONGEST)[:MOST_LINES]
    words = [f"{name} {shown(each, 30)}".replace(" ", "\0") for name, each in line.settings.items()]
    lines = textwrap.wrap(", ".join(words), LONGEST, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines[:MOST_LINES]]


def _arrows(picture: Picture, numbers: Mapping[str, str]) -> Iterator[str]:
    """What flows, with its shape where that is new."""
    boxes = {box.name: box for box in picture.boxes}
    for box in picture.boxes:
        for each in box.takes:
            source = boxes[each.layer]
            is_new = not source.takes or source.takes[0].value.shape != each.value.shape
            label = f" {format_shape(each.value.shape)}" if is_new and source.lines[0].kind != INPUT else ""
            word = f" {each.output}" if each.output and source.lines[0].kind != INPUT else ""
            told = f" [label=<{_text(word + label)}>]" if word + label else ""
            yield f"  {numbers[each.layer]} -> {numbers[box.name]}{told};"


def _small(text: str) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{GRAY}">{_text(text)}</FONT>' if text else ""


def _text(text: str) -> str:
    """Escaped for an HTML-like label, a sign in the place of what can't be printed, nor stand in XML."""
    return html.escape("".join(each if each.isprintable() else "\ufffd" for each in text))
