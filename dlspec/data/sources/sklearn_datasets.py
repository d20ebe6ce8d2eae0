"""Three small data sets that come with scikit-learn: digits, breast_cancer and diabetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dlspec.compat.sklearn import find_data_folder
from dlspec.data.sources.source import SplitSource, data_source
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset
    from dlspec.data.prepare.kinds.plain_kinds import Divided

MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points"),
    *("symmetry", "fractal dimension"),
)
# The columns of the data sets as scikit-learn names them.
TUMOUR_COLUMNS = (
    *(f"mean {each}" for each in MEASURES),
    *(f"{each} error" for each in MEASURES),
    *(f"worst {each}" for each in MEASURES),
)
PATIENT_COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


@data_source("digits")
class Digits(SplitSource):
    """1,797 handwritten digits: field `image`, channels-first (1, 8, 8) in [0, 1]; target `digit`, 10 classes.

    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository; scikit-learn's copy.
    """

    def open(self) -> Dataset:
        """Read the data, in about 20 ms."""
        from dlspec.data import dataset
        from dlspec.data.array_splits import make_splits

        images, labels = read_digits()
        field = dataset.Field("image", (1, 8, 8), "channels-first")
        target = dataset.Target("digit", "classes", (), tuple("0123456789"))
        parts = self.parts(len(labels), self.test, labels)
        preprocessing = {"image": make_digits_scale().to_json()}
        splits = make_splits({"image": images}, {"digit": labels}, parts)
        return dataset.Dataset(self.source_name, (field,), (target,), *splits, preprocessing)


def read_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the images (N, 1, 8, 8), in [0, 1], and the digit of each (N,)."""
    import numpy as np

    table = _read_table("digits.csv.gz", np.uint8, delimiter=",")
    images = table[:, :64].reshape(-1, 1, 8, 8)
    return make_digits_scale().apply(images).values, table[:, 64].astype(np.int64)


def make_digits_scale() -> Divided:
    """Make the scale of the images: their pixels are 0 to 16."""
    from dlspec.data.prepare.kinds.plain_kinds import Divided

    return Divided(16.0)


@data_source("breast_cancer")
class BreastCancer(SplitSource):
    """569 tumours: field `features` (30,), target `diagnosis`: benign (0) or malignant (1, the positive class).

    Features are standardized with the training split's mean and deviation. Source: W. H. Wolberg, W. N. Street and
    O. L. Mangasarian, Wisconsin Diagnostic Breast Cancer, UCI; scikit-learn's copy, which counts malignant as 0.
    """

    def open(self) -> Dataset:
        import numpy as np

        from dlspec.data import dataset
        from dlspec.data.array_splits import make_splits
        from dlspec.data.prepare.kinds.plain_kinds import Standardized

        table = _read_table("breast_cancer.csv", np.float64, delimiter=",", skiprows=1)
        labels = 1 - table[:, 30].astype(np.int64)
        parts = self.parts(len(labels), self.test, labels)
        fitted = Standardized.fit(table[parts.train, :30])
        features = fitted.apply(table[:, :30]).values
        field = dataset.Field("features", (30,), "features")
        target = dataset.Target("diagnosis", "classes", (), ("benign", "malignant"))
        preprocessing = {"features": fitted.to_json()}
        splits = make_splits({"features": features}, {"diagnosis": labels}, parts)
        return dataset.Dataset(self.source_name, (field,), (target,), *splits, preprocessing,
                               column_names={"features": TUMOUR_COLUMNS})  # fmt: skip


@data_source("diabetes")
class Diabetes(SplitSource):
    """442 patients: field `features` (10,), target `progression` of the disease after a year, from 25 to 346.

    Features are age, sex, body mass index, blood pressure and six measurements of blood serum (scikit-learn's
    `scaled=False`), standardized with the training split's mean and deviation.
    Source: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani (2004), Least Angle Regression.
    """

    standardize_target: bool = Field(
        True, description="train on the standardized target; results are reported in the original unit"
    )

    def open(self) -> Dataset:
        import numpy as np

        from dlspec.data import dataset
        from dlspec.data.array_splits import make_splits
        from dlspec.data.prepare.kinds.plain_kinds import Standardized
        from dlspec.data.target_scale import TargetScale

        table = _read_table("diabetes_data_raw.csv.gz", np.float64)
        numbers = _read_table("diabetes_target.csv.gz", np.float64)
        parts = self.parts(len(numbers), self.test)
        fitted = Standardized.fit(table[parts.train])
        preprocessing = {"features": fitted.to_json()}
        scale = None
        if self.standardize_target:
            fitted_target = Standardized.fit(numbers[parts.train])
            numbers = fitted_target.apply(numbers).values
            scale = TargetScale.from_scale(fitted_target.scale)
            preprocessing["progression"] = fitted_target.to_json()
        field = dataset.Field("features", (10,), "features")
        unscaled = "data.standardize_target=false"
        target = dataset.Target("progression", "numbers", scale=scale, unscaled_setting=unscaled)
        splits = make_splits(
            {"features": fitted.apply(table).values}, {"progression": numbers.astype(np.float32)}, parts
        )
        return dataset.Dataset(self.source_name, (field,), (target,), *splits, preprocessing,
                               column_names={"features": PATIENT_COLUMNS})  # fmt: skip


def _read_table(name: str, dtype: type[np.generic], **options: Any) -> NDArray[Any]:
    """Read a table of numbers from scikit-learn's files."""
    import numpy as np

    folder = find_data_folder()
    if folder is None:
        found = "this data set comes with scikit-learn, which is not installed: pip install scikit-learn"
        raise DataError("", found, Code.NOT_INSTALLED)
    try:
        return np.loadtxt(folder / name, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise DataError(
            "", f"scikit-learn's {name} can't be read ({error}): reinstall scikit-learn", Code.FILE_UNREADABLE
        ) from None
