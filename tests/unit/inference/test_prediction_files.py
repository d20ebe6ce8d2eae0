"""Files of predictions: what pandas and the json module read from them, and what a failure leaves behind."""

from __future__ import annotations

import csv
import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlspec.errors import UserError
from dlspec.inference.output.number_formats import shorten_float32
from dlspec.inference.output.prediction_files import check_output, open_prediction_file
from dlspec.jobs.error_reporting import message_and_exit_code

COLUMNS: dict[str, Any] = {
    "id": ["a", "=1+1", "-5", "x,\ny", None],
    "churned": ["yes", "no", None, "yes", "no"],
    "churned.yes": np.array([0.3, 1e-9, np.nan, 1.0, 0.25], np.float32),
    "count": [1, 2, 3, 4, None],
    "tags": [["B", "I"], [], ["é"], None, ["O"]],
}


def write_file(path: Path, *chunks: tuple[dict[str, Any], dict[int, str]]) -> None:
    with open_prediction_file(str(path)) as writer:
        for columns, problems in chunks:
            writer.write(columns, problems)


def take(columns: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {name: values[rows] for name, values in columns.items()}


def test_csv_is_what_pandas_reads(tmp_path: Path) -> None:
    columns = {**COLUMNS, "churned.yes": [0.3, 1e-9, None, 1.0, 0.25]}
    write_file(tmp_path / "out.csv", (take(columns, slice(0, 2)), {}), (take(columns, slice(2, 5)), {}))
    found = pd.read_csv(tmp_path / "out.csv", dtype={"id": str})
    assert list(found) == list(columns)
    assert found["id"].tolist()[:4] == ["a", "'=1+1", "-5", "x,\ny"]
    assert found["churned.yes"].tolist()[:2] == [0.3, 1e-9]
    assert np.isnan(found["churned.yes"][2])
    assert json.loads(found["tags"][0]) == ["B", "I"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out.csv"]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_later_problem_adds_a_column(tmp_path: Path, ending: str) -> None:
    chunks = [({"row": [1, 2], "text": ['say "hi"', "a\nb"]}, {}), ({"row": [3], "text": [None]}, {0: "bad cell"})]
    write_file(tmp_path / f"out{ending}", *chunks)
    with (tmp_path / f"out{ending}").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="," if ending == ".csv" else "\t"))
    assert rows == [["row", "text", "problem"], ["1", 'say "hi"', ""], ["2", "a\nb", ""], ["3", "", "bad cell"]]


def test_json_lines_keep_types(tmp_path: Path) -> None:
    columns = {**COLUMNS, "churned.yes": [0.3, 1e-9, None, 1.0, 0.25]}
    write_file(tmp_path / "out.jsonl", (columns, {2: "why"}))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {name: values[0] for name, values in columns.items()}
    assert rows[2] == {name: values[2] for name, values in columns.items()} | {"problem": "why"}


def test_parquet_columns_that_start_empty(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    chunks = [
        ({"row": [1], "price": [None], "never": [None]}, {0: "why"}),
        ({"row": [2], "price": [2.5], "never": [None]}, {}),
    ]
    write_file(tmp_path / "out.parquet", *chunks)
    found = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert found == {"row": [1, 2], "price": [None, 2.5], "never": [None, None], "problem": ["why", None]}


def test_row_groups_of_parquet_have_few_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("dlspec.inference.output.prediction_formats.MAX_GROUP_BYTES", 20_000)
    monkeypatch.setattr("dlspec.inference.output.prediction_formats.MAX_GROUP_ROWS", 50)
    pixels = [list(range(1_000))] * 10 + [[]] * 200 + [list(range(5_000))]  # 8 bytes each
    empty = {"row": [0] * 3, "pixels": [None] * 3, "note": ["x" * 9_000] * 3}  # held until `pixels` has a type
    write_file(tmp_path / "out.parquet", *[(empty, {})] * 2,
               ({"row": list(range(211)), "pixels": pixels, "note": [""] * 211}, {}))  # fmt: skip
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    groups = [file.read_row_group(at) for at in range(file.num_row_groups)]
    assert max(each.num_rows for each in groups) <= 50
    assert all(each.nbytes <= 20_000 or each.num_rows == 1 for each in groups)
    assert file.read().column("pixels").to_pylist() == [None] * 6 + pixels


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_output_column_named_problem_is_kept(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    if ending == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    write_file(path, ({"problem": ["yes", None]}, {1: "why"}))
    if ending == ".parquet":
        found = parquet.read_table(path).to_pylist()
    elif ending == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            found = [{name: each or None for name, each in row.items()} for row in csv.DictReader(file)]
    else:
        found = [{"problem_2": None, **json.loads(line)} for line in path.read_text(encoding="utf-8").splitlines()]
    assert found == [{"problem": "yes", "problem_2": None}, {"problem": None, "problem_2": "why"}]


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_prediction_file("-") as writer:
        writer.write({"text": ["é"]}, {})
    assert capfdbinary.readouterr().out == '{"text": "é"}\n'.encode()


def test_short_decimals_are_the_same_float32() -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate(
        [bits[np.isfinite(bits)], generator.random(10_000, np.float32), np.array([0, -0.0, 0.3], np.float32)]
    )
    short = shorten_float32(values)
    written = np.array([float(repr(each)) for each in short.tolist()])
    assert np.array_equal(written.astype(np.float32), values)
    assert repr(short.tolist()[-1]) == "0.3"
    lengths = [
        len(repr(each)) - len(str(value))
        for each, value in zip(short[-10_000:-3].tolist(), values[-10_000:-3], strict=True)
    ]
    assert np.mean(lengths) < 0.05


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out.csv").write_text("old", encoding="utf-8")
    with pytest.raises(error), open_prediction_file(str(tmp_path / "out.csv")) as writer:
        writer.write({"row": [1]}, {})
        raise error
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [("out.csv", "old")]


KILLED = """
import os, sys
from dlspec.inference.output.prediction_files import open_prediction_file
with open_prediction_file(sys.argv[1]) as writer:
    writer.write({"row": [1]}, {})
    os.kill(os.getpid(), 9)
"""


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    subprocess.run([sys.executable, "-c", KILLED, str(output)], check=False)
    (tmp_path / ".other.csv.abcdefgh").touch()
    assert len(list(tmp_path.iterdir())) == 2
    assert not output.exists()
    with open_prediction_file(str(output)) as first:  # its temporary file is in use, not left over
        first.write({"row": [1]}, {})
        with open_prediction_file(str(output)) as second:
            second.write({"row": [2]}, {})
        assert output.read_text(encoding="utf-8") == "row\n2\n"
    assert output.read_text(encoding="utf-8") == "row\n1\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".other.csv.abcdefgh", "out.csv"]


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.touch()
    (tmp_path / "link.csv").symlink_to(data)
    (tmp_path / "folder.csv").mkdir()
    refused = {
        "out.tsv.gz": f"write output={tmp_path / 'out.tsv'}$",
        "out.xlsx": "must end in .csv, .tsv, .jsonl, .ndjson, .parquet, or in / for a folder of masks, or be - for "
        "standard output; write output=",
        "out.jsnl": f"write output={tmp_path / 'out.jsonl'}$",
        ".csv": f"write output={tmp_path / 'predictions.csv'}$",
        ".jsnl": f"write output={tmp_path / 'predictions.jsonl'}$",
        ".parquet.gz": f"write output={tmp_path / 'predictions.parquet'}$",
        "out.": f"write output={tmp_path / 'out.csv'}$",
        "an answer": f"write 'output={tmp_path / 'an answer.csv'}'$",
        "link.csv": "is a link",
        "folder.csv": "is a folder",
        "none/out.csv": "no folder",
        "../" + tmp_path.name + "/data.csv": "is the input file",
        "x" * 300 + ".csv": "File name too long",
    }
    for name, message in refused.items():
        with pytest.raises(UserError, match=message.replace(".", r"\.")):
            check_output(str(tmp_path / name), [data])
    check_output(str(tmp_path / "out.csv"), [data])
    check_output("-", [data])


def test_a_full_disk_behind_standard_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        error: OSError = OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Full()))
    with (
        pytest.raises(OSError, match=r"No space left on device.*not complete") as raised,
        open_prediction_file("-") as writer,
    ):
        writer.write({"row": [1]}, {})
    message, code = message_and_exit_code(raised.value) or ("", 0)
    assert message.startswith("can't use standard output: No space left on device; the predictions are not complete: ")
    assert code == message_and_exit_code(OSError(errno.ENOSPC, "", "out.csv"))[1] == 1  # as for a file
    Full.error = BrokenPipeError()
    with open_prediction_file("-") as writer:
        assert writer.is_closed
