"""What fine-tuning from a run's own weights gives on digits cut to 200 training images.

The run was trained on 900 other digits, to tell odd from even ones or to tell all ten; the new network gets a new head.

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


def make_data(*, is_first: bool, classes: int = 10) -> Mapping[str, Any]:
    """Make the arrays of the first run or of the second.

    Args:
        is_first: whether these are the images of the first run
        classes: 10 for the digits, 2 for even and odd ones
    """
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))
    rows = rows[:OTHERS] if is_first else rows[OTHERS:]
    images = digits.images[rows].astype(np.float32)[:, None] / 16
    return {"image": images, "target": digits.target[rows] % classes}


def train(seed: int, data: Mapping[str, Any], test: float, folder: Path, **more: Any) -> tuple[float, Path | None]:
    """Train, and return the accuracy of the test and the folder of the run.

    Args:
        seed: of the run
        data: the arrays
        test: the share of the test
        folder: where the folder of the run is made
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
    result = dlspec.train(spec, data=data, folder=folder)
    return float(result.results["test/accuracy"]), result.folder


def print_accuracies() -> None:
    """Print the test accuracy of five seeds from scratch, and from the weights of each first run."""
    data = make_data(is_first=False)
    test = 1 - TRAINED / len(data["target"])
    with tempfile.TemporaryDirectory() as folder:
        weights: dict[str, dict[str, Any]] = {"from scratch": {}}
        for name, classes in (("from odd and even", 2), ("from ten digits", 10)):
            known, first = train(0, make_data(is_first=True, classes=classes), 0.1, Path(folder))
            print(f"{name}: the first run has the accuracy {known:.4f}", flush=True)
            weights[name] = {"weights": {"path": str(first), "fresh": ["head.*"]}}
        for name, more in weights.items():
            found = [train(seed, data, test, Path(folder), **more)[0] for seed in SEEDS]
            shown = " ".join(f"{each:.4f}" for each in found)
            print(f"{name:17} mean {statistics.mean(found):.4f} of {shown}", flush=True)


if __name__ == "__main__":
    print_accuracies()
