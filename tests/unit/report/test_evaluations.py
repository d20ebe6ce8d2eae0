"""What a page reads of an evaluation: the newest one, checked; and pictures, which are made anew."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlspec.report.evaluations import MAX_ERRORS, check_evaluation, read_newest_evaluation
from dlspec.report.png_pictures import check_picture_uri, make_picture_uri, read_picture
from helpers.evaluation_files import CLASSES, LABELS, PIXELS, make_evaluation, make_png, make_uri, write_evaluation_file


def open_picture(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_newest_evaluation_is_read(tmp_path: Path) -> None:
    assert read_newest_evaluation(tmp_path) is None
    for older in ("2026-05-01_12-30-05.json", "2026-05-01_12-30-05_2.json", "2026-04-30_12-30-05_11.json", "zz.json"):
        write_evaluation_file(tmp_path, make_evaluation(checkpoint="last"), older)
    write_evaluation_file(tmp_path, make_evaluation(), "2026-05-01_12-30-05_10.json")
    write_evaluation_file(tmp_path, {"format": 99}, "2026-05-02_00-00-00.json")
    (tmp_path / "evaluations/2026-05-03_00-00-00.json").write_text("{")
    found = read_newest_evaluation(tmp_path)
    assert found is not None
    assert (found["file"], found["checkpoint"]) == ("2026-05-01_12-30-05_10.json", "best")
    assert found["metrics"][1] == {"name": "accuracy", "value": 0.94, "low": 0.9, "high": 0.97}
    (target,) = found["targets"]
    assert (target["name"], target["classes"], target["confusion"][0]) == ("digit", ["3", "5", "8"], [10, 1, 1])
    assert (target["errors"][0]["row"], target["errors"][0]["truth"], target["errors"][0]["id"]) == (7, "3", "")
    assert np.array_equal(open_picture(target["errors"][0]["input"][0]["picture"]), PIXELS)


@pytest.mark.parametrize("how", ["a link to a folder", "a link to a file", "a pipe", "too large"])
def test_evaluations_from_strangers_are_not_followed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for folder in (run, elsewhere):
        folder.mkdir()
    path = write_evaluation_file(elsewhere)
    name = "evaluations/2026-05-01_12-30-05.json"
    if how == "a link to a folder":
        (run / "evaluations").symlink_to(path.parent)
    else:
        (run / "evaluations").mkdir()
    if how == "a link to a file":
        (run / name).symlink_to(path)
    if how == "a pipe":
        os.mkfifo(run / name)
    if how == "too large":
        (run / name).write_bytes(path.read_bytes())
        monkeypatch.setattr("dlspec.report.evaluations.MAX_EVALUATION_BYTES", 100)
    assert read_newest_evaluation(run) is None
    assert read_newest_evaluation(elsewhere) is not None or how == "too large"


DEEP: Any = [1]
for _ in range(400):
    DEEP = [DEEP]
WRONG: list[Any] = [None, 7, -1, 1e300, True, "text", "data:image/svg+xml,<svg onload=x>", [], [[]], {}, {"": {}}, DEEP]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_values_of_wrong_types_are_left_out(wrong: Any) -> None:
    """Every value, at every place of an evaluation, may be anything."""

    def replace_each(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [
                wrong,
                *({**value, key: new} for key, each in value.items() for new in replace_each(each)),
            ]
        first = value[:1] if isinstance(value, list) else []
        return [wrong, *([new, *value[1:]] for each in first for new in replace_each(each))]

    by = {"column": "c", "groups": [{"value": "DE", "rows": 3, "metrics": {"loss": {"value": 1.0}}}]}
    whole = make_evaluation(by=by, targets={"a": {**CLASSES, "scatter": [[1, 2]]}, "b": LABELS})
    for written in replace_each(whole)[1:]:
        json.dumps(check_evaluation(written), allow_nan=False)
        for target in check_evaluation(written)["targets"]:
            assert all(len(row) == len(target["classes"]) for row in target["confusion"] or ())
            assert all(len(point) == 2 for point in target["scatter"])


def test_long_evaluations_are_cut() -> None:
    errors = [
        {"row": at, "truth": "x" * 10_000, "input": {f"c{column}": "y" for column in range(100)}} for at in range(90)
    ]
    names = [f"class {at}" for at in range(300)]
    written = {"classes": names, "confusion": [[1] * 300] * 300, "errors": errors}
    (target,) = check_evaluation({"targets": {"t": written}})["targets"]
    assert (len(target["classes"]), target["confusion"], len(target["errors"])) == (200, None, MAX_ERRORS)
    assert len(target["errors"][0]["truth"]) < 2_100 and len(target["errors"][0]["input"]) == 20


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_is_made_anew_without_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(make_png(PIXELS, "a secret") + b"<script>")
    uri = read_picture(path)
    assert uri is not None
    content = base64.b64decode(uri.partition(",")[2])
    assert b"secret" not in content and b"script" not in content
    assert np.array_equal(open_picture(uri), PIXELS)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_size(width: int, height: int) -> bytes:
    whole = make_png(PIXELS)
    header = struct.pack(">II", width, height) + whole[24:29]
    return whole[:8] + chunk(b"IHDR", header) + whole[33:]


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>", make_png(PIXELS)[:-20],
     make_png(PIXELS).replace(b"IDAT", b"IDAX"), make_png(PIXELS)[:60] + b"\xff" + make_png(PIXELS)[61:],
     with_size(0, 8), with_size(100_000, 1), with_size(9_000, 9_000), make_png(PIXELS)[:33]],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_picture(content: bytes) -> None:
    assert make_picture_uri(content) is None


@pytest.mark.parametrize(
    "uri",
    ["", "http://example.com/x.png", "data:image/svg+xml;base64,AAAA", "data:text/html,<script>", "javascript:alert(1)",
     make_uri(make_png(PIXELS)).replace("png", "PNG"), make_uri(make_png(PIXELS)) + " x", make_uri(b"<html>"), None, 7],
)  # fmt: skip
def test_what_is_no_picture_uri(uri: object) -> None:
    assert check_picture_uri(uri) is None
