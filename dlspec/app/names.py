"""The commands and exit codes: nothing here takes time to import."""

from __future__ import annotations

COMMANDS = {
    "train": "train and test (the default: the word may be left out); -m sweeps",
    "resume": "go on with a run from its newest checkpoint: run=FOLDER or run=latest",
    "validate": "check a spec without opening data; says which checks had to wait for them",
    "summary": "the network's layers, parameters, multiply-adds and memory; --depth N folds, --graph FILE.svg draws",
    "status": "the runs below runs/ or FOLDER ...: which go on, how far they are, what resumes the others; --json",
}
NOT_YET = ("evaluate", "predict", "report", "compare", "export", "eject", "schema", "inspect", "list",
           "show", "explain")  # fmt: skip
DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
