"""What `random` makes: each of its fields and targets, its settings checked, drawn when the data are opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlspec.data.sources.source import Size
from dlspec.layouts import guess_layout
from dlspec.limits import MAX_CLASSES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlspec.data import dataset


class RandomField(BaseModel):
    """A field: Gaussian numbers of a shape, or tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    shape: list[Size] | None = Field(None, description="a sample's shape, without the batch: [3, 32, 32]")
    vocab_size: int | None = Field(None, ge=1, le=2**31, description="for tokens: how many different ones")
    length: int | None = Field(None, ge=1, description="for tokens: how many a sample has")

    @model_validator(mode="after")
    def _check_one_kind(self) -> RandomField:
        check_field_settings(self.shape, self.vocab_size, self.length)
        return self

    @property
    def sample_bytes(self) -> int:
        """So many a sample."""
        return 4 * math.prod(self.shape) if self.shape else 8 * (self.length or 1)

    def make_field(self, name: str) -> dataset.Field:
        from dlspec.data import dataset

        if self.length is not None:
            return dataset.Field(name, (self.length,), "tokens", vocab_size=self.vocab_size)
        shape = tuple(self.shape or ())
        return dataset.Field(name, shape, guess_layout(shape))

    def draw(self, size: int, generator: np.random.Generator) -> NDArray[Any]:
        """(size, *shape) float32, or tokens (size, length + 1) int64: each sample's and the next one."""
        import numpy as np

        if self.length is None or self.vocab_size is None:
            return generator.standard_normal((size, *(self.shape or ())), dtype=np.float32)
        return generator.integers(self.vocab_size, size=(size, self.length + 1), dtype=np.int64)


def check_field_settings(shape: list[int] | None, vocab_size: int | None, length: int | None) -> None:
    """Raises ValueError unless a field is either numbers or tokens."""
    tokens = (vocab_size is not None, length is not None)
    if not shape and not any(tokens):
        raise ValueError("says not what to make: shape: [3, 32, 32], or vocab_size: 1000 and length: 50")
    if shape and any(tokens):
        raise ValueError("makes numbers of a shape or tokens, not both: leave out shape, or vocab_size and length")
    if not shape and not all(tokens):
        raise ValueError("needs both vocab_size and length to make tokens, such as 1000 and 50")


class RandomTarget(BaseModel):
    """A target: a number, numbers of a shape, a class, a class a step or a pixel of a shape, or the next token."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    num_classes: int | None = Field(None, ge=2, le=MAX_CLASSES, description="how many classes; null: numbers")
    shape: list[Size] | None = Field(None, description="of one a sample none; [50] is one a step, [32, 32] one a pixel")
    next_of: str | None = Field(None, description="the field of tokens of which it is the next one, and nothing else")

    @model_validator(mode="after")
    def _check_one_kind(self) -> RandomTarget:
        if self.next_of is not None and (self.num_classes or self.shape):
            raise ValueError("is the next of a field's tokens, whose classes and length it has: leave out its own")
        return self

    @property
    def sample_bytes(self) -> int:
        """So many a sample; the next token's are its field's."""
        each = 0 if self.next_of else 8 if self.num_classes else 4
        return each * math.prod(self.shape or ())

    def make_target(self, name: str, tokens: RandomField | None) -> dataset.Target:
        """`tokens` is the field that it is the next one of."""
        from dlspec.data import dataset

        if tokens is not None:
            class_names = _make_class_names(tokens.vocab_size or 0)
            return dataset.Target(name, "classes", (tokens.length or 0,), class_names, next_of=self.next_of or "")
        shape = tuple(self.shape or ())
        if self.num_classes is None:
            return dataset.Target(name, "numbers", shape)
        return dataset.Target(name, "classes", shape, _make_class_names(self.num_classes))

    def draw(self, size: int, generator: np.random.Generator) -> NDArray[Any]:
        """(size, *shape): classes as int64, numbers as float32."""
        import numpy as np

        shape = (size, *(self.shape or ()))
        if self.num_classes is None:
            return generator.standard_normal(shape, dtype=np.float32)
        return generator.integers(self.num_classes, size=shape)


def _make_class_names(count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))
