"""Folders of predicted masks: palette PNGs named after their rows; absent or whole, whatever happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlspec.data.dataset import Target
from dlspec.errors import UserError
from dlspec.inference.output.image_folders import LOCK_FILE, check_folder_output, open_image_folder
from dlspec.inference.output.image_targets import ImageTarget, list_image_targets
from dlspec.runs.lock import try_lock_file

COLORS = ((0, 0, 0), (255, 0, 0), (0, 128, 255))
MASK = ImageTarget("mask", ("background", "car", "tree"), COLORS)
VALUES = np.arange(24).reshape(2, 3, 4) % 3


def write(output: Path, names: list[str], problems: dict[int, str] | None = None, files: tuple[str, ...] = ()) -> None:
    masks = np.array([*VALUES, None], object)[[each % 2 for each in range(len(names))]]
    with open_image_folder(f"{output}/", [MASK], ["file"], files) as writer:
        writer.write({"place": names, "file": names, "mask": masks}, problems or {})


def list_files(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


def test_a_mask_is_a_png_with_the_classes_as_numbers_and_their_colors(tmp_path: Path) -> None:
    write(tmp_path / "masks", ["new/a.jpg", "new/b.jpg"], files=("new/a.jpg", "new/b.jpg"))
    assert list_files(tmp_path) == ["masks/a.png", "masks/b.png"]
    image = Image.open(tmp_path / "masks/b.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), VALUES[1])
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(COLORS)[VALUES[1]])


def test_more_classes_than_a_palette_has_are_written_with_16_bits(tmp_path: Path) -> None:
    mask = ImageTarget("mask", tuple(map(str, range(700))), ())
    mask.write(np.array([[0, 699], [300, 1]]), tmp_path / "mask.png")
    assert np.asarray(Image.open(tmp_path / "mask.png")).tolist() == [[0, 699], [300, 1]]


def test_an_image_is_written_from_0_to_1(tmp_path: Path) -> None:
    ImageTarget("image", (), ()).write(np.array([[[0.0, 1.0]], [[-1, 2]], [[0.5, np.nan]]]), tmp_path / "image.png")
    assert np.asarray(Image.open(tmp_path / "image.png")).tolist() == [[[0, 0, 128], [255, 255, 0]]]


def test_names_from_tables_stay_in_the_folder_and_differ(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/1.png", "../../x", "/etc/passwd", "..", "b/?\n.jpg", "A/1.jpg"]
    write(tmp_path / "masks", names)
    found = ["A/1_3.png", "a/1.png", "a/1_2.png", "b/_.png", "passwd.png", "unnamed.png", "x.png"]
    assert list_files(tmp_path / "masks") == found


def test_rows_without_a_mask_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "masks", ["a.jpg", "b.jpg"], {1: "truncated"})
    assert list_files(tmp_path / "masks") == ["a.png", "problems.csv"]
    assert (tmp_path / "masks/problems.csv").read_text() == "row,problem\nb.jpg,truncated\n"


def test_a_folder_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_image_folder(f"{tmp_path}/masks/", [MASK], ["file"]) as writer:
        writer.write({"file": ["a"], "mask": VALUES[:1]}, {})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_processes_are_removed_unless_they_are_in_use(tmp_path: Path) -> None:
    for name in ("abandoned", "inuse123", "notours_"):
        (tmp_path / f".masks.{name[:8]}").mkdir()
    (tmp_path / ".masks.abandone" / LOCK_FILE).write_text("")
    lock = (tmp_path / ".masks.inuse123" / LOCK_FILE).open("w")
    assert try_lock_file(lock.fileno())
    write(tmp_path / "masks", ["a.jpg"])
    assert sorted(each.name for each in tmp_path.iterdir()) == [".masks.inuse123", ".masks.notours_", "masks"]
    lock.close()


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    (tmp_path / "file.csv").write_text("")
    check_folder_output(f"{tmp_path}/empty/")
    write(tmp_path / "empty", ["a.jpg"])
    for name in ("link/", "full/", "file.csv/", "nothere/masks/"):
        with pytest.raises(UserError, match=name.split("/")[0]):
            check_folder_output(f"{tmp_path}/{name}")


def test_runs_without_masks_have_no_folder() -> None:
    label = Target("label", "classes", (), ("a", "b"))
    mask = Target("mask", "classes", (4, 4), ("a", "b"))
    assert [each.name for each in list_image_targets([label, mask], None)] == ["mask"]
    with pytest.raises(UserError, match="label, which is not an image"):
        list_image_targets([label], None)


def test_colors_differ() -> None:
    target = Target("mask", "classes", (4, 4), tuple("abcde"))
    assert len(set(list_image_targets([target], None)[0].colors)) == 5
    assert torch.tensor(list_image_targets([target], None)[0].colors).max() <= 255
