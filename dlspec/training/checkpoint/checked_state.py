"""Types of what a checkpoint says: the file may come from a stranger."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CheckedState(BaseModel):
    """A part's state, each value of the type that it must have."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
