"""Random data of any shape, to try a model without files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dlspec.data.sources.random_fields import RandomField, RandomTarget, check_field_settings
from dlspec.data.sources.source import Size, SplitSource, data_source, make_size_error
from dlspec.errors import InvalidSetting, KeyPath, suggest
from dlspec.limits import MAX_CLASSES, MAX_DATA_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset

SINGLE_FIELD_SETTINGS = ("shape", "vocab_size", "length")  # the settings of the only field, `input`

# `RandomData.shrink` keeps at most this many bytes, but at least this many samples.
MAX_SHRUNK_BYTES, MIN_SHRUNK_SAMPLES = 2**24, 32


@data_source("random")
class RandomData(SplitSource):
    """Random numbers or tokens with random targets, which a model can only memorize.

    Without `fields` there is one field, `input`, given by `shape` or by `vocab_size` and `length`. Without `targets`
    there is one target, `label`, given by `num_classes`. The defaults are images (1, 28, 28) and 10 classes.
    """

    stated: ClassVar[tuple[str, ...]] = ()

    size: int = Field(1024, ge=1, description="number of samples in all splits together")
    shape: list[Size] | None = Field(None, description="shape of a sample, without the batch: [3, 32, 32]")
    vocab_size: int | None = Field(None, ge=1, le=2**31, description="for tokens: number of different tokens")
    length: int | None = Field(None, ge=1, description="for tokens: number of tokens in a sample")
    num_classes: int | None = Field(
        None, ge=2, le=MAX_CLASSES, description="number of classes; null: the target is a number"
    )
    fields: dict[str, RandomField] | None = Field(
        None, description="instead of shape or tokens: multiple fields by name"
    )
    targets: dict[str, RandomTarget] | None = Field(
        None, description="instead of num_classes: multiple targets by name"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        """Fill in the default field and target where no setting describes them."""
        if not isinstance(given, dict):
            return given
        shape = {} if any(given.get(key) for key in ("fields", *SINGLE_FIELD_SETTINGS)) else {"shape": [1, 28, 28]}
        classes = {} if given.get("targets") else {"num_classes": 10}
        return {**classes, **given, **shape}

    @field_validator("fields")
    @classmethod
    def _check_fields(
        cls, fields: dict[str, RandomField] | None, info: ValidationInfo
    ) -> dict[str, RandomField] | None:
        if fields and any(info.data.get(key) for key in SINGLE_FIELD_SETTINGS):
            raise ValueError("can't be combined with shape, vocab_size and length: move these into the fields")
        _check_names(fields or {})
        return fields

    @field_validator("targets")
    @classmethod
    def _check_targets(
        cls, targets: dict[str, RandomTarget] | None, info: ValidationInfo
    ) -> dict[str, RandomTarget] | None:
        if targets and info.data.get("num_classes"):
            raise ValueError("can't be combined with num_classes: move it into the targets")
        _check_names(targets or {})
        return targets

    @model_validator(mode="after")
    def _check_consistency(self) -> RandomData:
        if not self.fields:
            check_field_settings(self.shape, self.vocab_size, self.length)
        fields, targets = self._make_fields(), self._make_targets()
        for name in fields.keys() & targets.keys():
            raise ValueError(f"'{name}' is both a field and a target: give one of them another name")
        for name, each in targets.items():
            if each.next_of is not None:
                what = f"target '{name}' has next_of: {each.next_of}"
                _check_predictable_tokens(("targets", name, "next_of"), what, each.next_of, fields)
        if self.target in fields and fields[self.target].vocab_size is not None:
            _check_predictable_tokens(("target",), f"the target is the field '{self.target}'", self.target, fields)
        return self

    def _make_fields(self) -> dict[str, RandomField]:
        only = RandomField.model_construct(shape=self.shape, vocab_size=self.vocab_size, length=self.length)
        return self.fields or {"input": only}

    def _make_targets(self) -> dict[str, RandomTarget]:
        return self.targets or {"label": RandomTarget.model_construct(num_classes=self.num_classes)}

    def open(self) -> Dataset:
        """Draw the data: the same for the same `split_seed`. More than 4 GB is a `DataError`."""
        import numpy as np

        from dlspec.data import dataset
        from dlspec.data.array_splits import make_splits

        self._check_size()
        fields, targets = self._make_fields(), self._make_targets()
        generator = np.random.Generator(np.random.PCG64([self.split_seed, 1]))
        drawn = {name: each.draw(self.size, generator) for name, each in fields.items()}
        labels = {
            name: each.draw(self.size, generator) if each.next_of is None else drawn[each.next_of][:, 1:]
            for name, each in targets.items()
        }
        arrays = {name: drawn[name] if each.length is None else drawn[name][:, :-1] for name, each in fields.items()}
        parts = self.parts(self.size, self.test, self._choose_stratification_classes(labels))
        return dataset.Dataset(
            self.source_name,
            tuple(each.make_field(name) for name, each in fields.items()),
            tuple(each.make_target(name, fields.get(each.next_of or "")) for name, each in targets.items()),
            *make_splits(arrays, labels, parts),
        )

    def shrink(self) -> RandomData:
        """Return a source with fewer samples, if all of them would take much memory."""
        self._check_size()
        few = max(MIN_SHRUNK_SAMPLES, MAX_SHRUNK_BYTES // self._sample_bytes())
        return self.model_copy(update={"size": min(self.size, few)})

    def _choose_stratification_classes(self, labels: dict[str, NDArray[Any]]) -> NDArray[np.int64] | None:
        """Return the classes to stratify by: those of the first target with one class for each sample."""
        targets = self._make_targets().items()
        return next((labels[name] for name, each in targets if each.num_classes and not each.shape), None)

    def _check_size(self) -> None:
        each = self._sample_bytes()
        if self.size * each <= MAX_DATA_BYTES:
            return
        most = MAX_DATA_BYTES // each
        fix = f"data.size={most}" if most else "a smaller shape or length"
        raise make_size_error("size", f"{self.size:,} samples of {each:,} bytes take", self.size * each, fix)

    def _sample_bytes(self) -> int:
        return sum(one.sample_bytes for one in self._make_fields().values()) + sum(
            one.sample_bytes for one in self._make_targets().values()
        )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not name.isidentifier() or iskeyword(name) or name.endswith("_lengths"):
            raise ValueError(
                f"'{name}' can't be a field's or target's name: use letters, digits and _, and not the ending _lengths"
            )


def _check_predictable_tokens(path: KeyPath, what: str, name: str, fields: Mapping[str, RandomField]) -> None:
    """Raise InvalidSetting at the path unless the field contains tokens that can be predicted: 2 to MAX_CLASSES."""
    tokens = {key: each.vocab_size for key, each in fields.items() if each.vocab_size is not None}
    if name not in tokens:
        fix = suggest(name, tokens) or "give a field vocab_size and length"
        raise InvalidSetting(path, f"{what}, which is not a field of tokens; {fix}")
    if tokens[name] < 2:
        raise InvalidSetting(path, f"{what}, which has only one possible token; choose a larger vocab_size")
    if tokens[name] > MAX_CLASSES:
        raise InvalidSetting(
            path, f"{what}, which has more than {MAX_CLASSES:,} different tokens; choose a smaller vocab_size"
        )
