"""Noise of any shape: a placeholder that tries a model without files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dlspec.data.sources.random_fields import RandomField, RandomTarget, check_field_settings
from dlspec.data.sources.source import Size, SplitSource, data_source, make_size_error
from dlspec.errors import suggest
from dlspec.limits import MAX_CLASSES, MAX_DATA_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data.dataset import Dataset

SINGLE_FIELD_SETTINGS = ("shape", "vocab_size", "length")
"""The settings that make the only field, `input`."""

MAX_SHRUNK_BYTES, MIN_SHRUNK_SAMPLES = 2**24, 32
"""So large is an outline, but of so many samples."""


@data_source("random")
class RandomData(SplitSource):
    """Gaussian numbers or tokens, and targets that are random, too: what is learned of them is learned by heart.

    Without `fields` there is one, `input`, of `shape` or of `vocab_size` and `length`; without `targets` there is one,
    `label`, by `num_classes`. What is left out altogether is images (1, 28, 28) and 10 classes.
    """

    stated: ClassVar[tuple[str, ...]] = ()

    size: int = Field(1024, ge=1, description="how many samples, all splits together")
    shape: list[Size] | None = Field(None, description="a sample's shape, without the batch: [3, 32, 32]")
    vocab_size: int | None = Field(None, ge=1, le=2**31, description="for tokens: how many different ones")
    length: int | None = Field(None, ge=1, description="for tokens: how many a sample has")
    num_classes: int | None = Field(
        None, ge=2, le=MAX_CLASSES, description="how many classes; null: the target is a number"
    )
    fields: dict[str, RandomField] | None = Field(
        None, description="in place of shape or tokens: fields by their names"
    )
    targets: dict[str, RandomTarget] | None = Field(None, description="in place of num_classes: targets by their names")

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        """With what is left out altogether."""
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
            raise ValueError("fields say what to make: shape, vocab_size and length belong into each of them")
        _check_names(fields or {})
        return fields

    @field_validator("targets")
    @classmethod
    def _check_targets(
        cls, targets: dict[str, RandomTarget] | None, info: ValidationInfo
    ) -> dict[str, RandomTarget] | None:
        if targets and info.data.get("num_classes"):
            raise ValueError("targets say what they are: num_classes belongs into each of them")
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
                _check_predictable_tokens(f"'{name}' is the next token of '{each.next_of}'", each.next_of, fields)
        if self.target in fields and fields[self.target].vocab_size is not None:
            _check_predictable_tokens(f"'{self.target}' is to be given again", self.target, fields)
        return self

    def _make_fields(self) -> dict[str, RandomField]:
        only = RandomField.model_construct(shape=self.shape, vocab_size=self.vocab_size, length=self.length)
        return self.fields or {"input": only}

    def _make_targets(self) -> dict[str, RandomTarget]:
        return self.targets or {"label": RandomTarget.model_construct(num_classes=self.num_classes)}

    def open(self) -> Dataset:
        """The same numbers for the same `split_seed`; over 4 GB is a `DataError`."""
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
        parts = self.parts(self.size, self.test, self._find_strata(labels))
        return dataset.Dataset(
            self.source_name,
            tuple(each.make_field(name) for name, each in fields.items()),
            tuple(each.make_target(name, fields.get(each.next_of or "")) for name, each in targets.items()),
            *make_splits(arrays, labels, parts),
        )

    def shrink(self) -> RandomData:
        """Some samples stand for all where these are many bytes."""
        self._check_size()
        few = max(MIN_SHRUNK_SAMPLES, MAX_SHRUNK_BYTES // self._sample_bytes())
        return self.model_copy(update={"size": min(self.size, few)})

    def _find_strata(self, labels: dict[str, NDArray[Any]]) -> NDArray[np.int64] | None:
        """The first target of one class a sample: every split has its classes in equal proportions."""
        targets = self._make_targets().items()
        return next((labels[name] for name, each in targets if each.num_classes and not each.shape), None)

    def _check_size(self) -> None:
        each = self._sample_bytes()
        if self.size * each <= MAX_DATA_BYTES:
            return
        most = MAX_DATA_BYTES // each
        fix = f"data.size={most}" if most else "a smaller shape or length"
        raise make_size_error("size", f"{self.size:,} samples of {each:,} bytes are", self.size * each, fix)

    def _sample_bytes(self) -> int:
        return sum(one.sample_bytes for one in self._make_fields().values()) + sum(
            one.sample_bytes for one in self._make_targets().values()
        )


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not name.isidentifier() or iskeyword(name) or name.endswith("_lengths"):
            raise ValueError(
                f"'{name}' can't be a field's or target's name: use letters, digits and _, and no ending _lengths"
            )


def _check_predictable_tokens(what: str, name: str, fields: Mapping[str, RandomField]) -> None:
    """Whether a field holds tokens, few enough for one to be predicted."""
    tokens = {key: each.vocab_size for key, each in fields.items() if each.vocab_size is not None}
    if name not in tokens:
        fix = suggest(name, tokens) or "vocab_size and length make one"
        raise ValueError(f"{what}, which is no field of tokens; {fix}")
    if tokens[name] < 2:
        raise ValueError(f"{what}: of one token there is nothing to learn; take a larger vocab_size")
    if tokens[name] > MAX_CLASSES:
        raise ValueError(f"{what}: more than {MAX_CLASSES:,} classes; take a smaller vocab_size")
