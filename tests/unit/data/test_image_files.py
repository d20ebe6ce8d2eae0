"""Image files of every mode beside Pillow and NumPy; sizes; and files that can't be read, each with its reason."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dlspec.data.images.image_array import ImageArray, ImageForm, PrepareImages, PrepareMasks
from dlspec.data.images.image_cells import ImageCell, convert_array, make_image_cells
from dlspec.data.images.image_decoding import CHANNELS_OF_MODE, MODES, decode_image, decode_mask, describe_image
from dlspec.data.images.image_paths import find_image_files
from dlspec.data.images.pillow_files import read_image_file
from dlspec.data.images.resizing import RESIZES, Resize, crop_center, resize_image, resize_mask
from dlspec.errors import DataError
from helpers.image_files import encode, make_exif, make_pixels, write_image

RGB, GREY, RGBA = make_pixels(), make_pixels(channels=1), make_pixels(channels=4)
DEEP = make_pixels(channels=1).astype(np.uint16) * 257 + 3
CMYK = Image.fromarray(RGB).convert("CMYK")

# name → content, what the header says of its colours
FILES: dict[str, tuple[bytes, str]] = {
    "png": (encode(RGB), "RGB"),
    "grey png": (encode(GREY), "grey"),
    "bilevel png": (encode(Image.fromarray(GREY).convert("1")), "black and white"),
    "palette png": (encode(Image.fromarray(RGB).quantize(9)), "palette"),
    "palette with transparency": (encode(Image.fromarray(RGB).quantize(9), transparency=2), "palette"),
    "rgba png": (encode(RGBA), "RGB"),
    "rgb with a transparent colour": (encode(RGB, transparency=tuple(RGB[0, 0].tolist())), "RGB"),
    "grey with alpha": (encode(Image.fromarray(RGBA).convert("LA")), "grey"),
    "16-bit png": (encode(Image.fromarray(DEEP)), "16-bit grey"),
    "16-bit tiff": (encode(Image.fromarray(DEEP), "TIFF"), "16-bit grey"),
    "jpeg": (encode(RGB, "JPEG"), "RGB"),
    "grey jpeg": (encode(GREY, "JPEG"), "grey"),
    "cmyk jpeg": (encode(CMYK, "JPEG"), "CMYK"),
    "cmyk tiff": (encode(CMYK, "TIFF"), "CMYK"),
    "progressive jpeg": (encode(RGB, "JPEG", progressive=True), "RGB"),
    **{f"jpeg held {turn}": (encode(RGB, "JPEG", exif=make_exif(turn)), "RGB") for turn in range(2, 9)},
    "png held 6": (encode(RGB, exif=make_exif(6)), "RGB"),
    "tiff held 8": (encode(RGB, "TIFF", exif=make_exif(8)), "RGB"),
    "webp held 3": (encode(RGB, "WEBP", exif=make_exif(3)), "RGB"),
    "gif": (encode(Image.fromarray(RGB).quantize(9), "GIF"), "palette"),
    "animated gif": (encode(Image.fromarray(RGB).quantize(9), "GIF", save_all=True,
                            append_images=[Image.fromarray(RGB[::-1].copy()).quantize(9)]), "palette"),
    "webp": (encode(RGBA, "WEBP", lossless=True), "RGB"),
    "bmp": (encode(RGB, "BMP"), "RGB"),
    "tiff": (encode(RGB, "TIFF", compression="tiff_lzw"), "RGB"),
    "ppm": (encode(RGB, "PPM"), "RGB"),
    "pgm": (encode(GREY, "PPM"), "grey"),
    "hsv tiff": (encode(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), "YCbCr"),
}  # fmt: skip


def open_with_pillow(content: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(content)))


def put_on_white(image: Image.Image) -> Image.Image:
    """Blend with white by hand, in floating point."""
    rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = rgba[..., 3:] / 255
    return Image.fromarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


def expect(content: bytes, mode: str) -> np.ndarray[Any, Any]:
    """The pixels (C, H, W) as Pillow and NumPy make them."""
    image = open_with_pillow(content)
    if image.mode.startswith("I"):
        grey = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        image = grey
    if mode == "rgba":
        return np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
    image = put_on_white(image) if "A" in image.mode or "transparency" in image.info else image.convert("RGB")
    return np.asarray(image).transpose(2, 0, 1) if mode == "rgb" else np.asarray(image.convert("L"))[None]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_pillow(name: str, mode: Any) -> None:
    content, _ = FILES[name]
    found = decode_image(content, mode, 8)
    expected = expect(content, mode)
    assert found.dtype == np.uint8 and found.shape == expected.shape and len(found) == CHANNELS_OF_MODE[mode]
    difference = np.abs(found.astype(int) - expected.astype(int)).max()
    assert difference <= (1 if describe_image(content).has_alpha else 0)  # of rounding, where colours are blended


@pytest.mark.parametrize("name", FILES)
def test_headers_say_what_decoding_gives(name: str) -> None:
    content, colours = FILES[name]
    facts = describe_image(content)
    image = open_with_pillow(content)
    assert (facts.height, facts.width, facts.colours) == (image.height, image.width, colours)
    assert facts.is_turned == ("held" in name) and facts.is_animated == ("animated" in name)
    assert facts.has_16_bits == ("16-bit" in name)
    rgb = decode_image(content, "rgb", 8)
    assert facts.is_grey == bool((rgb == rgb[:1]).all())


def test_16_bits_become_numbers_from_0_to_1() -> None:
    found = decode_image(FILES["16-bit png"][0], "rgb", 16)
    np.testing.assert_array_equal(found, np.stack([DEEP.astype(np.float32) / np.float32(65_535)] * 3))
    np.testing.assert_array_equal(decode_image(FILES["png"][0], "rgb", 16), RGB.transpose(2, 0, 1) / np.float32(255))
    assert decode_image(FILES["16-bit png"][0], "rgba", 16)[3].min() == 1


def test_a_palette_of_greys_is_grey() -> None:
    assert describe_image(encode(Image.fromarray(GREY).quantize(9))).is_grey
    assert not describe_image(encode(Image.fromarray(RGB).quantize(9), "GIF")).is_grey


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box"), [((12, 16), (0, 0, 16, 12)), ((5, 5), (2, 0, 14, 12)), ((6, 12), (0, 2, 16, 10))]
)
def test_cover_is_the_center_resized(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    found = resize_image(RGB.transpose(2, 0, 1), size, "cover").numpy().transpose(1, 2, 0)
    expected = np.asarray(Image.fromarray(RGB).crop(box).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_fit_keeps_all_with_borders() -> None:
    found = resize_image(np.full((1, 12, 16), 9, np.uint8), (8, 8), "fit")
    assert (found[0, 1:7] == 9).all() and (found[0, [0, 7]] == 0).all()
    mask = resize_mask(np.full((12, 16), 9, np.uint8), (8, 8), "fit", 255)
    assert (mask[1:7] == 9).all() and (mask[[0, 7]] == 255).all()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1), (7, 3)])
def test_any_shape_becomes_the_size(shape: tuple[int, int], resize: Resize) -> None:
    pixels = np.full(shape, 3, np.uint8)
    assert resize_image(pixels[None], (32, 20), resize).shape == (1, 32, 20)
    assert resize_mask(pixels, (32, 20), resize, 0).shape == (32, 20)


@pytest.mark.parametrize("resize", RESIZES)
def test_a_mask_takes_the_pixels_that_its_image_does(resize: Resize) -> None:
    """An image of two flat halves and its mask agree everywhere but at the border between them."""
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 23:] = 1
    image = resize_image(mask[None] * np.uint8(200), (24, 24), resize)[0].float() / 200
    classes = resize_mask(mask, (24, 24), resize, 0).float()
    assert ((image - classes).abs() > 0.6).sum() == 0 and (image - classes).abs().max() <= 0.6
    assert torch.equal(image.round()[:, 0], classes[:, 0]) and torch.equal(image.round()[:, -1], classes[:, -1])


def test_masks_are_resized_as_pillow_does() -> None:
    mask = make_pixels(31, 41, 1)
    found = resize_mask(mask, (13, 17), "stretch", 0).numpy()
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(mask).resize((17, 13), Image.Resampling.NEAREST)))


def test_the_center_of_the_stored_size_is_prepared() -> None:
    stored = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    module = PrepareImages((4, 6), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    expected = (stored[:, :, 2:6, 1:7] / 255 - torch.tensor([0.5, 0.25, 0]).view(3, 1, 1)) / torch.tensor(
        [0.5, 1, 2]
    ).view(3, 1, 1)
    assert torch.equal(module(stored), expected)
    assert torch.equal(module(stored.float() / 255), expected)  # what augmentation gives
    masks = torch.tensor([[[0, 255], [3, 1]]], dtype=torch.uint8)
    assert PrepareMasks((2, 2))(masks).tolist() == [[[0, -100], [3, 1]]]
    assert PrepareMasks((2, 2))(masks.long() - 100).tolist() == [[[-100, 155], [-97, -99]]]
    assert torch.equal(crop_center(masks, (2, 2)), masks)


# ---- masks and arrays ------------------------------------------------------------------------------------------------


def test_numbers_and_colours_of_masks() -> None:
    numbers = GREY % 5
    assert (decode_mask(encode(numbers), is_colour=False) == numbers).all()
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    assert (decode_mask(encode(palette), is_colour=False) == numbers).all()  # the indices, as VOC has them
    colours = decode_mask(encode(palette), is_colour=True)
    assert set(np.unique(colours).tolist()) == {0, 0xFF0000, 0x00FF00, 0x0000FF, 0x090909}
    assert (decode_mask(encode(np.stack([numbers] * 3, 2)), is_colour=False) == numbers).all()
    assert (decode_mask(encode(Image.fromarray(GREY).convert("1")), is_colour=False) <= 1).all()
    assert (decode_mask(encode(Image.fromarray(DEEP)), is_colour=False) == DEEP).all()
    for content, reason in ((encode(RGB), "colours"), (encode(GREY, "JPEG"), "JPEG")):
        with pytest.raises(DataError, match=reason):
            decode_mask(content, is_colour=False)


def test_arrays_are_images() -> None:
    for array, expected in (
        (GREY, GREY), (GREY[..., None], GREY), (RGB, RGB), (RGBA, RGBA), (GREY > 99, (GREY > 99) * 255),
        (RGB.astype(np.int64), RGB), (RGB / np.float32(255), RGB), (DEEP, DEEP), (RGB.tolist(), RGB),
    ):  # fmt: skip
        np.testing.assert_array_equal(np.asarray(convert_array(np.asarray(array))), expected)
    for wrong in (
        np.zeros(3),
        np.zeros((2, 3, 5)),
        np.full((2, 2), 256),
        np.full((2, 2), -0.1),
        np.full((2, 2), np.nan),
    ):
        (cell,) = make_image_cells([wrong], lambda row: "")
        assert cell.problem and not cell.facts


# ---- files that can't be read ----------------------------------------------------------------------------------------

FORM = ImageForm((8, 8), "cover", "rgb", 8)


def explain(content: bytes) -> str:
    """Why an image can't be used: told by its header, or else when it is decoded; '' if it can be."""
    cell = ImageCell(content)
    cell.examine()
    cells = np.empty(1, object)
    cells[0] = cell
    return cell.problem or ImageArray(cells, FORM, PrepareImages((8, 8)), (3, 8, 8)).try_rows([0]).get(0, "")


MUTATED = ("png", "jpeg", "gif", "webp", "bmp", "tiff", "ppm", "16-bit png", "cmyk jpeg", "palette png", "jpeg held 6")


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Cut a file, change some bytes, leave some out, or repeat some."""
    at, more = generator.randrange(len(content)), generator.randrange(1, 30)
    choice = generator.randrange(4)
    if choice == 0:
        return content[:at]
    if choice == 1:
        return content[:at] + generator.randbytes(more) + content[at + more :]
    return content[:at] + content[at + more :] if choice == 2 else content[: at + more] + content[at:]


@pytest.mark.parametrize("name", MUTATED)
def test_damaged_files_are_read_or_have_a_reason(name: str) -> None:
    generator, content = random.Random(name), FILES[name][0]
    reasons = [explain(mutate(content, generator)) for _ in range(28)]
    assert all("\n" not in reason and "Traceback" not in reason for reason in reasons)
    assert any(reasons)


@pytest.mark.parametrize("name", ["png", "jpeg", "gif", "webp", "bmp", "tiff", "ppm"])
def test_a_truncated_file_is_found_when_it_is_opened(name: str) -> None:
    content = encode(make_pixels(64, 64), {"ppm": "PPM"}.get(name, name.upper()))
    for share in (0.0, 0.01, 0.3, 0.7, 0.95):
        cell = ImageCell(content[: int(share * len(content))])
        cell.examine()
        assert cell.problem


def make_bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims to have any number of pixels."""
    header = b"IHDR" + struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks
    )


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "empty"),
    "text": (lambda file: file.write_text("hello"), "not an image"),
    "svg": (lambda file: file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    "eps": (lambda file: file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image"),
    "missing": (lambda file: None, "no file"),
    "folder": (lambda file: file.mkdir(), "a folder, pipe or device"),
    "pipe": (os.mkfifo, "a folder, pipe or device"),
    "endless": (lambda file: file.symlink_to("/proc/self/pagemap"), "empty"),
    "device": (lambda file: file.symlink_to("/dev/zero"), "a folder, pipe or device"),
    "floating point": (lambda file: Image.fromarray(np.zeros((2, 2), np.float32)).save(file, "TIFF"), "floating"),
    "decompression bomb": (lambda file: file.write_bytes(make_bomb(50_000)), "50,000 pixels, more than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_have_a_reason(name: str, tmp_path: Path) -> None:
    write, reason = WRONG[name]
    if name == "endless" and not Path("/proc/self/pagemap").exists():
        pytest.skip("only Linux has such files")
    write(tmp_path / "a.png")
    (cell,) = make_image_cells(["a.png"], lambda row: str(tmp_path))
    cell.examine()
    cells = np.array([cell], object)
    problem = cell.problem or ImageArray(cells, FORM, PrepareImages((8, 8)), (3, 8, 8)).try_rows([0])[0]
    assert reason in problem, problem


def test_limits_are_those_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(write_image(tmp_path / "a.png", RGB))
    monkeypatch.setenv("DLSPEC_MAX_IMAGE_PIXELS", "100")
    with pytest.raises(DataError, match=r"16 x 12 pixels, more than 100: .*DLSPEC_MAX_IMAGE_PIXELS"):
        describe_image(read_image_file(file))
    monkeypatch.setenv("DLSPEC_MAX_IMAGE_BYTES", "100")
    with pytest.raises(DataError, match=r"bytes, more than 100: .*DLSPEC_MAX_IMAGE_BYTES"):
        read_image_file(file)


# ---- names of files --------------------------------------------------------------------------------------------------


def test_patterns_find_exactly_one_file(tmp_path: Path) -> None:
    for name in ("part_1/a.jpg", "part_2/b.jpg", "part_2/c.jpg", "part_1/c.jpg", "part_1/.b.jpg", "part_2/d_x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    ids = ["a", "b", "c", "e", None]
    cells = find_image_files(f"{tmp_path}/part_*/{{id}}.jpg", {"id": ids}, 5, "", "columns.image")
    assert [cell and str(cell) for cell in cells[:2]] == [f"{tmp_path}/part_1/a.jpg", f"{tmp_path}/part_2/b.jpg"]
    assert "2 files match" in cells[2].problem and "no file matches" in cells[3].problem and cells[4] is None
    (cell,) = find_image_files("part_2/{id}_*.png", {"id": ["d"]}, 1, str(tmp_path), "columns.image")
    assert str(cell) == f"{tmp_path}/part_2/d_x.png" and not cell.problem
    (tmp_path / "tables/2024").mkdir(parents=True)
    for start in ("tables/2024", "tables", ""):  # the pattern's first folder is above the table
        (cell,) = find_image_files("part_1/{id}.jpg", {"id": ["a"]}, 1, str(tmp_path / start), "columns.image")
        assert str(cell) == f"{tmp_path}/part_1/a.jpg"
    (cell,) = find_image_files("{id}.jpg", {"id": ["a"]}, 1, str(tmp_path / "part_1"), "columns.image")
    assert str(cell) == f"{tmp_path}/part_1/a.jpg"
    with pytest.raises(DataError, match="no column 'ix'; available: id"):
        find_image_files("{ix}.jpg", {"id": ids}, 5, "", "columns.image")
    with pytest.raises(DataError, match="same file in each row"):
        find_image_files("a.jpg", {"id": ids}, 5, "", "columns.image")
