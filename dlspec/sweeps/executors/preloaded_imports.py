"""Modules that every job needs. The fork server of a sweep imports them once, before it forks processes.

matplotlib is not among them: a sweep's jobs draw nothing, unless that is asked for.
"""

from __future__ import annotations

import PIL.Image

import dlspec.data.array_splits
import dlspec.sweeps.executors.stack_worker  # noqa: F401
from dlspec.data.prepare.kinds.kind import load_kinds
from dlspec.parts.torch.torch_metrics import metric_registry

metric_registry()
load_kinds()
PIL.Image.preinit()
