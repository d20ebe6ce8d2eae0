"""Which commands are light, and which are not there yet. The names of all are in dlspec.formatting."""

from __future__ import annotations

LIGHT_COMMANDS = ("status", "report", "compare")
"""Commands that need neither PyTorch nor Hydra."""
PLANNED_COMMANDS = ("evaluate", "predict", "export", "eject", "schema", "inspect", "list",
           "show", "explain")  # fmt: skip
