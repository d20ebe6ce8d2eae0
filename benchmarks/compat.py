"""Time that each function of `dlspec/compat` saves: `python benchmarks/compat.py [NAMES] [--rounds 5]`.

Imports are timed as whole processes, alternating with the library's public way. Functions that are called at every step
or for every figure are timed within this process, also alternating.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from statistics import median

from measuring import ONE_THREAD, machine, table

USUAL = "import torch, numpy, PIL.Image, dlspec.training.trainer\n"
STEP = f"{USUAL}net = torch.nn.Linear(3, 2)\nnet(torch.ones(4, 3)).sum().backward()\n"
METRICS = f"{USUAL}from dlspec.parts.torch.torch_metrics import metric_registry\nmetric_registry()"
MODE = """
from torch.utils._python_dispatch import TorchDispatchMode
class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))
with Mode():
    net(torch.ones(4, 3))
"""
Programs = Mapping[str, tuple[str, str]]
PROGRAMS: Programs = {
    "optimizer": (
        f"{STEP}optimizer = torch.optim.Adam(net.parameters(), fused=True)\noptimizer.step()",
        f"{STEP}from dlspec.compat.torch_dynamo import make_step_function, without_dynamo\n"
        "with without_dynamo():\n    optimizer = torch.optim.Adam(net.parameters(), fused=True)\n"
        "make_step_function(optimizer)()",
    ),
    "deterministic": (
        f"{USUAL}torch.use_deterministic_algorithms(True)",
        f"{USUAL}from dlspec.compat.torch_dynamo import use_deterministic_algorithms\n"
        "use_deterministic_algorithms(True, warn_only=False)",
    ),
    "observed operations": (
        STEP + MODE,
        f"{STEP}from dlspec.compat.torch_dispatch import observe_operations\n"
        "with observe_operations(lambda *_: None):\n    net(torch.ones(4, 3))",
    ),
    "torchmetrics": (
        METRICS,
        f"from dlspec.compat.torchmetrics import skip_plot_imports\nleave_out_plots()\n{METRICS}",
    ),
    "tensorboard": (
        f"{USUAL}from tensorboard.compat.proto.event_pb2 import Event\n"
        "from tensorboard.summary.writer.record_writer import RecordWriter",
        f"{USUAL}import dlspec.compat.tensorboard",
    ),
    "scikit-learn": (
        f"{USUAL}from sklearn.datasets import load_digits\nload_digits()",
        f"{USUAL}from dlspec.data.sources.sklearn_datasets import read_digits\nread_digits()",
    ),
    "matplotlib": (
        f"{USUAL}import matplotlib.figure\nfrom matplotlib.backends.backend_agg import FigureCanvasAgg",
        f"{USUAL}from dlspec.compat.matplotlib import draw_text_bitmap, make_renderer\n"
        "make_renderer(10, 10, 100), draw_text_bitmap('a', 9, 100, is_bold=False)",
    ),
}
"""By name: a program that uses the public way, and one that uses dlspec's."""


def main() -> None:
    arguments = _arguments()
    rows = [_processes(name, arguments.rounds) for name in PROGRAMS if _is_wanted(name, arguments.names)]
    rows += [_calls(name, make, arguments.rounds) for name, make in CALLS.items() if _is_wanted(name, arguments.names)]
    print(f"{machine('torch', 'torchmetrics', 'matplotlib', 'tensorboard', 'scikit-learn')}\n")
    print(table(["", "public", "ours", "saved"], rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="rows to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _is_wanted(name: str, names: list[str]) -> bool:
    return not names or name in names


def _processes(name: str, rounds: int) -> list[str]:
    """Compare CPU seconds, which vary less on a busy machine than wall-clock time."""
    times = [[_cpu_seconds(program) for program in PROGRAMS[name]] for _ in range(rounds)]
    public, ours = (median(each) for each in zip(*times, strict=True))
    return [name, f"{public:.2f} s", f"{ours:.2f} s", f"{median(one - other for one, other in times):.2f} s"]


def _cpu_seconds(program: str) -> float:
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _calls(name: str, make: Callable[[], tuple[Callable[[], object], Callable[[], object]]], rounds: int) -> list[str]:
    """Compare the milliseconds of a call."""
    both = make()
    for call in both:
        call()
    times = [[_milliseconds(call) for call in both] for _ in range(4 * rounds)]
    public, ours = (median(each) for each in zip(*times, strict=True))
    ratio = median(one / other for one, other in times)
    return [name, f"{public:.3f} ms", f"{ours:.3f} ms", f"{ratio:.2f} times as fast"]


def _milliseconds(call: Callable[[], object]) -> float:
    count, started = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - started < 0.05:
        call()
        count += 1
    return 1000 * (time.perf_counter() - started) / count


def _network() -> object:
    from torch import nn

    return nn.Sequential(*(each for _ in range(20) for each in (nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))))


def _copied_counters() -> tuple[Callable[[], object], Callable[[], object]]:
    """Copy the counters of 20 batch norms to a copy: one by one and by name, or all at once from their slots."""
    import torch
    from torch import nn

    from dlspec.compat.torch_foreach import copy_tensors
    from dlspec.compat.torch_layers import iterate_tensor_slots

    network = _network()
    copy, name = deepcopy(network), "num_batches_tracked"
    norms = [[each for each in one.modules() if isinstance(each, nn.BatchNorm2d)] for one in (copy, network)]
    slots = [[slot for slot, _ in iterate_tensor_slots(one) if slot[1] == name] for one in (copy, network)]

    def public() -> None:
        for mine, theirs in zip(*norms, strict=True):
            getattr(mine, name).copy_(getattr(theirs, name))

    def ours() -> None:
        copy_tensors(*([held[key] for held, key in each] for each in slots))

    return torch.no_grad()(public), torch.no_grad()(ours)


def _fused_steps() -> tuple[Callable[[], object], Callable[[], object]]:
    """An update of two linear layers by Adam's fused kernel, as `optimizer.step()` makes it and called directly."""
    import torch
    from torch import nn

    from dlspec.compat.torch_optim import make_fused_step

    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    network(torch.ones(4, 64)).sum().backward()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    return optimizer.step, make_fused_step(optimizer, lambda: optimizer.step(None))


def _backward_passes() -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward pass of two linear layers with a batch of 32."""
    import torch
    from torch import nn

    from dlspec.compat.torch_autograd import run_backward

    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    batch = torch.ones(32, 64)
    return lambda: network(batch).sum().backward(), lambda: run_backward(network(batch).sum())


def _modes() -> tuple[Callable[[], object], Callable[[], object]]:
    """Switch ten layers to training."""
    from torch import nn

    from dlspec.compat.torch_layers import set_training_mode

    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(10)))
    return network.train, lambda: set_training_mode(network, True)


def _metrics() -> tuple[Callable[[], object], Callable[[], object]]:
    """Reset, update and compute the accuracy of 1,000 samples, with torchmetrics' wrappers and without them."""
    import torch

    from dlspec.compat.torchmetrics import compute_directly, import_torchmetrics, reset_directly, update_directly

    torch.set_num_threads(1)
    metric = import_torchmetrics().Accuracy(task="multiclass", num_classes=10, validate_args=False)
    tensors = torch.rand(1000, 10), torch.arange(1000) % 10

    def wrapped() -> float:
        metric.reset()
        metric.update(*tensors)
        return float(metric.compute())

    def direct() -> float:
        reset_directly(metric)
        update_directly(metric, *tensors)
        return float(compute_directly(metric))

    return wrapped, direct


def _pictures() -> tuple[Callable[[], object], Callable[[], object]]:
    """Draw a line through 100 points, with labelled axes and a title, as PNG."""
    from io import BytesIO

    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from dlspec.plots.axes import Axes
    from dlspec.plots.canvas import BLUE, DPI, Page

    x = np.linspace(0, 1, 100)

    def public() -> None:
        figure = Figure(figsize=(6, 4))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(x, x**2)
        axes.grid()
        axes.set(title="loss", xlabel="epoch")
        figure.savefig(BytesIO(), dpi=DPI)

    def ours() -> None:
        page = Page(6, 4)
        plot = Axes(page, 0.6, 0.6, 5, 3, (0, 1), (0, 1))
        plot.draw_frame("epoch")
        plot.set_title("loss")
        page.draw_line(plot.to_page(x, x**2), BLUE)
        page.to_png()

    return public, ours


def _steps() -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of a small CNN on MNIST-sized images at batch 128, with glibc's defaults and with freed memory kept."""
    import torch
    from torch import nn

    from dlspec.compat.glibc import find_glibc, keep_freed_memory, release_freed_memory

    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2704, 10))
    images, library = torch.randn(128, 1, 28, 28), find_glibc()

    def steps() -> None:
        for _ in range(5):
            network.zero_grad()
            network(images).square().sum().backward()

    def ours() -> None:
        if library is not None:
            keep_freed_memory(library)
        steps()
        if library is not None:
            release_freed_memory(library)

    return steps, ours


def _compositions() -> tuple[Callable[[], object], Callable[[], object]]:
    """A config composed as a process composes its first, and as it composes the later ones."""
    from hydra._internal import defaults_list

    from dlspec.compat import hydra
    from dlspec.config.composition import compose

    def public() -> None:
        defaults_list._create_interpolation_map = hydra._create_interpolation_map
        hydra._REMEMBERED.clear()
        compose(["model=mlp"])

    def ours() -> None:
        defaults_list._create_interpolation_map = hydra.create_interpolation_map
        compose(["model=mlp"])

    return public, ours


CALLS: Mapping[str, Callable[[], tuple[Callable[[], object], Callable[[], object]]]] = {
    "counters of an average": _copied_counters,
    "a fused step": _fused_steps,
    "a backward pass": _backward_passes,
    "training mode": _modes,
    "metrics": _metrics,
    "a picture": _pictures,
    "steps with memory kept": _steps,
    "composing": _compositions,
}


if __name__ == "__main__":
    main()
