"""The `weights` section: pretrained weights that a model starts from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _wrap_in_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# A list of patterns; a single string counts as a list of one.
PatternList = Annotated[list[str], BeforeValidator(_wrap_in_list)]


class WeightsSpec(BaseModel):
    """A file of weights, and how its tensor names map to the model's. Patterns are those of fnmatch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        min_length=1, description="a .safetensors, .bin, .pt or .pth file, a folder of them, or a run's folder"
    )
    rename: dict[str, str | list[str] | None] = Field(
        default_factory=dict,
        description="from patterns of names in the file to names in the model; null: skip the tensor",
    )
    transpose: PatternList = Field(
        default_factory=list, description="patterns of names in the file whose tensors are transposed"
    )
    strict: bool = Field(
        True, description="require that every tensor of the file is used and every one of the model is loaded"
    )
    fresh: PatternList = Field(
        default_factory=list, description="patterns of names in the model that keep their initial values"
    )
