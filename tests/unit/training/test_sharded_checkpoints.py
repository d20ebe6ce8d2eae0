"""Folders of divided tensors, when a step is saved again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlspec.training.checkpoint import checkpoint_files
from dlspec.training.checkpoint.checkpoint_files import (
    SHARDS,
    SHARDS_FOLDER,
    Snapshot,
    find_shards_folder,
    write_checkpoint,
)
from dlspec.training.checkpoint.sharded_checkpoint import place_shards, remove_unused_shards

FIRST, SECOND = "step-000000007.shards", "step-000000007-2.shards"


def place(folder: Path, text: str) -> str:
    temporary = folder / ".step-000000007.shards.abcdefgh"
    temporary.mkdir()
    (temporary / "part").write_text(text)
    return place_shards(temporary, folder, 7)


def save(folder: Path, text: str) -> None:
    name = place(folder, text)
    write_checkpoint(folder, Snapshot(7, {}, {}), {SHARDS: "{}", SHARDS_FOLDER: name})
    remove_unused_shards(folder)


def read(folder: Path) -> str:
    shards = find_shards_folder(folder / "step-000000007.safetensors")
    assert shards is not None
    return (shards / "part").read_text()


def list_folders(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir())


def test_a_step_that_is_saved_again_keeps_its_checkpoint_until_the_new_one_is_complete(tmp_path: Path) -> None:
    save(tmp_path, "old")
    assert list_folders(tmp_path) == [FIRST]
    for killed_saves in range(2):  # before they wrote the file
        assert place(tmp_path, "new") == SECOND, killed_saves
        assert read(tmp_path) == "old"
    remove_unused_shards(tmp_path)
    assert (list_folders(tmp_path), read(tmp_path)) == ([FIRST], "old")
    save(tmp_path, "new")
    assert (list_folders(tmp_path), read(tmp_path)) == ([SECOND], "new")
    save(tmp_path, "newer")
    assert (list_folders(tmp_path), read(tmp_path)) == ([FIRST], "newer")


def test_a_checkpoint_of_an_earlier_version_has_the_first_folder(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Snapshot(7, {}, {}), {SHARDS: "{}"})
    assert find_shards_folder(tmp_path / "step-000000007.safetensors") == tmp_path / FIRST


def test_no_other_folder_can_be_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Snapshot(7, {}, {}), {SHARDS: "{}", SHARDS_FOLDER: "../other"})
    assert find_shards_folder(tmp_path / "step-000000007.safetensors") == tmp_path / FIRST


def test_a_file_that_cannot_be_read_now_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    save(tmp_path, "old")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_files, "open_tensor_file", fail)
        remove_unused_shards(tmp_path)
        with pytest.raises(OSError, match="Too many open files"):
            place(tmp_path, "new")
    assert read(tmp_path) == "old"


def test_a_damaged_file_does_not_keep_a_step_from_being_saved(tmp_path: Path) -> None:
    save(tmp_path, "old")
    (tmp_path / "step-000000007.safetensors").write_bytes(b"torn")
    remove_unused_shards(tmp_path)
    assert list_folders(tmp_path) == [FIRST]
    save(tmp_path, "new")
    assert read(tmp_path) == "new"


def test_folders_without_a_file_are_removed(tmp_path: Path) -> None:
    for name in (FIRST, SECOND, ".step-000000008.shards.abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / "of the user").mkdir()
    write_checkpoint(tmp_path, Snapshot(9, {}, {}), {})  # with whole tensors
    remove_unused_shards(tmp_path)
    assert list_folders(tmp_path) == ["of the user"]
