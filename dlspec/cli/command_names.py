"""Commands that import nothing heavy, and commands that are planned. `dlspec.formatting.COMMANDS` has all others."""

from __future__ import annotations

# Commands that need neither PyTorch nor Hydra.
LIGHT_COMMANDS = ("status", "report", "compare")
PLANNED_COMMANDS = ("evaluate", "predict", "export", "eject", "schema", "list",
           "show", "explain")  # fmt: skip
