"""Imported first of all by the server of a process that is dlspec's alone: see `dlspec.cli.main`."""

from __future__ import annotations

import gc

from dlspec.compat.torchmetrics import leave_out_plots

gc.disable()
leave_out_plots()
