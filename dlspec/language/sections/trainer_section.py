"""The `trainer` section: how long, on what, and what to watch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

DEFAULT_BATCH_SIZE = 32


class AverageSettings(BaseModel):
    """How weights are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def type(self) -> str:
        return self.__class__.__name__


class EMA(AverageSettings):
    """An exponential moving average of the weights after each step."""

    decay: float = Field(0.999, ge=0, lt=1, description="what the average keeps of itself in a step")


class SWA(AverageSettings):
    """The mean of the weights after each epoch, the last quarter's if not told otherwise."""

    start_epoch: int | None = Field(None, ge=1, description="the first epoch that counts; null: of the last quarter")


class TrainerSpec(BaseModel):
    """Settings of the training loop; each has the meaning that Keras and Lightning users expect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=1, description="passes over the training split")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps, whatever the epoch")
    limit_batches: int | None = Field(None, ge=1, description="at most this many batches of each split in an epoch")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(DEFAULT_BATCH_SIZE, description="samples a batch")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one optimizer step")
    eval_batch_size: int | None = Field(None, ge=1, description="samples a batch in validation and test; null: chosen")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal[64, 32, 16, "tf32", "bf16"] = Field(
        32,
        description="64; 32; tf32: matrix products round their factors; bf16, 16: layers that can compute in halves",
    )
    compile: Literal["none", "model", "step", "cudagraphs"] = Field(
        "none", description="torch.compile the network or a whole step; cudagraphs: record a step and replay it (CUDA)"
    )
    threads: int | None = Field(None, ge=1, description="threads that a CPU computes with; null: PyTorch's choice")
    allocator: Literal["auto", "default", "keep"] = Field(
        "auto", description="keep: freed memory stays for the next step (glibc); auto: where a tensor has over 1 MiB"
    )
    tune: bool | Literal["precision"] = Field(
        False, description="try which settings are fastest and take them; precision: numbers of fewer bits, too"
    )
    channels_last: bool = Field(False, description="convolutions keep an image's channels side by side (NHWC)")
    activation_checkpointing: tuple[str, ...] = Field(
        (), description='patterns of blocks whose activations are not kept, but computed twice: ["blocks.*"]'
    )
    num_workers: int = Field(
        0, ge=0, le=64, description="threads that gather batches in the host's memory; 0: all data lie on the device"
    )
    deterministic: bool = Field(False, description="only algorithms that give the same numbers every time")
    clip_grad_norm: float | None = Field(None, gt=0, description="largest norm of all gradients together")
    clip_grad_value: float | None = Field(None, gt=0, description="largest absolute value of a gradient")
    on_nan: Literal["stop", "skip", "restore"] = Field(
        "stop", description="what happens to a batch whose loss or gradients are not finite"
    )
    debug: Literal["anomaly"] | None = Field(None, description="anomaly: name the layer whose gradient is nan first")
    average: EMA | SWA | None = Field(None, description="average the weights: EMA or SWA")
    monitor: str = Field("val/loss", description="the result that decides which epoch is best")
    mode: Literal["auto", "min", "max"] = Field("auto", description="whether less or more of it is better")
    patience: int | None = Field(None, ge=1, description="stop after this many epochs without a better one")
    test: Literal["best", "last", "none"] = Field("best", description="which weights the final test uses")
    checkpoints: bool = Field(True, description="write checkpoints to resume from, the best and the last weights")
    checkpoint_steps: int | None = Field(None, ge=1, description="a checkpoint every so many steps, too")
    checkpoint_minutes: float | None = Field(5, gt=0, description="within an epoch a checkpoint every so many minutes")
    keep_checkpoints: int = Field(2, ge=1, description="so many of the newest checkpoints stay")
    tensorboard: bool = Field(True, description="write event files for TensorBoard")
    curves: bool = Field(True, description="draw curves.png when the training is over")
    pictures: bool = Field(True, description="draw predictions.png, or write a language model's samples.txt")
    progress: Literal["auto", "bar", "lines", "none"] = Field("auto", description="auto: a bar on a terminal")

    @property
    def initial_batch_size(self) -> int:
        """The samples of a batch; as long as they are to be found, the default's."""
        return DEFAULT_BATCH_SIZE if self.batch_size == "auto" else self.batch_size
