"""Image data sets: MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from dlspec.data.files.paths import expand_home
from dlspec.data.sources.source import DataSource, data_source
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MAX_DOWNLOAD_BYTES = 50_000_000
CONTENT_SHA256 = {  # checksums of the unzipped content of the four files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FOUR_FILES = " and ".join(", ".join(CONTENT_SHA256).rsplit(", ", 1)) + " (each may end in .gz)"


@data_source("mnist")
class Mnist(DataSource):
    """70,000 handwritten digits: field `image`, channels-first (1, 28, 28) in [0, 1]; target `digit`, 10 classes.

    The test split is the official one (10,000). Other data in the same four files work too, such as Fashion-MNIST.
    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits.
    """

    path: str | None = Field(
        None, description="folder with the four IDX files, gzipped or not; null: the cache, downloaded if needed"
    )
    validation: float = Field(
        5_000 / 60_000, ge=0, lt=1, description="fraction of the 60,000 training images used for validation"
    )

    def open(self) -> Dataset:
        """Read the files, in under a second once they are downloaded; 220 MB in memory."""
        import torch

        from dlspec.data import dataset

        folder = self._find_folder()
        images, labels = _read_images_and_labels(folder, "train")
        test_images, test_labels = _read_images_and_labels(folder, "t10k")
        parts = self.parts(len(labels), 0.0, labels)
        test_rows = self._limit_test_rows(test_labels)

        def split(pixels: NDArray[np.uint8], digits: NDArray[np.int64], rows: NDArray[np.int64]) -> dataset.Split:
            chosen = torch.from_numpy(pixels[rows]).float().div_(255).unsqueeze(1)  # (N, 1, 28, 28)
            return dataset.Split({"image": chosen}, {"digit": torch.from_numpy(digits[rows])}, rows + 1)

        return dataset.Dataset(
            self.source_name,
            (dataset.Field("image", (1, 28, 28), "channels-first"),),
            (dataset.Target("digit", "classes", (), tuple("0123456789")),),
            train=split(images, labels, parts.train),
            validation=split(images, labels, parts.validation),
            test=split(test_images, test_labels, test_rows),
            preprocessing={"image": {"kind": "divide", "by": 255.0}},
        )

    def _limit_test_rows(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choose the official test images that `limit` keeps."""
        import numpy as np

        from dlspec.data.split_indices import limit_rows

        generator = np.random.Generator(np.random.PCG64(self.split_seed))
        return limit_rows(np.arange(len(labels)), labels, self.limit, generator)

    def _find_folder(self) -> Path:
        if self.path is not None:
            return _check_folder(expand_home(self.path))
        from dlspec.data.files.download import find_cache_folder

        folder = find_cache_folder("mnist")
        for name in _find_missing(folder):
            _download_file(name, folder)
        return folder


def _check_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError("path", f"found no folder '{folder}'; it must contain {FOUR_FILES}", Code.FILE_UNREADABLE)
    if missing := _find_missing(folder):
        raise DataError(
            "path", f"'{folder}' lacks {', '.join(missing)}; it must contain {FOUR_FILES}", Code.FILE_UNREADABLE
        )
    return folder


def _find_missing(folder: Path) -> list[str]:
    return [name for name in CONTENT_SHA256 if _find_file(folder, name) is None]


def _find_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _download_file(name: str, folder: Path) -> None:
    from dlspec.data.files.download import DownloadError, download

    try:
        download(f"{MIRROR}{name}.gz", folder / f"{name}.gz", CONTENT_SHA256[name], MAX_DOWNLOAD_BYTES)
    except DownloadError as error:
        fix = f"put {FOUR_FILES} into '{folder}', or give their folder as data.path=FOLDER"
        raise DataError("path", f"MNIST could not be downloaded ({error}); {fix}", Code.FILE_UNREADABLE) from None


def _read_images_and_labels(folder: Path, file_prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the images (N, 28, 28) and labels (N,) of `train` or `t10k`."""
    images = _read_samples(folder, f"{file_prefix}-images-idx3-ubyte", (28, 28))
    labels = _read_samples(folder, f"{file_prefix}-labels-idx1-ubyte", ())
    if len(images) != len(labels):
        found = f"{len(images):,} images and {len(labels):,} labels"
        raise DataError(
            "path", f"'{folder}': the {file_prefix} files must contain as many labels as images, got {found}"
        )
    if labels.max() > 9:
        raise DataError("path", f"'{folder}': the {file_prefix} labels must be 0 to 9, got {labels.max()}")
    return images, labels.astype("int64")


def _read_samples(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from dlspec.data.files.idx import read_idx

    path = _find_file(folder, name)
    if path is None:
        raise DataError("path", f"'{folder}' lacks {name}; it must contain {FOUR_FILES}", Code.FILE_UNREADABLE)
    return read_idx(path, shape)
