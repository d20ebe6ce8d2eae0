"""In which numbers a run computes: `trainer.precision`."""

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
    """The weights' type, and for mixed precision the one in which layers compute that can."""

    name: PrecisionName
    device: torch.device

    @property
    def weights_dtype(self) -> torch.dtype | None:
        """What weights and data are turned into; None leaves them."""
        return torch.float64 if self.name == 64 else None

    def autocast(self) -> AbstractContextManager[object]:
        """Within it layers compute in halves, where that is wanted and they can."""
        half = _HALF_DTYPES.get(self.name)
        return nullcontext() if half is None else torch.autocast(self.device.type, half)

    def wrap_forward(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """What gives the network's output, in the weights' type: a loss and metrics are never computed in halves."""
        if self.name not in _HALF_DTYPES:
            return network

        def forward(*inputs: Tensor) -> Any:
            with self.autocast():
                output = network(*inputs)
            return widen_to_float32(output)

        return forward

    def make_scaler(self) -> torch.amp.GradScaler | None:
        """Keeps the gradients of float16 within its narrow range."""
        return torch.amp.GradScaler(self.device.type) if self.name == 16 else None

    @contextmanager
    def apply_settings(self) -> Iterator[None]:
        """Within it matrix products round as is wanted; afterwards as before."""
        if self.name != "tf32":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class ScaledUpdate:
    """The update of scaled gradients: one that is not finite makes none, and the scale is halved."""

    scaler: torch.amp.GradScaler
    optimizer: Optimizer

    def __call__(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


def widen_to_float32(output: Any) -> Any:
    """An output's halves as float32."""
    return map_tensors(lambda each: each.float() if each.dtype in _HALF_DTYPES.values() else each, output)
