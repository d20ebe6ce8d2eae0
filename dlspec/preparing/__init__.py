"""From a config to everything that a run needs."""

from dlspec.preparing.preparation import Built as Built
from dlspec.preparing.preparation import Opened as Opened
from dlspec.preparing.preparation import Preparation as Preparation
from dlspec.preparing.preparation import Prepared as Prepared
