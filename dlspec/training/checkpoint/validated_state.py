"""Types for validating the state in a checkpoint: the file may come from an untrusted source."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ValidatedState(BaseModel):
    """Base class for the state of one part of a checkpoint, validated strictly and without extra fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
