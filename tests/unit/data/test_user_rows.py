"""`@dlspec.rows`: a user's own rows are a table like any other, and its errors say where the user's code failed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlspec
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES, open_data
from dlspec.errors import Code, DataError
from dlspec.parts.registry import DuplicateNameError
from helpers.command_line import QUICK, CommandResult

Row = dict[str, Any]

MODULE = """\
import json
import dlspec

@dlspec.rows("lines")
def read_lines(path):
    with open(path) as file:
        for line in file:
            yield json.loads(line)
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test register names of its own."""
    monkeypatch.setattr(SOURCES, "_classes", dict(SOURCES._classes))
    monkeypatch.setattr(SOURCES, "_described", {})


def make_rows(count: int = 60, seed: int = 0) -> list[Row]:
    generator = np.random.default_rng(seed)
    return [
        {"age": int(generator.integers(18, 90)), "dose": round(float(generator.normal()), 4), "plan": "ab"[row % 2],
         "left": row % 3 == 0}
        for row in range(count)
    ]  # fmt: skip


def read_json(path: str) -> Iterator[Row]:
    row: Row = {}
    for each in json.loads(Path(path).read_text()):
        row.clear()
        row.update(each)
        yield row  # the same mapping for every row


def write_json(path: Path, rows: list[Row]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def open_rows(reader: Callable[..., Any], path: Any, **settings: Any) -> Dataset:
    dlspec.rows("mine")(reader)
    return open_data(SOURCES["mine"](path=path, target="left", **settings))


def refuse(reader: Callable[..., Any], path: Any = "somewhere", **settings: Any) -> DataError:
    with pytest.raises(DataError) as error:
        open_rows(reader, path, **settings)
    return error.value


def assert_equal(found: Dataset, wanted: Dataset) -> None:
    for one, other in zip((found.train, found.validation, found.test),
                          (wanted.train, wanted.validation, wanted.test), strict=True):  # fmt: skip
        for name, tensor in {**one.tensors, **one.targets}.items():
            assert torch.equal(tensor, {**other.tensors, **other.targets}[name])


def test_the_data_are_those_of_a_file_of_these_rows(tmp_path: Path) -> None:
    rows = make_rows()
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    (tmp_path / "rows.jsonl").write_text(lines)
    settings: Row = {"columns": {"age": "category"}, "validation": 0.2, "split_seed": 3}
    found = open_rows(read_json, write_json(tmp_path / "rows.json", rows), **settings)
    file = SOURCES["table"](path=str(tmp_path / "rows.jsonl"), target="left", **settings)
    assert_equal(found, open_data(file))
    assert len(found.train) == 36


def test_each_split_may_have_paths(tmp_path: Path) -> None:
    first, second, tested = make_rows(20), make_rows(10, 1), make_rows(7, 2)
    tested[3]["age"] = None  # so that the ages of the test alone would be of another type
    paths = [write_json(tmp_path / f"{name}.json", rows)
             for name, rows in (("a", first), ("b", second), ("t", tested))]  # fmt: skip
    data = open_rows(read_json, paths[:2], test=paths[2], validation=0.1, only=["dose"])
    assert [len(each) for each in (data.train, data.validation, data.test)] == [27, 3, 7]
    scale = data.preprocessing["columns"]["dose"]["scale"]
    doses = data.test.tensors["features"][:, 0].numpy() * scale["divisor"] + scale["shift"]
    np.testing.assert_allclose(doses, [row["dose"] for row in tested], atol=1e-5)
    assert data.notes[0].endswith("37 rows, 4 columns")
    without = [{key: cell for key, cell in row.items() if key != "dose"} for row in tested]
    error = refuse(read_json, paths[0], test=write_json(tmp_path / "w.json", without))
    assert (error.key, error.finding.code) == ("test", Code.UNKNOWN_FIELD)


def test_a_bad_cell_is_located_by_its_path_and_row() -> None:
    def read(path: str) -> Iterator[Row]:
        yield from ({"age": str(number), "left": number % 2} for number in range(40))
        yield {"age": "old", "left": 0}

    error = refuse(read, "clinic", columns={"age": "number"})
    assert str(error).startswith("clinic:41: ")


def fail_after_two(path: str) -> Iterator[Row]:
    yield from make_rows(2)
    raise ValueError(f"no third row in {path}")


def fail_in_a_library(path: str) -> Iterator[Row]:
    yield {"age": json.loads("{")}


def need_two_arguments(path: str, table: str) -> Iterator[Row]:
    yield {path: table}


@pytest.mark.parametrize("reader", [fail_after_two, fail_in_a_library, need_two_arguments])
def test_an_error_of_the_user_has_its_file_and_line(
    reader: Callable[..., Iterator[Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refuse(reader)
    _lines, start = inspect.getsourcelines(reader)
    wanted = {"fail_after_two": start + 2, "fail_in_a_library": start + 1, "need_two_arguments": start}
    assert error.key == "path" and f"{__file__}:{wanted[reader.__name__]}" in str(error)
    assert error.__cause__ is not None and str(error.__cause__) in str(error)


WRONG: dict[str, tuple[Callable[[str], Any], Code]] = {
    "nothing": (lambda path: None, Code.WRONG_TYPE),
    "one row": (lambda path: {"age": 1}, Code.WRONG_TYPE),
    "a tuple as row": (lambda path: [{"age": 1}, (1, 2)], Code.WRONG_TYPE),
    "text as row": (lambda path: path, Code.WRONG_TYPE),
    "no row": (lambda path: [], Code.BAD_DATA),
    "a set as cell": (lambda path: [{"age": {1, 2}, "left": 1}], Code.WRONG_TYPE),
    "two names that are one": (lambda path: [{"age": 1, " age ": 2}], Code.NAME_TAKEN),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_row_is_refused(case: str) -> None:
    reader, code = WRONG[case]
    error = refuse(reader)
    assert (error.key, error.finding.code) == ("path", code)


def test_settings_that_have_no_effect_are_refused() -> None:
    dlspec.rows("mine")(read_json)
    for key, value in {"delimiter": ";", "encoding": "latin-1", "header": False, "missing": ["?"]}.items():
        with pytest.raises(ValueError, match=key):
            SOURCES["mine"](path="somewhere", target="left", **{key: value})
    SOURCES["mine"](path="somewhere", target="left", decimal=",", bad_rows="skip")
    with pytest.raises(DataError) as error:
        SOURCES["mine"](target="left").open()
    assert error.value.finding.code == Code.MISSING_VALUE


def test_names_of_other_sources_are_refused() -> None:
    with pytest.raises(DuplicateNameError):
        dlspec.rows("table")(read_json)
    assert dlspec.rows("mine")(read_json) is dlspec.rows("mine")(read_json) is read_json


def test_the_commands_inspect_and_train(
    dlspec: Callable[..., CommandResult], work: Path, write: Callable[[str, str], Path], monkeypatch: Any
) -> None:
    monkeypatch.syspath_prepend(work)
    write("my_lines.py", MODULE)
    write("visits.txt", "\n".join(map(json.dumps, make_rows())))
    write("conf/data/visits.yaml", "type: lines\npath: visits.txt\ntarget: left\n")
    given = ["data=visits", "imports=[my_lines]"]
    said = dlspec("inspect", *given)
    assert said.code == 0 and said.out.splitlines()[0] == "visits.txt: 60 rows, 4 columns"
    assert f"python -m dlspec model=mlp data=visits {given[1]!r}" in said.out
    assert dlspec("model=mlp", *given, *QUICK).code == 0
    (folder,) = Path("runs").glob("*/*")
    again = dlspec(f"run={folder}", given[1], *QUICK)
    assert (again.code, len(list(Path("runs").glob("*/*")))) == (0, 2)
    write("visits.txt", json.dumps(make_rows(1)[0]) + "\n{")
    failed = dlspec("model=mlp", *given, *QUICK)
    assert failed.code == 2 and "my_lines.py:8" in failed.err and "Traceback" not in failed.out + failed.err
