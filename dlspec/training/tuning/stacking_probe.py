"""What keeps a run from being trained in a stack, and whether stacking is faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median

import torch
from torch import fx, nn
from torch.optim import Optimizer

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.compat.torch_optim import FusedStep, make_fused_step, run_fused_steps
from dlspec.optim.optimizer import needs_closure
from dlspec.training.criterion_interface import total_loss, total_losses
from dlspec.training.runtime.randomness import preserve_generators
from dlspec.training.stacking.compilation import find_compile_obstacle
from dlspec.training.stacking.member_generators import MemberGenerators
from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.stacking.stacked_loss import StackedLoss
from dlspec.training.stacking.stacked_network import StackedNetwork
from dlspec.training.trainer import Trainer

MIN_GAIN = 1.15  # of stacked steps over single ones; the measurement is not exact enough for less
MAX_PROBED_MEMBERS = 8  # more give the same answer
WARMUP_STEPS = 2
MIN_PROBED_STEPS, MIN_PROBED_SECONDS = 5, 0.05  # both: a few short steps say little on a busy machine
KNOWN_MODULES = ("torch.", "dlspec.")
# Layers that are called once for each member, and take most of a step's time: nothing has to be measured.
SINGLE_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.RNNBase,
    nn.MultiheadAttention,
)  # fmt: skip


def find_obstacle(trainer: Trainer) -> str:
    """Return why a run can't be trained in a stack; '' if it can."""
    settings, network = trainer.settings, trainer.model.network
    optimizer, batches = trainer.optimization.optimizer, trainer.batches.make_training_batches()
    criterion = trainer.model.criterion
    modules = [*network.modules(), *(criterion.modules() if isinstance(criterion, nn.Module) else ())]
    schedule = trainer.optimization.schedule
    scheduler = schedule.scheduler if schedule is not None and schedule.interval == "step" else None
    parts = [*modules, *(each for each in (optimizer, scheduler) if each is not None)]
    own = next((each for each in parts if not type(each).__module__.startswith(KNOWN_MODULES)), None)
    compile_obstacle = find_compile_obstacle(network, optimizer, batches)
    reasons = {
        f"they train on {trainer.state.device}": trainer.state.device.type != "cpu",
        f"trainer.precision is {settings.precision}": settings.precision not in (32, 64),
        f"trainer.compile is {settings.compile}": settings.compile not in ("none", "step"),
        f"trainer.compile is step, and {compile_obstacle}": settings.compile == "step" and bool(compile_obstacle),
        f"trainer.accumulate is {settings.accumulate}": settings.accumulate > 1,
        "trainer.num_workers loads batches in threads": settings.num_workers > 0,
        "trainer.activation_checkpointing computes activations again": bool(settings.activation_checkpointing),
        f"trainer.on_nan: {settings.on_nan} checks every gradient": trainer.guard.policy.is_strict,
        "trainer.debug looks for nan in each layer": settings.debug is not None,
        "nothing is trained": optimizer is None,
        "their batches are cut to the longest sample": batches.is_trimmed,
        "samples are read batch by batch, or augmented": batches.is_completed,
        f"{type(optimizer).__name__} evaluates the loss itself": optimizer is not None and needs_closure(optimizer),
        f"{type(own).__name__} is your own class, and may draw random numbers or write to the log": own is not None,
        "the network has code of its own": not isinstance(network, nn.Sequential | fx.GraphModule),
    }
    return next((reason for reason, is_true in reasons.items() if is_true), "")


def find_single_layer(network: nn.Module) -> str:
    """Return the first kind of layer that makes stacked steps as slow as single ones, on a CPU; '' without any."""
    return next((type(each).__name__ for each in network.modules() if isinstance(each, SINGLE_LAYERS)), "")


@dataclass(frozen=True)
class StackingProbe:
    """CPU seconds of a training step of one job, by itself and in a stack."""

    single: float
    stacked: float

    @property
    def gain(self) -> float:
        """How many times as fast the steps of a stack are."""
        return self.single / self.stacked


def measure_steps(trainer: Trainer, members: int) -> StackingProbe:
    """Measure training steps in a stack and by themselves, with their updates.

    The run and the random generators are not changed.

    Args:
        trainer: a run of the stack.
        members: the number of members.
    """
    count = min(members, MAX_PROBED_MEMBERS)
    with preserve_generators(), torch.enable_grad():
        copies = [_copy_trained_parts(trainer) for _ in range(count)]
        networks = [network.train() for network, _ in copies]
        inputs, targets = next(trainer.batches.make_training_batches().iterate_shuffled(0, 1))
        criterion = trainer.model.criterion
        updates = [make_fused_step(each, make_step_function(each)) for _, each in copies]

        def step_single() -> None:
            for each in networks[0].parameters():
                each.grad = None
            total_loss(criterion(networks[0](*inputs), targets)).backward()  # type: ignore[no-untyped-call]
            updates[0]()

        single = _measure_seconds(step_single)
        stack = StackedNetwork(networks, MemberGenerators([torch.get_rng_state()] * count))
        compute_losses = StackedLoss([criterion] * count)
        fused = [each for each in updates if isinstance(each, FusedStep)]
        others = [each for each in updates if not isinstance(each, FusedStep)]
        stacked_targets = [MemberValues(each.expand(count, *each.shape)) for each in targets]

        def step_stacked() -> None:
            values = [MemberValues(each.expand(count, *each.shape)) for each in inputs]
            losses = compute_losses(stack(values), stacked_targets)
            stack.compute_gradients(total_losses(losses.stack()).sum())
            run_fused_steps(fused)
            for update in others:
                update()

        return StackingProbe(single, _measure_seconds(step_stacked) / count)


def _copy_trained_parts(trainer: Trainer) -> tuple[nn.Module, Optimizer]:
    """Copy the network and the optimizer together, so that the copy updates the parameters of the copy."""
    network, optimizer = deepcopy((trainer.model.network, trainer.optimization.optimizer))
    assert optimizer is not None  # else `find_obstacle` finds one
    vars(optimizer).pop("step", None)  # a scheduler's wrapper, which would update the weights of the run
    return network, optimizer


def _measure_seconds(step: Callable[[], None]) -> float:
    for _ in range(WARMUP_STEPS):
        step()
    seconds: list[float] = []
    while len(seconds) < MIN_PROBED_STEPS or sum(seconds) < MIN_PROBED_SECONDS:
        started = time.thread_time()
        step()
        seconds.append(time.thread_time() - started)
    return max(median(seconds), 1e-9)
