"""The module that the fork server imports first, if the sweep was started on the command line (see `dlspec.cli.main`).

It disables garbage collection and the plots of torchmetrics, so that the imports that follow are faster.
"""

from __future__ import annotations

import gc

from dlspec.compat.torchmetrics import skip_plot_imports

gc.disable()
skip_plot_imports()
