"""Lazy arrays in splits and batches: equal to tensors to the last bit, read in threads, and read only where needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan, choose_evaluation_batch_size
from dlspec.data.batches.decoder_threads import open_decoders
from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.data.lazy_array import InMemoryArray, LazyArray, MapTasks, read_rows, read_rows_to_check, select_rows
from dlspec.errors import DataError
from dlspec.jobs.job_hash import compute_content_checksum
from helpers.lazy_arrays import FileArray, Unit, make_pixels

CPU = torch.device("cpu")
ROWS = 11


def make_splits(array: LazyArray) -> tuple[Split, Split]:
    """A split with a lazy image and a lazy mask, and the same split as tensors."""
    extra, label = torch.randn(ROWS, 3), torch.arange(ROWS) % 3
    mask = InMemoryArray(torch.arange(ROWS * 4, dtype=torch.uint8).reshape(ROWS, 2, 2) % 3, Long())
    lazy = Split({"image": array, "extra": extra}, {"label": label, "mask": mask})
    return lazy, Split({"image": array[:], "extra": extra}, {"label": label, "mask": mask[:]})


class Long(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.long()


def make_loaders(array: LazyArray, **options: Any) -> tuple[BatchLoader, BatchLoader]:
    lazy, plain = (
        BatchLoader(split, ("image", "extra"), ("label", "mask"), BatchPlan(3, **options), CPU)
        for split in make_splits(array)
    )
    return lazy, plain


def assert_equal_batches(lazy: BatchLoader, plain: BatchLoader, order: Callable[[BatchLoader], Any]) -> None:
    pairs = list(zip(order(lazy), order(plain), strict=True))
    assert pairs
    for (inputs, targets), (expected_inputs, expected_targets) in pairs:
        torch.testing.assert_close((inputs, targets), (expected_inputs, expected_targets), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_batches_of_lazy_arrays_are_those_of_tensors(workers: int, dtype: torch.dtype | None) -> None:
    lazy, plain = make_loaders(FileArray(make_pixels(ROWS)), workers=workers, dtype=dtype)
    assert_equal_batches(lazy, plain, lambda each: each.iterate_shuffled(5, 2))
    assert_equal_batches(lazy, plain, lambda each: each.iterate_shuffled(5, 2, start=2))
    assert_equal_batches(lazy, plain, lambda each: each.iterate_in_order())
    assert_equal_batches(lazy, plain, lambda each: [each.make_longest_batch(4)])
    targets = [torch.cat(each) for each in zip(*lazy.iterate_targets(4), strict=True)]
    expected = [torch.cat(each) for each in zip(*plain.iterate_targets(4), strict=True)]
    torch.testing.assert_close(targets, expected, rtol=0, atol=0)


def test_limited_batches_read_no_other_rows() -> None:
    array = FileArray(make_pixels(ROWS))
    lazy, plain = make_loaders(array, limit=2)
    array.read.clear()
    assert_equal_batches(lazy, plain, lambda each: each.iterate_in_order())
    assert sorted(array.read) == list(range(6))


def test_a_field_that_is_its_own_target_is_read_once() -> None:
    array = FileArray(make_pixels(ROWS))
    loader = BatchLoader(Split({"image": array}), ("image",), ("image",), BatchPlan(4), CPU)
    for (image,), (target,) in loader.iterate_in_order():
        assert torch.equal(image, target)
    assert sorted(array.read) == list(range(ROWS))


def test_rows_are_selected_without_reading() -> None:
    array = FileArray(make_pixels(ROWS))
    whole = array[:]
    array.read.clear()
    chosen = select_rows(select_rows(array, slice(2, 9)), torch.tensor([4, 0, 6]))
    split = Split({"image": array}, {"label": torch.zeros(ROWS)}).take(torch.tensor([3, 1]))
    assert (len(chosen), chosen.shape, len(split), array.read) == (3, (3, *array.shape[1:]), 2, [])
    assert torch.equal(read_rows(chosen), whole[[6, 2, 8]])
    assert torch.equal(read_rows(split.input("image"), slice(1)), whole[[3]])
    assert torch.equal(array[4], whole[4])
    assert array[:0].shape == (0, *array.shape[1:])
    array.read.clear()
    read_rows_to_check(array)
    assert choose_evaluation_batch_size(Split({"image": array}), ["image"], 32, CPU) == 256
    assert array.read == [0, 1]


def make_data(array: LazyArray) -> Dataset:
    split = Split({"image": array}, {"label": torch.arange(len(array)) % 3})
    fields = (Field("image", array.shape[1:], "channels-first"),)
    return Dataset("lazy", fields, (Target("label", "classes", (), ("a", "b", "c")),), split, split, split)


def test_the_checksum_is_that_of_the_content() -> None:
    pixels = make_pixels(ROWS)
    data = make_data(FileArray(pixels))
    assert compute_content_checksum(data) == compute_content_checksum(make_data(FileArray(pixels.clone())))
    other = pixels.clone()
    other[5, 0, 0, 0] += 1
    assert compute_content_checksum(data) != compute_content_checksum(make_data(FileArray(other)))
    swapped = replace(data, train=data.train.take(torch.tensor([1, 0])), test=data.test.take(slice(2)))
    assert compute_content_checksum(swapped) != compute_content_checksum(
        replace(data, train=data.train.take(slice(2)), test=data.test.take(slice(2)))
    )


# ---- errors and threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_of_a_file_is_raised_at_its_batch(workers: int) -> None:
    array = FileArray(make_pixels(ROWS), bad_row=7)
    batches = BatchLoader(Split({"image": array}), ("image",), (), BatchPlan(3, workers=workers), CPU)
    seen = 0
    with pytest.raises(DataError, match=r"image_7.png: truncated"):
        for _ in batches.iterate_in_order():
            seen += 1
    assert seen == 2
    assert not list_decoder_threads()


def list_decoder_threads() -> list[str]:
    names = [each.name for each in threading.enumerate()]
    return [each for each in names if each.startswith(("dlspec-decoders", "dlspec-batches"))]


def test_an_iterator_that_is_left_stops_reading() -> None:
    array = FileArray(make_pixels(400), seconds=0.002)
    batches = BatchLoader(Split({"image": array}), ("image",), (), BatchPlan(100, workers=1), CPU)
    iterator = batches.iterate_in_order()
    next(iterator)
    del iterator
    assert not list_decoder_threads()
    assert len(array.read) < 400


def test_files_of_a_batch_are_decoded_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=20)

    class Waiting(FileArray):
        def read_row(self, row: int) -> Tensor:
            barrier.wait()
            return super().read_row(row)

    batches = BatchLoader(Split({"image": Waiting(make_pixels(3))}), ("image",), (), BatchPlan(3, workers=3), CPU)
    assert len(list(batches.iterate_in_order())) == 1  # a single thread would wait for ever


def test_batches_are_read_ahead() -> None:
    array = FileArray(make_pixels(40))
    batches = BatchLoader(Split({"image": array}), ("image",), (), BatchPlan(2), CPU).iterate_in_order()
    next(batches)
    next(batches)
    for _ in range(500):
        if len(array.read) >= 10:
            break
        time.sleep(0.01)
    assert 10 <= len(array.read) <= 20
    batches.close()  # type: ignore[attr-defined]


def test_large_batches_are_not_read_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.data.batches.batch_completion.MAX_BYTES_AHEAD", 1)
    array = FileArray(make_pixels(40))
    batches = BatchLoader(Split({"image": array}), ("image",), (), BatchPlan(2), CPU).iterate_in_order()
    next(batches)
    next(batches)
    time.sleep(0.1)
    assert len(array.read) <= 6
    batches.close()  # type: ignore[attr-defined]


def test_decoders_leave_the_number_of_threads_of_others() -> None:
    before = torch.get_num_threads()
    with open_decoders(2) as decoders:
        assert list(decoders.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before


# ---- augmentation ----------------------------------------------------------------------------------------------------


class Recorder:
    """An augmentation that notes its arguments, and changes images and labels by their numbers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(
        self, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], seed: int, epoch: int, batch: int
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        image = inputs["image"]
        self.calls.append((list(inputs), list(targets), image.dtype, seed, epoch, batch))
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        changed = (image * (batch + 1) / (epoch + 7)).clamp(max=1)
        return {**inputs, "image": changed}, {**targets, "label": targets["label"] + 100}


@pytest.mark.parametrize("workers", [0, 3])
def test_training_batches_are_augmented_before_they_are_prepared(workers: int) -> None:
    recorder = Recorder()
    lazy, plain = make_loaders(FileArray(make_pixels(ROWS)), workers=workers, augmentation=recorder)
    for number, ((image, _), (label, mask)) in enumerate(lazy.iterate_shuffled(5, 2, start=1), 1):
        rows = lazy.shuffle_samples(5, 2)[3 * number : 3 * number + 3]
        unit = (make_pixels(ROWS)[rows].float() / 255 * (number + 1) / 9).clamp(max=1)
        torch.testing.assert_close(image, Unit()(unit), rtol=0, atol=1e-6)
        assert torch.equal(label, rows % 3 + 100)
        assert mask.dtype == torch.int64
    names = (["image", "extra"], ["label", "mask"], torch.uint8)
    assert recorder.calls == [(*names, 5, 2, batch) for batch in (1, 2, 3)]
    list(lazy.iterate_in_order())
    assert len(recorder.calls) == 3  # nothing is augmented for evaluation
    assert_equal_images(plain, recorder)


def assert_equal_images(plain: BatchLoader, recorder: Recorder) -> None:
    """Tensors are augmented too, with the same numbers."""
    recorder.calls.clear()
    batches = list(plain.iterate_shuffled(5, 2, start=1))
    assert [each[-3:] for each in recorder.calls] == [(5, 2, batch) for batch in (1, 2, 3)]
    assert all((targets[0] >= 100).all() for _, targets in batches)


def test_a_map_that_is_serial_reads_the_same() -> None:
    def reverse(task: Callable[[Any], Any], items: Any) -> Any:
        return reversed([task(each) for each in reversed(list(items))])

    array, rows = FileArray(make_pixels(ROWS)), torch.tensor([4, 2, 9])
    maps: list[MapTasks] = [map, reverse]
    assert torch.equal(*(array.gather(rows, each) for each in maps))
