"""Seed, save and restore all random generators: of PyTorch (CPU and device), Python and NumPy."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.network.random_state import CPU, get_torch_rng_state, set_torch_rng_state


def seed_generators(seed: int) -> None:
    """Seed all generators: custom layers and losses may use any of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy accepts 32 bits
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # `manual_seed` formats the stack once for each kind of device that might be initialized later
        torch.default_generator.manual_seed(seed)


@contextmanager
def preserve_generators() -> Iterator[None]:
    """Restore all generators after the context, also those of CUDA devices if CUDA was initialized before."""
    on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    before = get_random_state(CPU)
    devices = torch.cuda.get_rng_state_all() if on_cuda else []
    try:
        yield
    finally:
        set_random_state(before, CPU)
        if on_cuda:
            torch.cuda.set_rng_state_all(devices)


@dataclass(frozen=True)
class RandomStates:
    """The states of the generators of PyTorch (on the CPU), Python and NumPy, as they give them."""

    torch: Tensor
    python: Any
    numpy: Any
    devices: Mapping[str, Tensor] = field(default_factory=dict)  # PyTorch's on a device, by its type

    def to_state_dict(self) -> dict[str, Any]:
        """Convert the states to tensors, numbers, strings and lists, which takes longer than reading them."""
        version, numbers, gauss = self.python
        kind, keys, position, has_gauss, cached = self.numpy
        return {
            "torch": self.torch,
            "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
            **self.devices,
        }


def read_random_states(device: torch.device) -> RandomStates:
    """Read the states of all generators, on the CPU and on a device."""
    states = get_torch_rng_state(device)
    return RandomStates(states.pop("torch"), random.getstate(), np.random.get_state(), states)


def write_random_states(states: RandomStates) -> None:
    """Set the states of all generators on the CPU."""
    torch.set_rng_state(states.torch)
    random.setstate(states.python)
    np.random.set_state(states.numpy)


def get_random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of all generators as tensors, numbers, strings and lists."""
    return read_random_states(device).to_state_dict()


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the state of all generators."""
    set_torch_rng_state(state, device)
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    if not 0 <= position <= keys.numel():  # NumPy would read there without a check
        raise ValueError(f"invalid position of NumPy's generator: {position}")
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
