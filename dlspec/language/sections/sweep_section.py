"""The `sweep` section: how the jobs of a sweep are run. It does not change the result of any job."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SweepSpec(BaseModel):
    """Settings of a sweep as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_invalid: Literal["stop", "skip"] = Field(
        "stop", description="if the specs of some jobs are invalid: stop trains nothing, skip trains the other jobs"
    )
    fail_fast: bool = Field(False, description="stop after the first job that fails; the others can be resumed")
    workers: int | None = Field(
        None, ge=1, le=10_000, description="jobs trained at the same time; null: one per CPU core or GPU"
    )
    vectorize: bool | Literal["auto"] | None = Field(
        None,
        description="train jobs that differ only in numbers as stacks; auto: where that is faster; "
        "null: auto with hydra/launcher=vectorized, else false",
    )
    threads: int = Field(1, ge=1, le=10_000, description="CPU threads per job, if the job does not set trainer.threads")
    rerun: Literal["failed", "changed"] = Field(
        "failed",
        description="which jobs a resumed sweep trains again: failed ones, or also those whose code or data changed",
    )
