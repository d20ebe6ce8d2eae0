"""Exported files from strangers: damaged, with weights elsewhere or too large. Each is refused in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlspec.cli.commands.predict_with_file import main
from dlspec.data.encoding.fields import FieldPlan
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.prepare.kinds.number import Number
from dlspec.errors import UserError
from dlspec.inference.onnx_files.model_reading import read_exported_file
from helpers.command_line import CommandResult
from helpers.onnx_models import make_exported_model, write_model

MUTATIONS = 200
MUTATE = """
import random, sys
from pathlib import Path
from dlspec.errors import DataError, UserError
from dlspec.cli.commands.predict_with_file import main
content, numbers = Path(sys.argv[1]).read_bytes(), random.Random(0)
refused = 0
for _ in range(int(sys.argv[2])):
    changed = bytearray(content)
    for _ in range(numbers.randint(1, 4)):
        changed[numbers.randrange(len(changed))] = numbers.randrange(256)
    cut = changed[: numbers.randrange(len(changed))] if numbers.random() < 0.2 else changed
    Path("mutated.onnx").write_bytes(bytes(cut))
    try:
        main(["file=mutated.onnx", f"input={sys.argv[3]}", "output=out.csv"])
    except (UserError, DataError) as error:
        assert "\\n" not in str(error), error
        refused += 1
print(refused)
"""


def make_message(values: np.ndarray | None = None) -> onnx.ModelProto:
    """An exported file that doubles a number."""
    weights = numpy_helper.from_array(np.array([2], np.float32) if values is None else values, "weights")
    column = Number().fit(np.array([1.0, 2.0, 5.0]), np.arange(3))
    price = helper.make_tensor_value_info("price", TensorProto.FLOAT, ["batch"])
    return make_exported_model(
        [helper.make_node("Mul", ["age", "weights"], ["price"])],
        [helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch"])],
        {"price": (price, "price", ())},
        FittedTable({"age": column}, {}, (FieldPlan("features", ("age",), "features"),)),
        {"type": "table", "path": "train.csv", "target": "price"},
        [weights],
    )


@pytest.fixture
def rows(work: Path) -> str:
    (work / "rows.csv").write_text("age\n3\nx\n\n4.5\n", encoding="utf-8")
    return "rows.csv"


def test_rows_that_can_not_be_read_are_named(dlspec: Callable[..., CommandResult], rows: str) -> None:
    write_model(make_message())
    said = dlspec("predict", "file=model.onnx", f"input={rows}", "output=out.csv")
    assert said.code == 3 and "rows.csv:3: age: 'x' is not a number" in said.err
    lines = Path("out.csv").read_text(encoding="utf-8").splitlines()
    assert [lines[1].split(",")[1], lines[2].split(",")[1]] == ["6.0", ""]


def _keep_weights_elsewhere(message: onnx.ModelProto) -> None:
    tensor = message.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def _declare_huge_weights(message: onnx.ModelProto) -> None:
    message.graph.initializer[0].dims[:] = [2**20, 2**20]


def _hide_weights_in_an_attribute(message: onnx.ModelProto) -> None:
    tensor = TensorProto(data_type=1, dims=[2**40])
    message.graph.node.append(helper.make_node("Constant", [], ["other"], value=tensor))


def _take_an_operator_of_others(message: onnx.ModelProto) -> None:
    message.graph.node[0].domain = "evil.example"


def _run_for_ever(message: onnx.ModelProto) -> None:
    message.graph.node[0].op_type = "Loop"


def _make_much_of_nothing(message: onnx.ModelProto) -> None:
    message.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "size"))
    message.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["much"]))


def _damage_a_text(message: onnx.ModelProto) -> None:
    message.metadata_props[1].value = "[" * 100_000


def _remove_the_texts(message: onnx.ModelProto) -> None:
    del message.metadata_props[:]


def _make_columns_strange(message: onnx.ModelProto) -> None:
    texts = {each.key: each for each in message.metadata_props}
    texts["dlspec.preparation"].value = json.dumps({"columns": {"age": {"kind": "number", "cells": 5}}})


def _take_a_kind_of_others(message: onnx.ModelProto) -> None:
    texts = {each.key: each for each in message.metadata_props}
    texts["dlspec.preparation"].value = json.dumps({"columns": {"age": {"kind": "nifti"}}})


def _take_a_source_of_others(message: onnx.ModelProto) -> None:
    texts = {each.key: each for each in message.metadata_props}
    texts["dlspec.spec"].value = json.dumps({"data": {"type": "clinic", "path": "/etc/passwd"}})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_keep_weights_elsewhere, "keeps weights in other files, which are not read"),
        (_declare_huge_weights, "a tensor of 1048576 x 1048576 numbers does not fit into its"),
        (_hide_weights_in_an_attribute, "a tensor of 1099511627776 numbers does not fit into its"),
        (_take_an_operator_of_others, "has operators of 'evil.example', which export never writes"),
        (_run_for_ever, "has the operator Loop, which export never writes"),
        (_make_much_of_nothing, "makes 1,099,511,627,776 numbers of nothing"),
        (_damage_a_text, "is not JSON"),
        (_remove_the_texts, "was not written by dlspec export"),
        (_take_a_kind_of_others, "'age' is of the kind 'nifti', which file= can't read; predict with run=FOLDER"),
        (_take_a_source_of_others, "the file's data.type 'clinic' is not one of dlspec's own; predict with run=FOLDER"),
        (_make_columns_strange, "the preparation of the file is damaged"),
    ],
)
def test_what_a_file_may_not_have(change: Callable[[onnx.ModelProto], None], reason: str, rows: str) -> None:
    message = make_message()
    change(message)
    with pytest.raises(UserError, match=reason) as caught:
        main([f"file={write_model(message)}", f"input={rows}", "output=out.csv"])
    assert "\n" not in str(caught.value) and not Path("out.csv").exists()


def test_what_is_not_a_file_is_not_read(work: Path) -> None:
    os.mkfifo("pipe.onnx")
    Path("link.onnx").symlink_to(write_model(make_message()))
    Path("text.onnx").write_text("not a model", encoding="utf-8")
    for name, reason in (("pipe.onnx", "can't read"), ("link.onnx", "can't read"), ("text.onnx", "not a complete ONNX"),
                         ("none.onnx", "No such file")):  # fmt: skip
        with pytest.raises(UserError, match=reason):
            read_exported_file(name)


def test_mutated_files_are_refused_or_computed(rows: str) -> None:
    run_mutations(write_model(make_message()), rows, MUTATIONS)


def run_mutations(file: str, rows: str, count: int) -> None:
    """Predict with changed files in a process that a crash would end."""
    found = subprocess.run(
        [sys.executable, "-c", MUTATE, file, str(count), rows], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert int(found.stdout.splitlines()[-1]) > count // 4
