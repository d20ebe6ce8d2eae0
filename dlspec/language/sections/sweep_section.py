"""The `sweep` section: how the jobs of a sweep are run. No job's result follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SweepSpec(BaseModel):
    """Settings of a sweep, and of no job of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_invalid: Literal["stop", "skip"] = Field(
        "stop", description="what to do where jobs' specs are wrong: train none, or the others"
    )
    fail_fast: bool = Field(False, description="end with the first job that fails; the others can be resumed")
    workers: int | None = Field(None, ge=1, description="jobs at a time; null: one a core, or one a GPU")
    threads: int = Field(1, ge=1, description="threads of a job on a CPU, where its trainer.threads does not say")
    rerun: Literal["failed", "changed"] = Field(
        "failed", description="what else is trained again: changed, jobs whose code or data have changed since"
    )
