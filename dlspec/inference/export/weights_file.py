"""A run's weights as a safetensors file by itself."""

from __future__ import annotations

import torch
from safetensors.torch import load, save

from dlspec.errors import UserError
from dlspec.inference.export.file_metadata import make_run_metadata
from dlspec.inference.loading.loaded_run import LoadedRun


def write_weights(run: LoadedRun) -> bytes:
    """Convert the network's parameters and buffers to the content of a safetensors file."""
    tensors = {name: each.detach().cpu().clone().contiguous() for name, each in run.network.state_dict().items()}
    content: bytes = save(tensors, make_run_metadata(run))
    return content


def check_weights(run: LoadedRun, content: bytes) -> None:
    """Read the file again and compare all tensors; UserError if one differs."""
    found = load(content)
    for name, each in run.network.state_dict().items():
        if name not in found or not torch.equal(found[name], each.cpu()):
            raise UserError(f"the tensor '{name}' can't be written as it is; nothing was written")
