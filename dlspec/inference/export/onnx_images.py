"""Operators of ONNX that resize images of any size, as `dlspec.data.images.resizing` does."""

from __future__ import annotations

import numpy as np

from dlspec.data.images.resizing import Size
from dlspec.inference.export.file_inputs import ImageResize
from dlspec.inference.export.graph_editor import GraphEditor

Pair = tuple[str, str]  # of height and width, each an int64 of one number


def add_resizing(editor: GraphEditor, pixels: str, table: ImageResize) -> str:
    """Add what resizes images (N, H, W, C) of any size, and return the name of the result.

    Args:
        editor: the graph
        pixels: the name of the images
        table: the size and the way to get there
    """
    images = editor.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    images = editor.add("Cast", [images], to=editor.types.FLOAT)
    shape = editor.add("Shape", [images])
    old = (_pick(editor, shape, 2), _pick(editor, shape, 3))
    new = tuple(editor.add_constant(np.array([size], np.int64)) for size in table.size)
    if table.resize == "cover":
        kept = _find_cover(editor, table.size, old)
        images, old = _cut_center(editor, images, old, kept), kept
    inner = _scale_down(editor, table.size, old) if table.resize == "fit" else (new[0], new[1])
    images = editor.add("MatMul", [images, editor.add("Transpose", [_weigh(editor, old[1], inner[1])], perm=[1, 0])])
    images = _round_bytes(editor, images) if table.is_bytes else images
    images = editor.add("MatMul", [_weigh(editor, old[0], inner[0]), images])
    images = _round_bytes(editor, images) if table.is_bytes else images
    if table.resize == "fit":
        images = _pad_borders(editor, images, inner, (new[0], new[1]))
    images = editor.add("Transpose", [images], perm=[0, 2, 3, 1])
    return editor.add("Cast", [images], to=editor.types.UINT8) if table.is_bytes else images


def _round_bytes(editor: GraphEditor, images: str) -> str:
    """Round to whole numbers from 0 to 255, as PyTorch does after each direction."""
    low, high = editor.add_constant(np.float32(0)), editor.add_constant(np.float32(255))
    half = editor.add("Add", [images, editor.add_constant(np.float32(0.5))])
    return editor.add("Clip", [editor.add("Floor", [half]), low, high])


def _weigh(editor: GraphEditor, old: str, new: str) -> str:
    """Return the weight of each old pixel in each new one (new, old): a triangle, wider where images get smaller.

    ONNX's own Resize with antialiasing differs from PyTorch's by several levels.
    """
    half, one = editor.add_constant(np.float64(0.5)), editor.add_constant(np.float64(1))
    scale = _divide(editor, old, new)
    width = editor.add("Max", [scale, one])
    centers = editor.add("Mul", [editor.add("Add", [_count(editor, new), half]), scale])
    places = editor.add("Add", [_count(editor, old), half])
    column = editor.add("Unsqueeze", [centers, editor.add_constant(np.array([1], np.int64))])
    distance = editor.add("Div", [editor.add("Abs", [editor.add("Sub", [places, column])]), width])
    weights = editor.add("Max", [editor.add("Sub", [one, distance]), editor.add_constant(np.float64(0))])
    sums = editor.add("ReduceSum", [weights, editor.add_constant(np.array([1], np.int64))], keepdims=1)
    return editor.add("Cast", [editor.add("Div", [weights, sums])], to=editor.types.FLOAT)


def _count(editor: GraphEditor, size: str) -> str:
    """Return the numbers from 0 up to a size, in double precision."""
    zero, one = editor.add_constant(np.int64(0)), editor.add_constant(np.int64(1))
    numbers = editor.add("Range", [zero, editor.add("Squeeze", [size]), one])
    return editor.add("Cast", [numbers], to=editor.types.DOUBLE)


def _pick(editor: GraphEditor, shape: str, at: int) -> str:
    return editor.add("Gather", [shape, editor.add_constant(np.array([at], np.int64))])


def _divide(editor: GraphEditor, counts: str, by: str) -> str:
    """Divide whole numbers, in double precision."""
    one, other = (editor.add("Cast", [each], to=editor.types.DOUBLE) for each in (counts, by))
    return editor.add("Div", [one, other])


def _find_cover(editor: GraphEditor, size: Size, old: Pair) -> Pair:
    """Return the largest part with the new shape: the new size times the smaller ratio."""
    new = [editor.add_constant(np.array([each], np.int64)) for each in size]
    ratio = editor.add("Min", [_divide(editor, each, by) for each, by in zip(old, new, strict=True)])
    return _round_sizes(editor, (new[0], new[1]), ratio, old)


def _scale_down(editor: GraphEditor, size: Size, old: Pair) -> Pair:
    """Return the size of the whole image inside the new one."""
    new = [editor.add_constant(np.array([each], np.int64)) for each in size]
    ratio = editor.add("Min", [_divide(editor, each, by) for each, by in zip(new, old, strict=True)])
    return _round_sizes(editor, old, ratio, (new[0], new[1]))


def _round_sizes(editor: GraphEditor, sizes: Pair, ratio: str, largest: Pair) -> Pair:
    one = editor.add_constant(np.array([1], np.int64))
    found = []
    for size, most in zip(sizes, largest, strict=True):
        exact = editor.add("Mul", [editor.add("Cast", [size], to=editor.types.DOUBLE), ratio])
        rounded = editor.add("Cast", [editor.add("Round", [exact])], to=editor.types.INT64)
        found.append(editor.add("Min", [editor.add("Max", [rounded, one]), most]))
    return found[0], found[1]


def _halve_rest(editor: GraphEditor, whole: str, part: str) -> str:
    two = editor.add_constant(np.array([2], np.int64))
    return editor.add("Div", [editor.add("Sub", [whole, part]), two])


def _cut_center(editor: GraphEditor, images: str, old: Pair, kept: Pair) -> str:
    starts = [_halve_rest(editor, each, part) for each, part in zip(old, kept, strict=True)]
    ends = [editor.add("Add", [start, part]) for start, part in zip(starts, kept, strict=True)]
    axes = editor.add_constant(np.array([2, 3], np.int64))
    joined = [editor.add("Concat", each, axis=0) for each in (starts, ends)]
    return editor.add("Slice", [images, *joined, axes])


def _pad_borders(editor: GraphEditor, images: str, inner: Pair, whole: Pair) -> str:
    zeros = editor.add_constant(np.array([0, 0], np.int64))
    before = [_halve_rest(editor, each, part) for each, part in zip(whole, inner, strict=True)]
    after = [editor.add("Sub", [editor.add("Sub", [each, part]), start])
             for each, part, start in zip(whole, inner, before, strict=True)]  # fmt: skip
    return editor.add("Pad", [images, editor.add("Concat", [zeros, *before, zeros, *after], axis=0)])
