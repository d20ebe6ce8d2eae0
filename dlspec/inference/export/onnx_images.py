"""Operators of ONNX that resize images of any size, as `dlspec.data.images.resizing` does."""

from __future__ import annotations

import numpy as np

from dlspec.data.images.resizing import Size
from dlspec.inference.export.file_inputs import ImageResize
from dlspec.inference.export.graph_editor import GraphEditor

Pair = tuple[str, str]  # of height and width, each an int64 of one number
MAX_WEIGHT_BITS = 22  # of PyTorch's weights for bytes


def add_resizing(editor: GraphEditor, pixels: str, table: ImageResize) -> str:
    """Add what resizes images (N, H, W, C) of any size, and return the name of the result.

    Args:
        editor: the graph
        pixels: the name of the images
        table: the size and the way to get there
    """
    images = editor.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    images = editor.add("Cast", [images], to=editor.types.DOUBLE)
    shape = editor.add("Shape", [images])
    old = (_pick(editor, shape, 2), _pick(editor, shape, 3))
    new = tuple(editor.add_constant(np.array([size], np.int64)) for size in table.size)
    if table.resize == "cover":
        kept = _find_cover(editor, table.size, old)
        images, old = _cut_center(editor, images, old, kept), kept
    inner = _scale_down(editor, table.size, old) if table.resize == "fit" else (new[0], new[1])
    for axis, (one, other) in ((3, (old[1], inner[1])), (2, (old[0], inner[0]))):
        weights = _weigh(editor, one, other)
        images = (_resize_bytes if table.is_bytes else _multiply)(editor, images, weights, axis)
    if table.resize == "fit":
        images = _pad_borders(editor, images, inner, (new[0], new[1]))
    images = editor.add("Transpose", [images], perm=[0, 2, 3, 1])
    return editor.add("Cast", [images], to=editor.types.UINT8 if table.is_bytes else editor.types.FLOAT)


def _multiply(editor: GraphEditor, images: str, weights: str, axis: int) -> str:
    """Multiply the last or the last but one axis of images (N, C, H, W) by weights (new, old)."""
    if axis == 2:
        return editor.add("MatMul", [weights, images])
    return editor.add("MatMul", [images, editor.add("Transpose", [weights], perm=[1, 0])])


def _resize_bytes(editor: GraphEditor, images: str, weights: str, axis: int) -> str:
    """Multiply as PyTorch does for bytes: by weights of 16 bits, with the result rounded to a byte."""
    half = editor.add_constant(np.float64(0.5))
    scale = _find_scale(editor, weights)
    whole = editor.add("Floor", [editor.add("Add", [editor.add("Mul", [weights, scale]), half])])
    exact = editor.add("Div", [_multiply(editor, images, whole, axis), scale])
    rounded = editor.add("Floor", [editor.add("Add", [exact, half])])
    return editor.add("Clip", [rounded, editor.add_constant(np.float64(0)), editor.add_constant(np.float64(255))])


def _find_scale(editor: GraphEditor, weights: str) -> str:
    """Return the largest power of two by which all weights stay below 2 ** 15, rounded; at most 2 ** 22."""
    half, limit = editor.add_constant(np.float64(0.5)), editor.add_constant(np.float64(2**15))
    powers = 2.0 ** np.arange(MAX_WEIGHT_BITS + 1)
    largest = editor.add("ReduceMax", [weights], keepdims=0)
    scaled = editor.add("Add", [editor.add("Mul", [largest, editor.add_constant(powers[1:])]), half])
    fits = editor.add("Cast", [editor.add("Less", [editor.add("Floor", [scaled]), limit])], to=editor.types.INT64)
    return editor.add("Gather", [editor.add_constant(powers), editor.add("ReduceSum", [fits], keepdims=0)])


def _weigh(editor: GraphEditor, old: str, new: str) -> str:
    """Return the weight of each old pixel in each new one (new, old): a triangle, wider where images get smaller.

    ONNX's own Resize with antialiasing differs from PyTorch's by several levels.
    """
    half, one = editor.add_constant(np.float64(0.5)), editor.add_constant(np.float64(1))
    scale = _divide(editor, old, new)
    narrow = editor.add("Div", [one, editor.add("Max", [scale, one])])
    centers = editor.add("Mul", [editor.add("Add", [_count(editor, new), half]), scale])
    column = editor.add("Unsqueeze", [centers, editor.add_constant(np.array([1], np.int64))])
    distance = editor.add("Abs", [editor.add("Add", [editor.add("Sub", [_count(editor, old), column]), half])])
    height = editor.add("Sub", [one, editor.add("Mul", [distance, narrow])])
    weights = editor.add("Max", [height, editor.add_constant(np.float64(0))])
    sums = editor.add("ReduceSum", [weights, editor.add_constant(np.array([1], np.int64))], keepdims=1)
    return editor.add("Div", [weights, sums])


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
