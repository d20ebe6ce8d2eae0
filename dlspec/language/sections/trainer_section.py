"""The `trainer` section: duration, batch size, device, precision, checkpoints and output of a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

DEFAULT_BATCH_SIZE = 32
MAX_STEPS_PER_CALL = 64  # each step of a call adds seconds to its compilation


class AverageSettings(BaseModel):
    """Base of the settings that choose how weights are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @computed_field  # type: ignore[prop-decorator]  # mypy does not support decorated properties
    @property
    def type(self) -> str:
        """The name to write in a spec: the name of the class."""
        return self.__class__.__name__


class EMA(AverageSettings):
    """An exponential moving average of the weights after each step."""

    decay: float = Field(0.999, ge=0, lt=1, description="fraction of the old average that is kept in each step")


class SWA(AverageSettings):
    """The mean of the weights after each epoch, by default over the last quarter of the epochs."""

    start_epoch: int | None = Field(None, ge=1, description="first epoch to average; null: start of the last quarter")


class TrainerSpec(BaseModel):
    """Settings of the training loop, with the meanings they have in Keras and Lightning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=1, description="passes over the training split")
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps, even within an epoch")
    limit_batches: int | None = Field(None, ge=1, description="at most this many batches of each split in an epoch")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        DEFAULT_BATCH_SIZE, description="samples per batch"
    )
    sampling: Literal["balanced"] | None = Field(
        None, description="balanced: draw as many training samples of each class; null: every sample once an epoch"
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged for one optimizer step")
    eval_batch_size: int | None = Field(
        None, ge=1, description="samples per batch in validation and test; null: chosen automatically"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    parallel: Literal["auto", "none", "ddp", "fsdp"] = Field(
        "auto",
        description="how processes started by torchrun train together; auto: ddp if there are several; "
        "fsdp: each has a part of the parameters",
    )
    precision: Literal[64, 32, 16, "tf32", "bf16"] = Field(
        32,
        description="bits per number; tf32: faster, less exact matrix products; bf16, 16: automatic mixed precision",
    )
    compile: Literal["none", "model", "step", "cudagraphs"] = Field(
        "none", description="torch.compile the model or the whole step; cudagraphs: record a step and replay it (CUDA)"
    )
    steps_per_call: Annotated[int, Field(ge=1, le=MAX_STEPS_PER_CALL)] | Literal["auto"] = Field(
        "auto", description="training steps in one call of the compiled step (compile: step)"
    )
    threads: int | None = Field(None, ge=1, le=10_000, description="CPU threads for PyTorch; null: PyTorch's default")
    allocator: Literal["auto", "default", "keep"] = Field(
        "auto",
        description="keep: reuse freed memory in the next step; auto: keep if a tensor is over 1 MiB, not in fsdp",
    )
    tune: bool | Literal["precision", "lr"] = Field(
        False,
        description="measure which settings are fastest and use them; precision: also try lower precision; "
        "lr: find a learning rate",
    )
    channels_last: bool = Field(False, description="store images in channels-last memory format (NHWC)")
    activation_checkpointing: tuple[str, ...] = Field(
        (),
        description='blocks whose activations are recomputed in the backward pass to save memory: ["blocks.*"]',
    )
    num_workers: int = Field(
        0,
        ge=0,
        le=64,
        description="threads that prepare batches in host memory; 0: all data are kept on the device, and images are"
        " decoded in one thread on each core",
    )
    deterministic: bool = Field(False, description="use only deterministic algorithms")
    clip_grad_norm: float | None = Field(None, gt=0, description="clip the total norm of all gradients to this value")
    clip_grad_value: float | None = Field(None, gt=0, description="clip each element of the gradients to this value")
    on_nan: Literal["stop", "skip", "restore"] = Field(
        "stop",
        description="what to do at a non-finite loss or gradient: stop, skip the batch, or restore earlier weights",
    )
    debug: Literal["anomaly"] | None = Field(None, description="anomaly: find the layer whose gradient is NaN first")
    average: EMA | SWA | None = Field(None, description="average the weights: EMA or SWA")
    monitor: str = Field("val/loss", description="metric or loss that decides which epoch is best")
    mode: Literal["auto", "min", "max"] = Field("auto", description="whether a lower or higher monitor is better")
    patience: int | None = Field(None, ge=1, description="stop after this many epochs without improvement")
    test: Literal["best", "last", "none"] = Field("best", description="which weights the final test uses")
    checkpoints: bool = Field(True, description="write checkpoints to resume from, the best and the last weights")
    checkpoint_steps: int | None = Field(None, ge=1, description="also write a checkpoint every N steps")
    checkpoint_minutes: float | None = Field(5, gt=0, description="within an epoch, write a checkpoint every N minutes")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    tensorboard: bool = Field(True, description="write event files for TensorBoard")
    curves: bool | Literal["auto"] = Field(
        "auto",
        description="draw curves.png after training; auto: not for a sweep's jobs, whose report shows them",
    )
    pictures: bool | Literal["auto"] = Field(
        "auto",
        description="draw predictions.png, or write a language model's samples.txt; auto: not for a sweep's jobs",
    )
    progress: Literal["auto", "bar", "lines", "none"] = Field(
        "auto", description="progress display; auto: a bar on a terminal, lines elsewhere"
    )

    @property
    def initial_batch_size(self) -> int:
        """Batch size to start with: the default if it is "auto" and still has to be found."""
        return DEFAULT_BATCH_SIZE if self.batch_size == "auto" else self.batch_size
