"""Which device a run uses."""

from __future__ import annotations

import torch

from dlspec.errors import UserError


def available_devices() -> list[str]:
    """Every name that `trainer.device` may have on this machine, the CPU first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda", *cuda] if cuda else []), *mps]


def choose_device(name: str) -> torch.device:
    """The device of that name; for `auto` cuda, else mps, else the CPU. Raises UserError where there is none such."""
    available = available_devices()
    if name == "auto":
        return torch.device(next(each for each in ("cuda", "mps", "cpu") if each in available))
    if name not in available:
        raise UserError(f"trainer.device: no device '{name}' on this machine; there is: auto, {', '.join(available)}")
    return torch.device(name)
