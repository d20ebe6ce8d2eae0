"""Old location of dlspec's Hydra plugins, kept for packages and configs written for version 0.1.0."""

from __future__ import annotations

from dlspec.sweeps.hydra.plugins import DlspecLauncher as DlspecLauncher
from dlspec.sweeps.hydra.plugins import DlspecSweeper as DlspecSweeper
from dlspec.sweeps.hydra.plugins import OtherLauncher as OtherLauncher
from dlspec.sweeps.hydra.plugins import PoolLauncher as PoolLauncher
from dlspec.sweeps.hydra.plugins import name_plugins as name_plugins
from dlspec.sweeps.hydra.plugins import register as register
