"""Files from strangers: bombs, pipes, devices, pickles, declared sizes. Each is refused quickly, in little memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dlspec.data.tables import input_files
from dlspec.data.tables.file_pattern import list_files
from dlspec.data.tables.reading import read_table
from dlspec.data.tables.table import ReadOptions
from dlspec.errors import Code, DataError


def refuse(path: Path, **options: object) -> Code:
    with pytest.raises(DataError) as caught:
        read_table(str(path), ReadOptions.model_validate(options))
    assert str(path) in str(caught.value)
    return caught.value.finding.code


def get_peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_bomb_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"x" * 80_000_000, 1))
    before = get_peak_bytes()
    assert refuse(tmp_path / "in.csv.gz") == Code.TOO_LARGE
    assert get_peak_bytes() - before < 300_000_000


def test_a_bomb_of_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "MAX_DATA_BYTES", 100_000)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100_000))
    assert refuse(tmp_path / "in.csv.gz") == Code.TOO_LARGE


def test_too_many_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.data.tables.table_builder.MAX_CELLS", 1_000)
    (tmp_path / "in.csv").write_text("a,b\n" + "1,2\n" * 600)
    assert refuse(tmp_path / "in.csv") == Code.TOO_LARGE
    (tmp_path / "in.jsonl").write_text("".join(f'{{"k{row}": 1}}\n' for row in range(100)))
    assert refuse(tmp_path / "in.jsonl") == Code.TOO_LARGE
    (tmp_path / "list.jsonl").write_text(f'{{"a": {[0] * 2_000}}}\n')
    assert refuse(tmp_path / "list.jsonl") == Code.TOO_LARGE


WHOLE = gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)


@pytest.mark.parametrize("content", [WHOLE[:-9], b"\x1f\x8b", b"\x1f\x8b" + b"x" * 99], ids=["cut", "head", "noise"])
def test_damaged_gzip(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(content)
    assert refuse(tmp_path / "in.csv.gz") == Code.FILE_UNREADABLE


def test_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to("/dev/zero")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "link.csv", "loop.csv", "folder.csv", "missing.csv"):
        assert refuse(tmp_path / name) == Code.FILE_UNREADABLE
    for name in ("x" * 5_000, "a\0b.csv", "~nobody_at_all/x.csv"):
        with pytest.raises(DataError):
            read_table(name, ReadOptions())
    with pytest.raises(DataError):
        read_table([], ReadOptions())
    with pytest.raises(DataError):
        list_files(f"{tmp_path}/{{name}}.csv")


JSON = {
    "deep list": b'{"a": ' + b"[" * 100_000,
    "deep object": b'{"a":' * 60 + b"1" + b"}" * 60,
    "surrogate": b'{"a": "\\ud800"}',
    "NUL": b'{"a": "\0"}',
    "not an object": b"[1]",
    "object in a list": b'{"a": [{"b": 1}]}',
    "huge integer in a list": b'{"a": [' + b"9" * 5_000 + b"]}\n[",
}


@pytest.mark.parametrize("name", JSON)
def test_json(name: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(JSON[name] + b"\n")
    assert refuse(tmp_path / "in.jsonl") in (Code.BAD_DATA, Code.FILE_UNREADABLE)


def test_a_huge_integer_stays_text(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": ' + b"9" * 5_000 + b"}\n")
    table, _ = read_table(str(tmp_path / "in.jsonl"), ReadOptions())
    assert table.columns["a"].tolist() == ["9" * 5_000]


def write_npz(path: Path, header: dict[str, object] | bytes, content: bytes = b"") -> None:
    stream = io.BytesIO()
    if isinstance(header, bytes):
        stream.write(header)
    else:
        np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + content)


NPZ: dict[str, tuple[dict[str, object] | bytes, bytes]] = {
    "huge shape": ({"descr": "<f8", "fortran_order": False, "shape": (10**14,)}, b"x"),
    "negative shape": ({"descr": "<f8", "fortran_order": False, "shape": (-1, -8)}, b"x" * 64),
    "huge empty shape": ({"descr": "<f8", "fortran_order": False, "shape": (10**14, 0)}, b""),
    "cut": ({"descr": "<f8", "fortran_order": False, "shape": (4,)}, b"x" * 31),
    "pickle": ({"descr": "|O", "fortran_order": False, "shape": (1,)}, b"cos\nsystem\n(S'touch HACKED'\ntR."),
    "fields": ({"descr": [("a", "<f8"), ("b", "|O")], "fortran_order": False, "shape": (1,)}, b"x" * 16),
    "one value": ({"descr": "<f8", "fortran_order": False, "shape": ()}, b"x" * 8),
    "complex": ({"descr": "<c8", "fortran_order": False, "shape": (1,)}, b"x" * 8),
    "no header": (b"\x93NUMPY\x01\x00\x10\x00{'descr':1,,,}  \n", b""),
    "not an array": (b"hello", b""),
    "version": (b"\x93NUMPY\x09\x00\x10\x00{}             \n", b""),
}


@pytest.mark.parametrize("name", NPZ)
def test_npz(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "in.npz", *NPZ[name])
    refuse(tmp_path / "in.npz")
    assert not (tmp_path / "HACKED").exists()


def test_other_npz_files(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x03\x04" + b"x" * 99):
        (tmp_path / "in.npz").write_bytes(content)
        assert refuse(tmp_path / "in.npz") == Code.FILE_UNREADABLE
    np.savez(tmp_path / "in.npz", x=np.zeros(3), y=np.zeros(4))
    assert refuse(tmp_path / "in.npz") == Code.BAD_DATA
    np.savez(tmp_path / "in.npz", x=np.zeros(0))
    assert refuse(tmp_path / "in.npz") == Code.BAD_DATA


def test_a_quote_that_is_never_closed_in_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('a,b\n"1,2\n' + f"1,{'2' * 1_000}\n" * 20_000)
    assert refuse(tmp_path / "in.csv") == Code.BAD_DATA


OTHER_FILES = {
    "in.jsonl": b'{"a": 1, "b": "x\\u00e9", "l": [1, 2.5, "q"], "o": {"p": null}}\n{"a": -2.5e3, "b": "\xc3\xa9"}\n',
    "in.txt": b'1 2 "x y"\n3 4 z\n',
    "in.conll": b"EU B\nx O\n\ny O\nz I\n",
    "in.csv.gz": gzip.compress(b"a,b\n1,2\n3,4\n"),
}
PIECES = (b'"', b"{", b"[", b"}", b"]", b",", b"\\ud800", b"\n", b"\0", b"\xff", b"9" * 30, b"NaN", b"1e999")


def make_npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.arange(6.0).reshape(3, 2), y=np.array(["a", "b", "c"]))
    return stream.getvalue()


def damage(content: bytes, random_numbers: random.Random) -> bytes:
    for _ in range(random_numbers.randint(1, 4)):
        at, kind = random_numbers.randrange(len(content) + 1), random_numbers.randrange(4)
        head, tail = content[:at], content[at:]
        ways = (head, head + tail[random_numbers.randint(1, 10) :], head + random_numbers.choice(PIECES) + tail)
        content = ways[kind] if kind < 3 else head + bytes([random_numbers.randrange(256)]) + tail[1:]
    return content


def check_damaged_files(folder: Path, seeds: range) -> int:
    """Read damaged files of other formats than CSV; returns how many were read."""
    files, read = {**OTHER_FILES, "in.npz": make_npz()}, 0
    for seed in seeds:
        random_numbers = random.Random(seed)
        name = random_numbers.choice(list(files))
        (folder / name).write_bytes(damage(files[name], random_numbers))
        options = ReadOptions.model_validate({"format": "words", "header": True} if name == "in.txt" else {})
        try:
            read_table(str(folder / name), options)
            read += 1
        except DataError as error:
            assert str(folder / name) in str(error)
    return read


def test_damaged_files_of_other_formats(tmp_path: Path) -> None:
    assert 10 < check_damaged_files(tmp_path, range(200)) < 190


@pytest.mark.soak
def test_many_damaged_files_of_other_formats(tmp_path: Path) -> None:
    check_damaged_files(tmp_path, range(200, 4_200))
