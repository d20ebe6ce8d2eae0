"""Files below the folder of a run or sweep: none is opened that is not a regular file of its own."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dlspec.errors import UserError
from dlspec.runs.file_access import (
    is_regular_file,
    is_special_file,
    open_lock_file,
    open_to_append,
    open_to_read,
    refuse_links,
)
from dlspec.runs.io import append_bytes, read_json_lines, read_json_object, read_small_file, write_bytes

PRECIOUS = b"mine"


def _link(path: Path) -> None:
    path.symlink_to(path.parent / "precious")


def _dangle(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def _bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "link": _link,
    "dangling": _dangle,
    "pipe": os.mkfifo,
    "socket": _bind_socket,
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("precious").write_bytes(PRECIOUS)
    return Path("file")


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL)
def test_special_files(make: Callable[[Path], object], path: Path) -> None:
    make(path)
    assert (is_special_file(path), is_regular_file(path)) == (True, False)
    for opens in (open_to_read, open_lock_file):
        with pytest.raises(OSError, match="not a regular file"):
            opens(path)
    assert (read_small_file(path, 10), read_json_object(path), read_json_lines(path)) == (None, None, [])
    append_bytes(path, b"new")
    assert (path.read_bytes(), is_regular_file(path)) == (b"new", True)
    path.unlink()
    make(path)
    write_bytes(path, b"whole")
    assert (path.read_bytes(), is_regular_file(path)) == (b"whole", True)
    assert (Path("precious").read_bytes(), Path("nothing").exists()) == (PRECIOUS, False)


def test_a_file_with_several_names_is_replaced_by_a_copy(path: Path) -> None:
    Path("precious").chmod(0o640)
    path.hardlink_to("precious")
    append_bytes(path, b" too")
    assert (path.read_bytes(), Path("precious").read_bytes()) == (b"mine too", PRECIOUS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in Path().iterdir()) == ["file", "precious"]


def test_a_lock_with_several_names_stays_the_same_file(path: Path) -> None:
    path.hardlink_to("precious")
    os.close(open_lock_file(path))
    assert path.samefile("precious")


def test_a_folder_is_no_file(path: Path) -> None:
    path.mkdir()
    assert (is_special_file(path), is_regular_file(path)) == (False, False)
    with pytest.raises(IsADirectoryError):
        open_to_append(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_to_read(path)


def test_a_new_file_has_the_users_mode(path: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(open_to_append(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that is reached through a link, with a link and a file in it."""
    (tmp_path / "scratch/root/a/b").mkdir(parents=True)
    (tmp_path / "scratch/root/a/link").symlink_to(tmp_path)
    (tmp_path / "scratch/root/file").touch()
    (tmp_path / "runs").symlink_to("scratch")
    return tmp_path / "runs/root"


@pytest.mark.parametrize("name", ["", "a", "a/b", "a/new/folder"])
def test_folders_inside(root: Path, name: str) -> None:
    refuse_links(root, [root / name, root])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/link", "a/link' is a symbolic link: replace it with the folder that it points to"),
        ("a/link/x/y", "a/link' is a symbolic link"),
        ("file/x", "file' is not a folder: move it away"),
        ("..", "is not inside"),
        ("a/../../x", "is not inside"),
        ("/tmp", "'/tmp' is not inside"),
    ],
)
def test_folders_elsewhere(root: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        refuse_links(root, [root / "a/b", root / name])
