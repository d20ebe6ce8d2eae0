"""Modules that every job needs. The fork server of a sweep imports them once, before it forks processes."""

from __future__ import annotations

from importlib import import_module

import PIL.Image

import dlspec.data.array_splits
import dlspec.sweeps.executors.job_worker  # noqa: F401
from dlspec.parts.torch.torch_metrics import metric_registry

metric_registry()  # before matplotlib: if that is imported first, torchmetrics imports all of it for its own plots
for name in ("matplotlib.backends.backend_agg", "matplotlib.ticker"):
    import_module(name)
PIL.Image.preinit()
