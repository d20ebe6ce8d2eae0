"""A small segmentation data set, with a class for every pixel, made from the handwritten digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlspec.data.sources.source import SplitSource, data_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset, Split

MIN_INK = 0.5  # pixels from this value on belong to the digit; lighter edges are background


@data_source("digits_segments")
class DigitsSegments(SplitSource):
    """Images of four digits: field `image`, channels-first (1, 16, 16) in [0, 1]; target `segments`, (16, 16) classes.

    Class 0 is the background, class 1 + d the pixels of a digit d. Each image of `digits` is once in the upper left,
    with three others of its split, so that no training digit occurs in the test.
    """

    def open(self) -> Dataset:
        import numpy as np

        from dlspec.data import dataset
        from dlspec.data.sources.sklearn_datasets import read_digits

        images, digits = read_digits()
        parts = self.parts(len(digits), self.test, digits)
        generator = np.random.Generator(np.random.PCG64([self.split_seed, 1]))
        return dataset.Dataset(
            self.source_name,
            (dataset.Field("image", (1, 16, 16), "channels-first"),),
            (dataset.Target("segments", "classes", (16, 16), ("background", *"0123456789")),),
            train=_make_split(images[:, 0], digits, parts.train, generator),
            validation=_make_split(images[:, 0], digits, parts.validation, generator),
            test=_make_split(images[:, 0], digits, parts.test, generator),
            preprocessing={"image": {"kind": "divide", "by": 16.0}},
        )


def _make_split(
    images: NDArray[np.float32], digits: NDArray[np.int64], rows: NDArray[np.int64], generator: np.random.Generator
) -> Split:
    """Make one image of four digits for each row: the digit of this row and three drawn from all rows."""
    import numpy as np
    import torch

    from dlspec.data.dataset import Split

    chosen = np.stack([rows, *(generator.permutation(rows) for _ in range(3))])  # (4, N)
    ink = images[chosen]  # (4, N, 8, 8)
    classes = np.where(ink >= MIN_INK, digits[chosen][..., None, None] + 1, 0)
    pictures, segments = (torch.from_numpy(_tile_four_images(each)) for each in (ink, classes))
    return Split({"image": pictures.unsqueeze(1)}, {"segments": segments})


def _tile_four_images(four: NDArray[Any]) -> NDArray[Any]:
    """Join (4, N, 8, 8) to (N, 16, 16): upper left, upper right, lower left, lower right."""
    import numpy as np

    halves = [np.concatenate([four[index], four[index + 1]], axis=2) for index in (0, 2)]
    return np.concatenate(halves, axis=1)
