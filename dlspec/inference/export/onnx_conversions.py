"""What an ONNX file does before and after the traced network: strings to numbers, images resized, classes to labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlspec.data.prepare.vocabulary import PADDING, UNKNOWN
from dlspec.inference.export.exported_model import INDEX, ExportedModel, ModelOutput
from dlspec.inference.export.file_inputs import SIZES, CategoryTable, ImageResize, RawInput, TextTable
from dlspec.inference.export.graph_editor import CONTRIB, ML, GraphEditor
from dlspec.inference.export.model_tracing import BATCH
from dlspec.inference.export.onnx_images import add_resizing

# As `dlspec.data.prepare.vocabulary.WORD`, in the syntax of RE2: letters, digits and _, or one other character.
WORD_PATTERN = r"[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s\x0b\x1c-\x1f\x{85}\p{Z}]"
CHARACTER_PATTERN = "(?s)."
LOCALE = "C.UTF-8"  # for lower case; in every glibc since 2.35, and older Debian and Ubuntu
MAX_STEPS = 2**62


def add_raw_inputs(model: Any, exported: ExportedModel) -> None:
    """Make a traced model take strings and images of any size, and return labels.

    Args:
        model: the message of the file; it is changed
        exported: what was traced
    """
    editor = GraphEditor(model)
    given: list[str] = []  # inputs that are computed now
    inputs = list(exported.inputs)
    for at, each in enumerate(inputs):
        if isinstance(each.conversion, CategoryTable):
            _add_categories(editor, each, each.conversion)
            given.append(each.name)
        elif isinstance(each.conversion, TextTable):
            lengths = inputs[at + 1].name if at + 1 < len(inputs) and inputs[at + 1].name.endswith("_lengths") else ""
            _add_text(editor, each, each.conversion, lengths)
            given += [each.name, lengths]
        elif isinstance(each.conversion, ImageResize):
            editor.rename_node_output(add_resizing(editor, each.name, each.conversion), name_traced_input(each))
            given.append(each.name)
    _replace_inputs(editor, exported, given)
    for output in exported.outputs:
        _add_labels(editor, output)
    editor.finish()


def name_traced_input(each: RawInput) -> str:
    """Return the name of an input in the traced graph: another than that of its column of strings."""
    return f"{each.name} as numbers" if each.conversion is not None else each.name


def _add_categories(editor: GraphEditor, each: RawInput, table: CategoryTable) -> None:
    keys = list(table.numbers)
    settings: dict[str, Any] = {"keys_strings": keys}
    if table.is_float:
        settings |= {"values_floats": list(table.numbers.values()), "default_float": table.default}
    else:
        settings |= {"values_int64s": [int(number) for number in table.numbers.values()],
                     "default_int64": int(table.default)}  # fmt: skip
    made = editor.add("LabelEncoder", [each.column], ML, **settings)
    editor.rename_node_output(made, name_traced_input(each))


def _add_text(editor: GraphEditor, each: RawInput, table: TextTable, lengths: str) -> None:
    """Add what splits texts (N,) and looks the pieces up: tokens (N, T), and lengths (N,)."""
    text = each.column
    if table.lowercase:
        text = editor.add("StringNormalizer", [text], case_change_action="LOWER", is_case_sensitive=1, locale=LOCALE)
    pattern = WORD_PATTERN if table.form == "words" else CHARACTER_PATTERN
    pieces = editor.add("Tokenizer", [text], CONTRIB, mark=0, pad_value="", mincharnum=1, tokenexp=pattern)
    one = editor.add_constant(np.array([1], np.int64))
    ids = editor.add("LabelEncoder", [pieces], ML, keys_strings=["", *table.tokens],
                     values_int64s=[PADDING, *table.tokens.values()], default_int64=UNKNOWN)  # fmt: skip
    end = editor.add_constant(np.array([table.length], np.int64))
    ids = editor.add("Slice", [ids, editor.add_constant(np.array([0], np.int64)), end, one])
    counts = _count_tokens(editor, ids)
    ids = _mark_empty_texts(editor, ids, counts, each.fewest_steps)
    if isinstance(_find_steps(editor, each), int):
        ids = _pad(editor, ids, table.length)
    editor.rename_node_output(ids, name_traced_input(each))
    if lengths:
        editor.rename_node_output(editor.add("Max", [counts, one]), lengths)


def _find_steps(editor: GraphEditor, each: RawInput) -> int | str:
    """Return the number of steps that the traced network takes; a name if it may differ."""
    (found,) = (value for value in editor.graph.input if value.name == name_traced_input(each))
    size = found.type.tensor_type.shape.dim[1]
    return int(size.dim_value) if size.HasField("dim_value") else str(size.dim_param)


def _count_tokens(editor: GraphEditor, ids: str) -> str:
    """Count the tokens (N, T) that are not padding, (N,)."""
    zero = editor.add_constant(np.array([PADDING], np.int64))
    is_padding = editor.add("Equal", [ids, zero])
    is_token = editor.add("Cast", [editor.add("Not", [is_padding])], to=editor.types.INT64)
    axes = editor.add_constant(np.array([1], np.int64))
    return editor.add("ReduceSum", [is_token, axes], keepdims=0)


def _mark_empty_texts(editor: GraphEditor, ids: str, counts: str, fewest: int) -> str:
    """Give a text without tokens the unknown token, and every batch as many steps as the network needs."""
    one = editor.add_constant(np.array([1], np.int64))
    zero = editor.add_constant(np.array([0], np.int64))
    is_empty = editor.add("Cast", [editor.add("Equal", [counts, zero])], to=editor.types.INT64)
    column = editor.add("Unsqueeze", [is_empty, one])  # (N, 1): 1, the unknown token, for an empty text
    pads = editor.add_constant(np.array([0, 0, 0, fewest], np.int64))
    padded = editor.add("Pad", [ids, pads, editor.add_constant(np.int64(PADDING))])  # (N, T + fewest)
    first = editor.add("Slice", [padded, zero, one, one])
    rest = editor.add("Slice", [padded, one, editor.add_constant(np.array([MAX_STEPS], np.int64)), one])
    marked = editor.add("Add", [first, column])
    joined = editor.add("Concat", [marked, rest], axis=1)
    longest = editor.add("ReduceMax", [editor.add("Max", [counts, editor.add_constant(np.int64(fewest))])], keepdims=1)
    return editor.add("Slice", [joined, zero, longest, one])


def _pad(editor: GraphEditor, ids: str, length: int) -> str:
    """Pad tokens (N, T) to a fixed number of steps."""
    pads = editor.add_constant(np.array([0, 0, 0, length], np.int64))
    padded = editor.add("Pad", [ids, pads, editor.add_constant(np.int64(PADDING))])
    numbers = [editor.add_constant(np.array([each], np.int64)) for each in (0, length, 1)]
    return editor.add("Slice", [padded, *numbers])


def _replace_inputs(editor: GraphEditor, exported: ExportedModel, given: Sequence[str]) -> None:
    """Replace the inputs that are computed now by the columns of strings that they are made of."""
    names = {name_traced_input(each): each for each in exported.inputs}
    kept = [value for value in editor.graph.input if value.name in names and names[value.name].name not in given]
    converted = [each for each in exported.inputs if each.conversion is not None]
    columns = {each.column: _describe_column(editor, each) for each in converted}
    order = [each.column if each.conversion is not None else each.name for each in exported.inputs]
    found = {**{value.name: value for value in kept}, **columns}
    del editor.graph.input[:]
    editor.graph.input.extend(found[name] for name in dict.fromkeys(order) if name in found)


def _describe_column(editor: GraphEditor, each: RawInput) -> Any:
    """Describe an input of the file that a traced input is made of."""
    if not isinstance(each.conversion, ImageResize):
        return editor.helper.make_tensor_value_info(each.column, editor.types.STRING, [BATCH])
    kind = editor.types.UINT8 if each.conversion.is_bytes else editor.types.FLOAT
    return editor.helper.make_tensor_value_info(each.column, kind, [BATCH, *SIZES, each.shape[-1]])


def _add_labels(editor: GraphEditor, output: ModelOutput) -> None:
    """Add the labels of classes as strings, under the target's own name."""
    if not output.name.endswith(f".{INDEX}"):
        return
    (index,) = (value for value in editor.graph.output if value.name == output.name)
    shape = [each.dim_param or each.dim_value for each in index.type.tensor_type.shape.dim]
    if len(shape) > 2:  # the classes of pixels stay numbers, as in a mask
        return
    labels = editor.add("LabelEncoder", [output.name], ML, is_last=True, keys_int64s=list(range(len(output.classes))),
                        values_strings=list(output.classes), default_string="")  # fmt: skip
    name = output.name.removesuffix(f".{INDEX}")
    editor.rename_node_output(labels, name)
    editor.graph.output.append(editor.helper.make_tensor_value_info(name, editor.types.STRING, shape))
