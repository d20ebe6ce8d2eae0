"""The `weights` section: tensors from elsewhere that a network begins with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _wrap_in_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


PatternList = Annotated[list[str], BeforeValidator(_wrap_in_list)]
"""Several, or one alone."""


class WeightsSpec(BaseModel):
    """A file of tensors, and how its names become the model's. Patterns are fnmatch's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        min_length=1, description="a .safetensors, .bin, .pt or .pth file, a folder of them, or a run's folder"
    )
    rename: dict[str, str | list[str] | None] = Field(
        default_factory=dict, description="patterns of the file's names and what they become; null leaves a tensor out"
    )
    transpose: PatternList = Field(
        default_factory=list, description="patterns of the file's names that are turned over"
    )
    strict: bool = Field(True, description="every tensor of the file is used, every one of the model's filled")
    fresh: PatternList = Field(
        default_factory=list, description="patterns of the model's names that keep their own start"
    )
