"""What jobs import when they first need it. The server of a sweep's processes does so once, before they are forked."""

from __future__ import annotations

from importlib import import_module

import PIL.Image

import dlspec.data.array_splits
import dlspec.sweeps.executors.job_worker  # noqa: F401
from dlspec.parts.torch.torch_metrics import metric_registry

metric_registry()  # before matplotlib: where that is there, torchmetrics imports all of it for its own plots
for name in ("matplotlib.backends.backend_agg", "matplotlib.ticker"):
    import_module(name)
PIL.Image.preinit()
