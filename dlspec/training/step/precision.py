"""`trainer.precision`: the data types that a run computes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlspec.data.batches.tensor_tree import map_tensors

PrecisionName = Literal[64, 32, 16, "tf32", "bf16"]
_HALF_DTYPES: Mapping[Any, torch.dtype] = {16: torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """The data type of the weights, and the one for autocast in mixed precision."""

    name: PrecisionName
    device: torch.device

    @property
    def weights_dtype(self) -> torch.dtype | None:
        """The data type to convert weights and data to; None leaves them unchanged."""
        return torch.float64 if self.name == 64 else None

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which layers compute in float16 or bfloat16 if the precision is 16 or bf16."""
        half = _HALF_DTYPES.get(self.name)
        return nullcontext() if half is None else torch.autocast(self.device.type, half)

    def wrap_forward(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a network in autocast, with output in float32: losses and metrics never use half precision."""
        if self.name not in _HALF_DTYPES:
            return network

        def forward(*inputs: Tensor) -> Any:
            with self.autocast():
                output = network(*inputs)
            return widen_to_float32(output)

        return forward

    def make_scaler(self) -> torch.amp.GradScaler | None:
        """Make a GradScaler for float16, whose range is too small for unscaled gradients; None for other precisions."""
        return torch.amp.GradScaler(self.device.type) if self.name == 16 else None

    def apply_settings(self) -> AbstractContextManager[None]:
        """Allow TF32 matrix products inside the context if the precision is tf32."""
        return _allow_tf32() if self.name == "tf32" else nullcontext()


@dataclass(frozen=True)
class ScaledUpdate:
    """The update with scaled gradients. A gradient that is not finite skips the update and halves the scale."""

    scaler: torch.amp.GradScaler
    optimizer: Optimizer

    def __call__(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


@contextmanager
def _allow_tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def widen_to_float32(output: Any) -> Any:
    """Convert the half-precision tensors of an output to float32."""
    return map_tensors(lambda each: each.float() if each.dtype in _HALF_DTYPES.values() else each, output)
