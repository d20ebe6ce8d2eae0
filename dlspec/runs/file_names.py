"""The names of all files and folders of a run and of a sweep. A new file's name is added here."""

from __future__ import annotations

import re

DEFAULT_RUNS_FOLDER = "runs"
"""The folder below which runs and sweeps are made where the user names no other."""

# ---- a run's folder --------------------------------------------------------------------------------------------------

SPEC_FILE = "spec.yaml"
RESULT_FILE = "result.json"
STATUS_FILE = "status.json"
ENVIRONMENT_FILE = "environment.json"
LOG_FILE = "log.txt"
LOCK_FILE = "lock"
METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
CURVES_FILE = "curves.png"
PREDICTIONS_FILE = "predictions.png"
SAMPLES_FILE = "samples.txt"

CHECKPOINTS_FOLDER = "checkpoints"
"""A folder; the three names below are those of files in it."""
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
CHECKPOINT_PATTERN = re.compile(r"step-(\d{9,18})\.safetensors")
DAMAGED_SUFFIX = ".damaged"
"""What stands behind the name of a checkpoint that can't be read."""
WEIGHTS_FILES = (f"{CHECKPOINTS_FOLDER}/{BEST_FILE}", f"{CHECKPOINTS_FOLDER}/{LAST_FILE}")
"""Where a run has its weights, the ones to take first."""

EVENTS_PATTERN = "events.out.tfevents.*.dlspec"
"""TensorBoard's files."""
HYDRA_OVERRIDES = ".hydra/overrides.yaml"

# ---- a sweep's folder ------------------------------------------------------------------------------------------------

SWEEP_FILE = "sweep.json"
MULTIRUN_FILE = "multirun.yaml"
LEADERBOARD_FILE = "leaderboard.csv"
REPORT_FILE = "report.html"
STOP_FILE = "stop"
"""While it is there no further job of another launcher begins."""
JOB_FILE = "job.json"
"""In a job's folder, while another launcher has the job."""


def format_checkpoint_name(step: int) -> str:
    """The name of the checkpoint that is written after so many steps."""
    return f"step-{step:09d}.safetensors"


def format_events_name(started: int, host: str, process: int) -> str:
    """The name of the events file of a process that began so many seconds after 1970."""
    return f"events.out.tfevents.{started:010d}.{host}.{process}.dlspec"
