"""The names of all files and folders of a run and of a sweep. A new file's name is added here."""

from __future__ import annotations

import re

RUNS = "runs"
"""The folder below which runs and sweeps are made where the user names no other."""

# ---- a run's folder --------------------------------------------------------------------------------------------------

SPEC = "spec.yaml"
RESULT = "result.json"
STATUS = "status.json"
ENVIRONMENT = "environment.json"
LOG = "log.txt"
LOCK = "lock"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CURVES = "curves.png"
PREDICTIONS = "predictions.png"
SAMPLES = "samples.txt"

CHECKPOINTS = "checkpoints"
"""A folder; the three names below are those of files in it."""
BEST = "best.safetensors"
LAST = "last.safetensors"
CHECKPOINT = re.compile(r"step-(\d{9,18})\.safetensors")
DAMAGED = ".damaged"
"""What stands behind the name of a checkpoint that can't be read."""
WEIGHTS = (f"{CHECKPOINTS}/{BEST}", f"{CHECKPOINTS}/{LAST}")
"""Where a run has its weights, the ones to take first."""

EVENTS = "events.out.tfevents.*.dlspec"
"""TensorBoard's files."""
HYDRA_OVERRIDES = ".hydra/overrides.yaml"

# ---- a sweep's folder ------------------------------------------------------------------------------------------------

SWEEP = "sweep.json"
MULTIRUN = "multirun.yaml"
LEADERBOARD = "leaderboard.csv"
PAGE = "report.html"
STOP = "stop"
"""While it is there no further job of another launcher begins."""
JOB = "job.json"
"""In a job's folder, while another launcher has the job."""


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint that is written after so many steps."""
    return f"step-{step:09d}.safetensors"


def events_name(began: int, host: str, process: int) -> str:
    """The name of the events file of a process that began so many seconds after 1970."""
    return f"events.out.tfevents.{began:010d}.{host}.{process}.dlspec"
