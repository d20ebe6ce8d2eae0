"""Training on images in files: `python benchmarks/images.py [--images 512] [--rounds 3] [--only speed,memory]`.

- `speed`: images per second of resnet18 at 64 x 64 from JPEG files: the first epoch, which decodes, and epochs from the
  cache, beside the same images as tensors in memory and a DataLoader that decodes with Pillow. The step is the same for
  all; the contenders take turns, an epoch each.
- `memory`: what opening a folder of 100,000 JPEG files and reading an epoch of it takes, for each kind of cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ONE_THREAD, machine, spread, table
from turns import resident

SIZE, FILE_SIZE, BATCH, CLASSES, SEED = 64, 128, 32, 10, 0
CACHES = ("memory", "disk", "false")


def main() -> None:
    arguments = _parse_arguments()
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLSPEC_CACHE"] = str(Path(folder) / "cache")
        if arguments.measure:
            print(json.dumps(measure_epoch(Path(arguments.file), arguments.measure)))
            return
        print(f"{machine('torch', 'pillow')}; one thread; medians (quartiles)", flush=True)
        if "speed" in arguments.only:
            print_speed(make_folder(Path(folder) / "images", arguments.images), arguments.rounds)
        if "memory" in arguments.only:
            print_memory(make_folder(Path(folder) / "large", arguments.large, size=SIZE), Path(folder))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="images of the comparison of speeds")
    parser.add_argument("--large", type=int, default=100_000, help="images whose memory is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="speed,memory")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_folder(folder: Path, count: int, size: int = FILE_SIZE) -> Path:
    """Write JPEG files, smooth noise of one size, in a folder for each class."""
    for number in range(CLASSES):
        (folder / f"class_{number}").mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_write_image, folder, size), range(count)))
    return folder


def _write_image(folder: Path, size: int, number: int) -> None:
    from PIL import Image

    noise = np.random.default_rng(number).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    image.save(folder / f"class_{number % CLASSES}" / f"{number}.jpg", quality=90)


def open_images(folder: Path, cache: str) -> Any:
    """Open a folder as dlspec does; all images are for training."""
    from dlspec.data.sources.image_folder import ImageFolder

    setting: Any = False if cache == "false" else cache
    return ImageFolder(path=str(folder), size=SIZE, cache=setting, validation=0.0, test=0.0).open()


# ---- speed -----------------------------------------------------------------------------------------------------------


@dataclass
class Epoch:
    """What an epoch took: seconds, CPU seconds of all threads and processes, and the seconds that steps waited."""

    seconds: float
    cpu: float
    waited: float


def print_speed(folder: Path, rounds: int) -> None:
    """Train with every contender in turn, and print images per second and ratios of CPU time."""
    contenders = make_contenders(folder)
    found: dict[str, list[Epoch]] = {name: [] for name in contenders}
    for number in range(rounds + 1):  # the first round warms up, and fills the caches
        for name, make_batches in contenders.items():
            epoch = train_epoch(make_batches(number))
            if number:
                found[name].append(epoch)
    count = sum(1 for _ in folder.rglob("*.jpg"))
    tensors = found["tensors in memory"]
    lines = []
    for name, epochs in found.items():
        cells = [f"{spread([count / each.seconds for each in epochs]):.1f}"]
        pairs = list(zip(tensors, epochs, strict=True))
        cells += [f"{spread([one.seconds / each.seconds for one, each in pairs]):.3f}"]
        cells += [f"{spread([one.cpu / each.cpu for one, each in pairs]):.3f}"]
        cells += [f"{spread([100 * each.waited / each.seconds for each in epochs]):.1f} %"]
        lines.append([name, *cells])
    header = ["", "images/s", "times tensors in memory", "in CPU time", "steps waited"]
    print(f"\n{count:,} JPEG files of {FILE_SIZE} x {FILE_SIZE}, resnet18 at {SIZE} x {SIZE}, batches of {BATCH}:\n")
    print(table(header, lines), flush=True)


Batches = Iterator[tuple[Any, Any]]


def make_contenders(folder: Path) -> dict[str, Callable[[int], Batches]]:
    """Make what yields the batches of an epoch, by contender."""
    data = {cache: open_images(folder, cache) for cache in CACHES}
    from dlspec.data.dataset import Split

    train = data["false"].train
    tensors = Split({"image": train.tensors["image"][:]}, train.targets)
    return {
        "tensors in memory": make_dlspec_batches(tensors),
        "cache: memory": make_dlspec_batches(data["memory"].train),
        "cache: disk": make_dlspec_batches(data["disk"].train),
        "first epoch (decodes)": make_dlspec_batches(data["false"].train),
        "first epoch, num_workers=2": make_dlspec_batches(data["false"].train, workers=2),
        "DataLoader with Pillow, 0 workers": partial(iterate_data_loader, folder, 0),
        "DataLoader with Pillow, 2 workers": partial(iterate_data_loader, folder, 2),
    }


def make_dlspec_batches(split: Any, workers: int = 0) -> Callable[[int], Batches]:
    import torch

    from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan

    plan = BatchPlan(BATCH, workers=workers)
    loader = BatchLoader(split, ("image",), ("label",), plan, torch.device("cpu"))

    def iterate(epoch: int) -> Batches:
        for (images,), (labels,) in loader.iterate_shuffled(SEED, epoch):
            yield images, labels

    return iterate


class PillowImages:
    """A data set as in a tutorial."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.rglob("*.jpg"))
        names = sorted({each.parent.name for each in self.files})
        self.labels = [names.index(each.parent.name) for each in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        with Image.open(self.files[row]) as image:
            pixels = np.array(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, self.labels[row]


def iterate_data_loader(folder: Path, workers: int, epoch: int) -> Batches:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(epoch)
    images: Any = PillowImages(folder)
    yield from DataLoader(images, BATCH, shuffle=True, num_workers=workers)


def train_epoch(batches: Batches) -> Epoch:
    """Train the network on the batches of an epoch."""
    step, start, cpu, waited = make_step(), time.perf_counter(), _cpu_seconds(), 0.0
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return Epoch(time.perf_counter() - start, _cpu_seconds() - cpu, waited)
        step(*batch)


def _cpu_seconds() -> float:
    """CPU time of all threads, and of child processes that have ended."""
    usages = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usages)


def make_step() -> Callable[[Any, Any], None]:
    import torch
    from networks import resnet18

    torch.manual_seed(SEED)
    network = resnet18(CLASSES)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

    def step(images: Any, labels: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


# ---- memory ----------------------------------------------------------------------------------------------------------


def print_memory(folder: Path, work: Path) -> None:
    """Print what opening a large folder and reading two epochs takes, each kind of cache in a process of its own."""
    count, lines = sum(1 for _ in folder.rglob("*.jpg")), []
    for cache in CACHES:
        command = [sys.executable, __file__, "--measure", cache, "--file", str(folder)]
        paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        lines.append([f"cache: {cache}", *json.loads(done.stdout.splitlines()[-1])])
    header = ["", "opening, s", "CPU s", "MiB after opening", "first epoch, CPU s", "second, CPU s",
              "MiB of this process", "MiB shared with files"]  # fmt: skip
    print(f"\n{count:,} JPEG files of {SIZE} x {SIZE}, read in batches of 256 without training, once:\n")
    print(table(header, lines), flush=True)


def measure_epoch(folder: Path, cache: str) -> list[str]:
    """Open a folder and read two epochs."""
    import torch

    from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan

    before, start, cpu = resident("RssAnon"), time.perf_counter(), time.process_time()
    data = open_images(folder, cache)
    opened = [time.perf_counter() - start, time.process_time() - cpu, (resident("RssAnon") - before) / 2**20]
    loader, cpus = BatchLoader(data.train, ("image",), ("label",), BatchPlan(256), torch.device("cpu")), []
    for epoch in range(2):
        cpu = time.process_time()
        for _ in loader.iterate_shuffled(SEED, epoch):
            pass
        cpus.append(time.process_time() - cpu)
    sizes = [(resident("RssAnon") - before) / 2**20, resident("RssFile") / 2**20]
    return [f"{each:,.1f}" for each in [*opened[:2]]] + [f"{each:,.0f}" for each in [opened[2], *cpus, *sizes]]


if __name__ == "__main__":
    main()
