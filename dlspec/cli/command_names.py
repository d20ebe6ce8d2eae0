"""Commands that import nothing heavy, that are planned, and that train. `dlspec.formatting.COMMANDS` has all others."""

from __future__ import annotations

# Commands that need neither PyTorch nor Hydra.
LIGHT_COMMANDS = ("status", "report", "compare", "cache")
PLANNED_COMMANDS = ("eject", "schema", "list",
           "show", "explain")  # fmt: skip
TRAINING_COMMANDS = ("train", "resume")
# With one of these, `train` prints something and trains nothing.
PRINTING_FLAGS = frozenset("--help -h --version --cfg -c --info -i --hydra-help --shell-completion -sc".split())
