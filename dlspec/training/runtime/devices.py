"""List the machine's devices and choose one for a run."""

from __future__ import annotations

import torch

from dlspec.errors import Code, Finding, UserError


class UnknownDevice(UserError):
    """A device that this machine does not have."""

    def __init__(self, found: str) -> None:
        super().__init__(f"trainer.device: {found}")
        self.finding = Finding(Code.UNKNOWN_DEVICE, found)


def list_devices() -> list[str]:
    """List all values of `trainer.device` that are valid on this machine, the CPU first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda", *cuda] if cuda else []), *mps]


def choose_device(name: str) -> torch.device:
    """Return the device with this name; for `auto` CUDA, MPS or the CPU, whichever is available first.

    Raises:
        UnknownDevice: this machine does not have the device.
    """
    available = list_devices()
    if name == "auto":
        return torch.device(next(each for each in ("cuda", "mps", "cpu") if each in available))
    if name not in available:
        raise UnknownDevice(f"no device '{name}' on this machine; available: auto, {', '.join(available)}")
    return torch.device(name)
