"""What fine-tuning from a run's own weights gives on digits cut to 200 training images.

The run was trained on 900 other digits to tell odd from even ones; the new network gets a new head for ten classes.

python benchmarks/fine_tuning.py
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import dlspec

OTHERS, TRAINED = 900, 200  # images of the first run, and of the second
SEEDS = range(5)
LAYERS = [
    *({"Conv2d": {"out_channels": 32, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU"),
    *({"Conv2d": {"out_channels": 64, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU", {"MaxPool2d": 2}),
    *({"Conv2d": {"out_channels": 64, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU"),
    *("Flatten", {"Linear": "${data.num_outputs}", "name": "head"}),
]
TRAINER = {
    "epochs": 60,
    "progress": "none",
    "test": "last",
    "monitor": "train/loss",
    "pictures": False,
    "curves": False,
}


def make_data(*, is_first: bool) -> Mapping[str, Any]:
    """Make the arrays of the first run (odd or even) or of the second (ten classes)."""
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))
    rows = rows[:OTHERS] if is_first else rows[OTHERS:]
    images, labels = digits.images[rows].astype(np.float32)[:, None] / 16, digits.target[rows]
    return {"image": images, "target": labels % 2 if is_first else labels}


def train(seed: int, data: Mapping[str, Any], test: float, folder: str, **more: Any) -> float:
    """Train, and return the accuracy of the test.

    Args:
        seed: of the run
        data: the arrays
        test: the share of the test
        folder: the run's folder
        more: further sections of the spec
    """
    shares = {"validation": 0.0, "test": test}
    spec = {
        "layers": LAYERS,
        "data": shares,
        "scheduler": "CosineAnnealingLR",
        "seed": seed,
        "trainer": TRAINER,
        **more,
    }
    return float(dlspec.train(spec, data=data, folder=folder).results["test/accuracy"])


def print_accuracies() -> None:
    """Print the test accuracy of five seeds from scratch, and from the weights of the first run."""
    with tempfile.TemporaryDirectory() as folder:
        first = str(Path(folder, "first"))
        known = train(0, make_data(is_first=True), 0.1, first)
        print(f"the first run: odd or even, {OTHERS} images, accuracy {known:.4f}", flush=True)
        data = make_data(is_first=False)
        test = 1 - TRAINED / len(data["target"])
        for name, more in (("from scratch", {}), ("fine-tuned", {"weights": {"path": first, "fresh": ["head.*"]}})):
            found = [train(seed, data, test, str(Path(folder, f"{name} {seed}")), **more) for seed in SEEDS]
            shown = " ".join(f"{each:.4f}" for each in found)
            print(f"{name:13} mean {statistics.mean(found):.4f} of {shown}", flush=True)


if __name__ == "__main__":
    print_accuracies()
