"""The fields and targets of the source `random`: their settings, and how they are drawn."""

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
    """A field of `random`: Gaussian numbers of a shape, or tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    shape: list[Size] | None = Field(None, description="shape of a sample, without the batch: [3, 32, 32]")
    vocab_size: int | None = Field(None, ge=1, le=2**31, description="for tokens: number of different tokens")
    length: int | None = Field(None, ge=1, description="for tokens: number of tokens in a sample")

    @model_validator(mode="after")
    def _check_one_kind(self) -> RandomField:
        check_field_settings(self.shape, self.vocab_size, self.length)
        return self

    @property
    def sample_bytes(self) -> int:
        """Bytes that one sample takes."""
        return 4 * math.prod(self.shape) if self.shape else 8 * (self.length or 1)

    def make_field(self, name: str) -> dataset.Field:
        """Describe the field for the data set."""
        from dlspec.data import dataset

        if self.length is not None:
            return dataset.Field(name, (self.length,), "tokens", vocab_size=self.vocab_size)
        shape = tuple(self.shape or ())
        return dataset.Field(name, shape, guess_layout(shape))

    def draw(self, size: int, generator: np.random.Generator) -> NDArray[Any]:
        """Draw samples: numbers (size, *shape) as float32, or tokens (size, length + 1) as int64.

        The extra token at the end is for next-token targets.
        """
        import numpy as np

        if self.length is None or self.vocab_size is None:
            return generator.standard_normal((size, *(self.shape or ())), dtype=np.float32)
        return generator.integers(self.vocab_size, size=(size, self.length + 1), dtype=np.int64)


def check_field_settings(shape: list[int] | None, vocab_size: int | None, length: int | None) -> None:
    """Raise ValueError unless the settings describe either numbers or tokens.

    Args:
        shape: shape of a sample of numbers
        vocab_size: number of different tokens
        length: number of tokens in a sample
    """
    tokens = (vocab_size is not None, length is not None)
    if not shape and not any(tokens):
        raise ValueError(
            "needs a shape, such as shape: [3, 32, 32], or tokens, such as vocab_size: 1000 and length: 50"
        )
    if shape and any(tokens):
        raise ValueError("can't have both shape (numbers) and vocab_size or length (tokens): remove one of them")
    if not shape and not all(tokens):
        raise ValueError("needs both vocab_size and length, such as vocab_size: 1000 and length: 50")


class RandomTarget(BaseModel):
    """A target of `random`: numbers or classes of a shape (one for each sample, step or pixel), or the next token."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    num_classes: int | None = Field(None, ge=2, le=MAX_CLASSES, description="number of classes; null: numbers")
    shape: list[Size] | None = Field(
        None, description="null: one for each sample; [50]: one for each step; [32, 32]: one for each pixel"
    )
    next_of: str | None = Field(None, description="the field of tokens whose next token is predicted")

    @model_validator(mode="after")
    def _check_one_kind(self) -> RandomTarget:
        if self.next_of is not None and (self.num_classes or self.shape):
            raise ValueError("gets its classes and length from the field in next_of: remove num_classes and shape")
        return self

    @property
    def sample_bytes(self) -> int:
        """Bytes that one sample takes; 0 for next tokens, which share the memory of their field."""
        each = 0 if self.next_of else 8 if self.num_classes else 4
        return each * math.prod(self.shape or ())

    def make_target(self, name: str, tokens: RandomField | None) -> dataset.Target:
        """Describe the target for the data set; `tokens` is the field whose next token is the target, if any."""
        from dlspec.data import dataset

        if tokens is not None:
            class_names = _make_class_names(tokens.vocab_size or 0)
            return dataset.Target(name, "classes", (tokens.length or 0,), class_names, next_of=self.next_of or "")
        shape = tuple(self.shape or ())
        if self.num_classes is None:
            return dataset.Target(name, "numbers", shape)
        return dataset.Target(name, "classes", shape, _make_class_names(self.num_classes))

    def draw(self, size: int, generator: np.random.Generator) -> NDArray[Any]:
        """Draw targets (size, *shape): classes as int64, numbers as float32."""
        import numpy as np

        shape = (size, *(self.shape or ()))
        if self.num_classes is None:
            return generator.standard_normal(shape, dtype=np.float32)
        return generator.integers(self.num_classes, size=shape)


def _make_class_names(count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))
