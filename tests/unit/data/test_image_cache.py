"""The cache of decoded images: the same bits as without it, each file decoded once, whole or absent after any end."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dlspec.config.composition import start_hydra
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan
from dlspec.data.dataset import Split
from dlspec.data.images import image_cache
from dlspec.data.images.cache_files import (
    CacheLayout,
    find_image_cache_folder,
    list_cache_files,
    make_room,
    open_cache_file,
    read_layout,
)
from dlspec.data.images.image_cache import CachedArray, CacheSetting
from dlspec.data.images.row_stores import FileStore, MemoryStore
from dlspec.data.lazy_array import LazyArray
from dlspec.data.sources.cached_splits import cache_splits
from dlspec.errors import DataError
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_hash import compute_job_hash
from dlspec.sweeps.hydra.plugins import register
from helpers.command_line import CommandResult
from helpers.lazy_arrays import FileArray, make_pixels

CPU = torch.device("cpu")
ROWS = 10


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLSPEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/images"


def make_splits(pixels: Tensor) -> list[Split]:
    parts = (pixels[:6], pixels[6:8], pixels[8:])
    return [Split({"image": FileArray(each)}, {"label": torch.zeros(len(each))}) for each in parts]


def get_array(split: Split) -> FileArray:
    array = split.tensors["image"]
    array = array._array if isinstance(array, CachedArray) else array
    assert isinstance(array, FileArray)
    return array


def read_epochs(split: Split, epochs: int = 2, workers: int = 3) -> list[Tensor]:
    batches = BatchLoader(split, ("image",), (), BatchPlan(4, workers=workers), CPU)
    return [inputs[0] for epoch in range(epochs) for inputs, _ in batches.iterate_shuffled(1, epoch)]


@pytest.mark.parametrize("setting", ["auto", "memory", "disk"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_cached_batches_are_the_same_and_each_file_is_read_once(setting: CacheSetting, workers: int) -> None:
    pixels = make_pixels(ROWS)
    plain = make_splits(pixels)[0]
    cached, notes = cache_splits(make_splits(pixels), setting, "toys")
    torch.testing.assert_close(read_epochs(cached[0], 3, workers), read_epochs(plain, 3, workers), rtol=0, atol=0)
    assert sorted(get_array(cached[0]).read) == list(range(6))
    assert len(get_array(plain).read) == 18
    assert bool(notes) is (setting == "disk")


def test_no_cache() -> None:
    splits = make_splits(make_pixels(ROWS))
    cached, notes = cache_splits(splits, False, "toys")
    assert (cached, notes) == (splits, ())


def test_the_next_run_reads_no_file(cache_folder: Path) -> None:
    pixels = make_pixels(ROWS)
    first, (note,) = cache_splits(make_splits(pixels), "disk", "toys")
    expected = [each.tensors["image"][:] for each in first]
    second, _ = cache_splits(make_splits(pixels), "disk", "toys")
    for split, values in zip(second, expected, strict=True):
        assert torch.equal(split.tensors["image"][:], values)
        assert not get_array(split).read
    assert str(cache_folder) in note
    assert [each.layout and each.layout.data for each in list_cache_files(cache_folder)] == ["toys"]


def test_other_splits_of_the_same_files_share_a_file(cache_folder: Path) -> None:
    pixels = make_pixels(ROWS)
    first, _ = cache_splits(make_splits(pixels), "disk", "toys")
    for each in first:
        each.tensors["image"][:]
    order = torch.tensor([9, 0, 3, 3, 8, 1, 2, 4, 5, 6, 7])
    second, _ = cache_splits(make_splits(pixels[order]), "disk", "toys")
    assert torch.equal(get_array(second[0]).module(pixels[order][:6]), second[0].tensors["image"][:])
    assert not get_array(second[0]).read
    assert len(list_cache_files(cache_folder)) == 1
    cache_splits(make_splits(make_pixels(ROWS, channels=1)), "disk", "other")
    assert len(list_cache_files(cache_folder)) == 2


def test_selected_rows_share_the_store() -> None:
    splits, _ = cache_splits(make_splits(make_pixels(ROWS)), "memory", "toys")
    whole = splits[0].tensors["image"][:]
    chosen = splits[0].take(torch.tensor([4, 1])).tensors["image"]
    assert isinstance(chosen, LazyArray)
    assert torch.equal(chosen[:], whole[[4, 1]])


# ---- damage ----------------------------------------------------------------------------------------------------------


def fill(pixels: Tensor) -> tuple[list[Split], Path]:
    splits, _ = cache_splits(make_splits(pixels), "disk", "toys")
    for each in splits:
        each.tensors["image"][:]
    (file,) = list_cache_files(find_image_cache_folder())
    return list(splits), file.path


def test_an_image_with_a_wrong_checksum_is_read_again() -> None:
    pixels = make_pixels(ROWS)
    _, path = fill(pixels)
    layout = read_layout(path)
    assert layout is not None
    content = bytearray(path.read_bytes())
    content[layout.values_start + 3 * layout.row_bytes + 5] ^= 1  # as after a power failure
    path.write_bytes(content)
    again, _ = cache_splits(make_splits(pixels), "disk", "toys")
    for split, expected in zip(again, make_splits(pixels), strict=True):
        assert torch.equal(split.tensors["image"][:], expected.tensors["image"][:])
    assert sum(len(get_array(each).read) for each in again) == 1
    mended, _ = cache_splits(make_splits(pixels), "disk", "toys")
    assert [torch.equal(each.tensors["image"][:], each.tensors["image"][:]) for each in mended] == [True] * 3
    assert not any(get_array(each).read for each in mended)


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "link", "folder"])
def test_a_damaged_file_is_replaced(damage: str, tmp_path: Path) -> None:
    pixels = make_pixels(ROWS)
    _, path = fill(pixels)
    content = path.read_bytes()
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"cut": content[:-1], "header": b"{" + content[1:] + b" ", "empty": b""}[damage])
    splits, notes = cache_splits(make_splits(pixels), "auto" if damage == "folder" else "disk", "toys")
    assert torch.equal(splits[0].tensors["image"][:], make_splits(pixels)[0].tensors["image"][:])
    assert damage in ("folder", "link") or len(path.read_bytes()) == len(content)
    assert damage != "link" or ((tmp_path / "elsewhere").read_bytes() == content and not path.is_symlink())
    assert bool(notes) is (damage != "folder")


def test_a_full_disk_ends_no_training(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    pixels = make_pixels(ROWS)
    splits, _ = cache_splits(make_splits(pixels), "disk", "toys")
    monkeypatch.setattr(os, "pwrite", fail)
    with caplog.at_level("WARNING", "dlspec"):
        first = read_epochs(splits[0])
    torch.testing.assert_close(first, read_epochs(make_splits(pixels)[0]), rtol=0, atol=0)
    assert len(get_array(splits[0]).read) == 12
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.text


# ---- killed while it is written --------------------------------------------------------------------------------------

WRITTEN = CacheLayout(3000, (3, 64, 64), "uint8")


def write_rows(folder: Path, ready: int) -> None:
    store = FileStore(open_cache_file(folder, "killed", WRITTEN), WRITTEN)
    os.write(ready, b"r")
    for place in torch.randperm(WRITTEN.rows).tolist():
        store.write(place, torch.full(WRITTEN.shape, place % 251, dtype=torch.uint8))


def start_writer(folder: Path) -> int:
    """Fork a process that writes rows until it is killed, and return its number once it has begun."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            torch.manual_seed(os.getpid())
            write_rows(folder, writer)
            time.sleep(60)
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"r"
    os.close(reader)
    os.close(writer)
    return child


def kill_writers(folder: Path, draws: random.Random) -> int:
    """Kill two processes that write to one file, and return how many of its rows are whole."""
    (folder / "killed.images").unlink(missing_ok=True)
    writers = [start_writer(folder), start_writer(folder)]
    time.sleep(draws.random() * 0.05)
    for each in writers:
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)
    return count_whole_rows(folder)


def count_whole_rows(folder: Path) -> int:
    store = FileStore(open_cache_file(folder, "killed", WRITTEN), WRITTEN)
    rows, is_there = store.read(torch.arange(WRITTEN.rows))
    for place in is_there.nonzero().flatten().tolist():
        assert (rows[place] == place % 251).all()
    return int(is_there.sum())


def test_killed_while_the_cache_is_written(cache_folder: Path) -> None:
    kill_writers(cache_folder, random.Random(1))


@pytest.mark.soak
def test_killed_while_the_cache_is_written_at_20_moments(cache_folder: Path) -> None:
    draws = random.Random(0)
    counts = [kill_writers(cache_folder, draws) for _ in range(20)]
    assert len({each for each in counts if 0 < each < WRITTEN.rows}) > 5, counts


def test_torn_rows_are_absent(cache_folder: Path) -> None:
    layout = CacheLayout(2, (8,), "uint8")
    store = FileStore(open_cache_file(cache_folder, "torn", layout), layout)
    store.write(0, torch.arange(8, dtype=torch.uint8))
    path = cache_folder / "torn.images"
    content = bytearray(path.read_bytes())
    content[layout.values_start + 8 : layout.values_start + 12] = b"abcd"  # values without a checksum
    path.write_bytes(content)
    again = FileStore(open_cache_file(cache_folder, "torn", layout), layout)
    rows, is_there = again.read(torch.tensor([1, 0, 0]))
    assert is_there.tolist() == [False, True, True]
    assert rows[1:].tolist() == [list(range(8))] * 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_stores_keep_all_types(dtype: torch.dtype, cache_folder: Path) -> None:
    layout = CacheLayout(5, (2, 3), str(dtype).removeprefix("torch."))
    for store in (
        MemoryStore(5, (2, 3), dtype),
        FileStore(open_cache_file(cache_folder, f"kept {dtype}", layout), layout),
    ):
        row = torch.arange(6).reshape(2, 3).to(dtype)
        store.write(3, row)
        rows, is_there = store.read(torch.tensor([3, 1]))
        assert (rows.dtype, is_there.tolist()) == (dtype, [True, False])
        assert torch.equal(rows[0], row)
        assert torch.equal(store.read(torch.tensor([3]))[0], row[None])


# ---- how much is kept ------------------------------------------------------------------------------------------------


def test_auto_takes_the_disk_where_the_memory_is_small(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setattr(image_cache, "find_free_memory", lambda: 100)
    _, (note,) = cache_splits(make_splits(make_pixels(ROWS)), "auto", "toys")
    assert note.startswith(f"decoded images are kept in '{cache_folder}'")
    with pytest.raises(DataError, match=r"decoded images take 480 bytes, but only 100 bytes are free; .*cache=disk"):
        cache_splits(make_splits(make_pixels(ROWS)), "memory", "toys")


def test_images_above_the_limit_are_not_kept(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setattr(image_cache, "find_free_memory", lambda: 100)
    monkeypatch.setenv("DLSPEC_MAX_CACHE_BYTES", "1000")
    _, (note,) = cache_splits(make_splits(make_pixels(ROWS)), "auto", "toys")
    assert "more than the cache's limit of 1 kB" in note
    assert "DLSPEC_MAX_CACHE_BYTES" in note
    with pytest.raises(DataError, match=r"DLSPEC_MAX_CACHE_BYTES, or write data\.cache=false"):
        cache_splits(make_splits(make_pixels(ROWS)), "disk", "toys")
    assert not cache_folder.exists()


def test_the_least_recently_used_files_are_removed(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = CacheLayout(2, (4096,), "uint8")
    for age, name in enumerate(("new", "middle", "old")):
        store = FileStore(open_cache_file(cache_folder, name, layout), layout)
        for place in range(2):
            store.write(place, torch.ones(4096, dtype=torch.uint8))
        os.utime(cache_folder / f"{name}.images", (1e9 - age, 1e9 - age))
    monkeypatch.setenv("DLSPEC_MAX_CACHE_BYTES", str(3 * layout.file_bytes))
    assert make_room(cache_folder, "another", layout.file_bytes) == ""
    assert [each.path.stem for each in list_cache_files(cache_folder)] == ["new", "middle"]
    assert make_room(cache_folder, "new", layout.file_bytes) == ""
    assert len(list_cache_files(cache_folder)) == 2


def test_a_disk_without_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.data.images.cache_files.get_free_disk_bytes", lambda folder: 1000)
    with pytest.raises(DataError, match="has too little free space; make room"):
        cache_splits(make_splits(make_pixels(ROWS)), "disk", "toys")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_and_clears(dlspec: Callable[..., CommandResult], cache_folder: Path) -> None:
    assert dlspec("cache").out == f"no decoded images in '{cache_folder}'\n"
    _, path = fill(make_pixels(ROWS))
    (cache_folder / ".half.images.abc").write_bytes(b"")  # of a process that was killed
    (cache_folder / "notes.txt").write_text("not of the cache")
    shown = dlspec("cache").out
    assert "toys" in shown and "10  3 x 4 x 4 uint8" in shown and path.name in shown and "(not complete)" in shown
    records = json.loads(dlspec("cache", "--json").out)
    assert [each["images"] for each in records if each["data"]] == [10]
    assert "removed 2 files" in dlspec("cache", "clear").out
    assert [each.name for each in cache_folder.iterdir()] == ["notes.txt"]
    assert dlspec("cache", "clear").out == f"no decoded images in '{cache_folder}'\n"
    assert dlspec("cache", "--clear").code == 2


# ---- the setting -----------------------------------------------------------------------------------------------------


def test_a_cache_without_images_is_refused(dlspec: Callable[..., CommandResult], work: Path) -> None:
    (work / "rows.csv").write_text("a,b\n" + "1,yes\n2,no\n3,yes\n4,no\n" * 10)
    said = dlspec("validate", "model=mlp", "data=table", "data.path=rows.csv", "data.target=b", "data.cache=disc")
    assert "'cache' must be auto, memory, disk or False, got 'disc'" in said.err
    said = dlspec("inspect", "data=table", "data.path=rows.csv", "data.target=b", "data.cache=disk")
    assert said.code == 2
    assert "cache has no effect: the data have no images in files; remove cache" in said.err


def test_the_cache_is_not_part_of_a_job() -> None:
    words = ["model=cnn", "data=images", "data.path=pets", "data.size=8"]
    register()
    hashes = [
        compute_job_hash(make_preparation(compose_or_raise([*words, *more], start_hydra())).read())
        for more in ([], ["data.cache=false"], ["data.size=9"])
    ]
    assert hashes[0] == hashes[1] != hashes[2]
