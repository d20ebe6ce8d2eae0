"""First import of the fork server of a process that runs only dlspec: see `dlspec.cli.main`.

Without garbage collection and the plots of torchmetrics, the imports that follow are faster.
"""

from __future__ import annotations

import gc

from dlspec.compat.torchmetrics import leave_out_plots

gc.disable()
leave_out_plots()
