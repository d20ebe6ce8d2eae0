"""The commands and exit codes: nothing here takes time to import."""

from __future__ import annotations

COMMANDS = {
    "train": "train and test (the default: the word may be left out); -m sweeps",
    "resume": "go on with a run from its newest checkpoint, or with a sweep: run=FOLDER|latest, sweep=FOLDER",
    "validate": "check a spec without opening data; says which checks had to wait for them",
    "summary": "the network's layers, parameters, multiply-adds and memory; --depth N folds, --graph FILE.svg draws",
    "status": "the runs below runs/ or FOLDER ...: which go on, how far they are, what resumes the others; --json",
    "report": "compare the runs below runs/ or FOLDER ...: leaderboard.csv and report.html; --output FOLDER",
    "compare": "what differs between runs in spec, environment and result: compare FOLDER FOLDER",
}
LIGHT = {name: f"dlspec.cli.commands.{name}" for name in ("status", "report", "compare")}
"""Commands that need neither PyTorch nor Hydra, and their modules."""
NOT_YET = ("evaluate", "predict", "export", "eject", "schema", "inspect", "list",
           "show", "explain")  # fmt: skip
DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
