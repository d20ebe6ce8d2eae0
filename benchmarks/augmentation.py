"""What augmentation costs a step, and what it gives on digits cut to 200 training images.

python benchmarks/augmentation.py cost
python benchmarks/augmentation.py accuracy
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import dlspec
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.augment.dataset_augmentation import augment_dataset

SAMPLES, SIZE, REPEATS = 32, 64, 30
FLIP_AND_AFFINE = ["RandomHorizontalFlip", {"RandomAffine": {"degrees": 10, "translate": [0.1, 0.1]}}]
COSTS: Mapping[str, Any] = {
    "RandomHorizontalFlip": ["RandomHorizontalFlip"],
    "RandomHorizontalFlip + RandomAffine": FLIP_AND_AFFINE,
    "RandomCrop with padding": [{"RandomCrop": {"size": [SIZE, SIZE], "padding": 4}}],
    "ColorJitter": [{"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}}],
    "TrivialAugment": ["TrivialAugment"],
    "MixUp": ["MixUp"],
    "CutMix": ["CutMix"],
}
SMALL_AFFINE = {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.85, 1.15], "shear": 10, "p": 0.8}
SEEDS = range(5)
LAYERS = [
    *({"Conv2d": {"out_channels": 32, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU"),
    *({"Conv2d": {"out_channels": 64, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU", {"MaxPool2d": 2}),
    *({"Conv2d": {"out_channels": 64, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", "ReLU"),
    *("Flatten", {"Linear": 10}),
]


def measure(step: Callable[[], object], device: torch.device) -> float:
    """Measure the median time of a step in milliseconds: on a CPU that of this process alone."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(REPEATS):
        start = clock()
        step()
        times.append(clock() - start)
    return 1000 * statistics.median(times)


def print_costs(device: torch.device) -> None:
    """Print what a batch of 32 images (3, 64, 64) takes, and a training step of resnet18 beside it."""
    images = np.random.default_rng(0).random((SAMPLES, 3, SIZE, SIZE), np.float32)
    arrays = {"image": images, "target": np.arange(SAMPLES) % 10}
    plain = dataset_from_arrays(arrays, validation=0, test=0)
    batch = ({"image": torch.from_numpy(images).to(device)}, {"target": torch.arange(SAMPLES, device=device) % 10})
    for name, written in COSTS.items():
        augmentation = augment_dataset(plain, written).augmentation
        assert augmentation is not None

        def step(augmentation: Any = augmentation) -> None:
            augmentation(*batch, 0, 1, 0)
            if device.type == "cuda":
                torch.cuda.synchronize()

        step()
        print(f"{name:40} {measure(step, device):7.2f} ms a batch", flush=True)
    network = dlspec.build(["model=resnet18"], plain).to(device)
    print(f"{'a step of resnet18':40} {measure_step(network, *batch):7.2f} ms", flush=True)


def measure_step(network: torch.nn.Module, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> float:
    """Measure a training step without the optimizer."""

    def step() -> None:
        torch.nn.functional.cross_entropy(network(inputs["image"]), targets["target"]).backward()
        if inputs["image"].is_cuda:
            torch.cuda.synchronize()

    step()
    return measure(step, inputs["image"].device)


def print_accuracies() -> None:
    """Print the test accuracy of five seeds with and without augmentation, trained on 200 images."""
    for name, augment in (("not augmented", []), ("RandomAffine", [{"RandomAffine": SMALL_AFFINE}])):
        found = []
        for seed in SEEDS:
            data = {"type": "digits", "test": 0.789, "validation": 0.1, "augment": augment}
            trainer = {"epochs": 60, "progress": "none", "test": "last"}
            spec = {"layers": LAYERS, "data": data, "scheduler": "CosineAnnealingLR", "seed": seed, "trainer": trainer}
            found.append(dlspec.train(spec).results["test/accuracy"])
        shown = " ".join(f"{each:.4f}" for each in found)
        print(f"{name:15} mean {statistics.mean(found):.4f} of {shown}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["accuracy"]:
        print_accuracies()
    else:
        print_costs(torch.device(sys.argv[2] if len(sys.argv) > 2 else "cpu"))
