"""The names of all files in the folders of runs and sweeps. Add the name of a new file here."""

from __future__ import annotations

import re
from datetime import datetime

DEFAULT_RUNS_FOLDER = "runs"  # runs and sweeps are created below it unless the user chooses another folder

# ---- a run's folder --------------------------------------------------------------------------------------------------

SPEC_FILE = "spec.yaml"
RESULT_FILE = "result.json"
STATUS_FILE = "status.json"
PREPARE_FILE = "prepare.json"  # what was fitted on the training rows: scales, categories, vocabularies
ENVIRONMENT_FILE = "environment.json"
LOG_FILE = "log.txt"  # of the others of several processes: format_rank_log_name
LOCK_FILE = "lock"
VERSIONS_FILE = "versions.json"  # of a sweep's job: the code and data that it was trained with
METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
CURVES_FILE = "curves.png"
PREDICTIONS_FILE = "predictions.png"
IMAGES_FILE = "predictions_images.png"  # images with their predicted classes, the worst errors first
SAMPLES_FILE = "samples.txt"
RATES_FILE = "learning_rates.png"  # the loss at each learning rate that trainer.tune=lr tried
RUN_PAGE_FILE = "run.html"  # the page of one run, which `report run=FOLDER` writes
EVALUATIONS_FOLDER = "evaluations"  # one JSON file for each evaluation after training, and its pictures

CHECKPOINTS_FOLDER = "checkpoints"
# Files in the checkpoints folder.
BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
CHECKPOINT_PATTERN = re.compile(r"step-(\d{9,18})\.safetensors")
# The folder of a checkpoint whose tensors are divided among processes; while it is written, its name is longer.
SHARDS_PATTERN = re.compile(r"\.?step-\d{9,18}(?:-2)?\.shards(?:\.[a-z0-9_]{8})?")
DAMAGED_SUFFIX = ".damaged"  # appended to the name of a checkpoint that cannot be read
# Where the weights of a run may be; the first file that exists is used.
WEIGHTS_FILES = (f"{CHECKPOINTS_FOLDER}/{BEST_FILE}", f"{CHECKPOINTS_FOLDER}/{LAST_FILE}")

_EVALUATION_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(\d{1,9}))?\.json", re.ASCII)

EVENTS_PATTERN = "events.out.tfevents.*.dlspec"  # TensorBoard's files
HYDRA_FOLDER = ".hydra"
HYDRA_OVERRIDES = f"{HYDRA_FOLDER}/overrides.yaml"
RUN_SUBFOLDERS = (CHECKPOINTS_FOLDER, HYDRA_FOLDER, EVALUATIONS_FOLDER)

# Files that a run replaces when it starts from the beginning, as patterns.
REWRITTEN_FILES = (
    RESULT_FILE, STATUS_FILE, SPEC_FILE, PREPARE_FILE, ENVIRONMENT_FILE, METRICS_FILE, TIMING_FILE, CURVES_FILE,
    RATES_FILE, SAMPLES_FILE, RUN_PAGE_FILE, "predictions*.png", EVENTS_PATTERN, f"{CHECKPOINTS_FOLDER}/{BEST_FILE}",
    f"{CHECKPOINTS_FOLDER}/{LAST_FILE}", f"{EVALUATIONS_FOLDER}/*.json", f"{EVALUATIONS_FOLDER}/*.png",
)  # fmt: skip

# ---- a sweep's folder ------------------------------------------------------------------------------------------------

SWEEP_FILE = "sweep.json"
MULTIRUN_FILE = "multirun.yaml"
OPTUNA_FILE = "optimization_results.yaml"
SUBMITIT_FOLDER = ".submitit"  # logs and pickled results of submitit's jobs
LEADERBOARD_FILE = "leaderboard.csv"
REPORT_FILE = "report.html"
STOP_FILE = "stop"  # while it exists, jobs that an external Hydra launcher runs do not start
JOB_FILE = "job.json"  # in a job's folder, while an external Hydra launcher runs the job


def format_evaluation_name(created: datetime, count: int = 1) -> str:
    """Return the file name of an evaluation: `2026-05-01_12-30-05.json`, with `_2` for the second of that second."""
    return f"{created:%Y-%m-%d_%H-%M-%S}{f'_{count}' if count > 1 else ''}.json"


def parse_evaluation_name(name: str) -> tuple[str, int]:
    """Return the time of an evaluation and its number within that second, in which evaluations can be sorted.

    Files that are named otherwise come before all others.
    """
    found = _EVALUATION_NAME.fullmatch(name)
    return (found[1], int(found[2] or 1)) if found else ("", 0)


def format_rank_log_name(rank: int) -> str:
    """Return the file name of the log of one of several processes: `log.txt` for the first, then `log.rank1.txt`."""
    return f"log.rank{rank}.txt" if rank else LOG_FILE


def format_checkpoint_name(step: int) -> str:
    """Return the file name of the checkpoint after `step` steps."""
    return f"step-{step:09d}.safetensors"


def format_shards_names(step: int) -> tuple[str, str]:
    """Return the names that the folder with the tensors of the checkpoint after `step` steps can have.

    They are divided among processes. The second name is used if that step is saved again: the first folder belongs to
    a complete checkpoint until the other one is complete.
    """
    return f"step-{step:09d}.shards", f"step-{step:09d}-2.shards"


def format_events_name(started: int, host: str, process: int) -> str:
    """Return the file name of a process's TensorBoard events.

    Args:
        started: start time in seconds since 1970
        host: name of the machine
        process: process id
    """
    return f"events.out.tfevents.{started:010d}.{host}.{process}.dlspec"
