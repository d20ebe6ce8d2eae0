"""Check whether an optimizer works with the settings of the trainer, before anything runs."""

from __future__ import annotations

from torch.optim import Optimizer

from dlspec.errors import Code
from dlspec.jobs.spec import CheckedPart, Spec
from dlspec.language.problems import Problems
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.optimizer import needs_closure
from dlspec.optim.update_rules import has_update_rule

# Schedulers that step after every optimizer step by default; the others step after every epoch.
STEP_SCHEDULERS = ("OneCycleLR", "CyclicLR")


def check_optimizer(spec: Spec, optimizer: Optimizer, problems: Problems) -> None:
    """Report settings of the optimizer and the trainer that do not work together.

    Args:
        spec: The checked spec.
        optimizer: Its optimizer, as it was built.
        problems: Gets the problems.
    """
    _check_kernel_settings(spec.optimizer, optimizer, problems)
    _check_steps_per_call(spec.trainer, problems)
    _check_compiled_step(spec, optimizer, problems)
    _check_rate_search(spec, problems)
    if needs_closure(optimizer):
        _check_closure_support(spec.optimizer.schema.name, spec.trainer, problems)


def _check_kernel_settings(part: CheckedPart, optimizer: Optimizer, problems: Problems) -> None:
    """Report settings with which PyTorch would fail in the first step."""
    path = part.part.path_of
    if any(group.get("differentiable") for group in optimizer.param_groups):
        found = "with 'differentiable' PyTorch can't update parameters, as it would track the update for gradients"
        problems.add(Code.UNSUPPORTED, path("differentiable"), found, "leave it out", at_value=True)
    devices = {each.device.type for group in optimizer.param_groups for each in group["params"]}
    if devices & {"cpu", "mps"} and any(group.get("capturable") for group in optimizer.param_groups):
        found = f"'capturable' is for GPUs with CUDA, but the run computes on {', '.join(sorted(devices))}"
        problems.add(Code.UNSUPPORTED, path("capturable"), found, "leave it out", at_value=True)


def _check_compiled_step(spec: Spec, optimizer: Optimizer, problems: Problems) -> None:
    """Report settings that don't work with a compiled step (trainer.compile=step) or a recorded one (cudagraphs)."""
    trainer, scheduler = spec.trainer, spec.scheduler
    if trainer.compile not in ("step", "cudagraphs"):
        return
    is_recorded = trainer.compile == "cudagraphs"
    takes_numbers = not is_recorded and has_update_rule(optimizer)  # and not only learning rates that are tensors
    moves_momentum = scheduler is not None and scheduler.schema.name in STEP_SCHEDULERS
    if scheduler is not None and scheduler.settings.get("cycle_momentum", True) is False:
        moves_momentum = False
    reasons = {
        f"{spec.optimizer.schema.name}, which calls a closure": needs_closure(optimizer),
        "trainer.accumulate": trainer.accumulate > 1 and not takes_numbers,
        "trainer.activation_checkpointing": bool(trainer.activation_checkpointing) and not is_recorded,
        f"trainer.on_nan={trainer.on_nan}": trainer.on_nan != "stop",
        f"trainer.debug={trainer.debug}": trainer.debug is not None,
        "the scaled gradients of trainer.precision=16": trainer.precision == 16 and not is_recorded,
        "a momentum that changes at every step (scheduler.cycle_momentum=false keeps it)": moves_momentum
        and not takes_numbers,
    }
    for reason in (reason for reason, applies in reasons.items() if applies):
        found = f"trainer.compile={trainer.compile} does not support {reason}"
        problems.add(
            Code.UNSUPPORTED, ("trainer", "compile"), found, "use trainer.compile=model or none", at_value=True
        )


def _check_steps_per_call(trainer: TrainerSpec, problems: Problems) -> None:
    """Report a number of steps per call for steps that are not compiled."""
    if trainer.steps_per_call != "auto" and trainer.compile != "step" and not trainer.tune:
        found = f"trainer.steps_per_call has no effect with trainer.compile={trainer.compile}"
        fix = "leave it out, or compile the step: trainer.compile=step"
        problems.add(Code.UNSUPPORTED, ("trainer", "steps_per_call"), found, fix, at_value=True)


def _check_rate_search(spec: Spec, problems: Problems) -> None:
    """Report a scheduler with which the learning rate that `trainer.tune: lr` finds would have no effect."""
    scheduler = spec.scheduler
    if spec.trainer.tune == "lr" and scheduler is not None and scheduler.schema.name in STEP_SCHEDULERS:
        found = f"trainer.tune=lr finds optimizer.lr, but {scheduler.schema.name} sets the learning rate itself"
        problems.add(Code.UNSUPPORTED, ("trainer", "tune"), found, "leave one of them out", at_value=True)


def _check_closure_support(name: str, trainer: TrainerSpec, problems: Problems) -> None:
    """Report settings that don't work with an optimizer that calls a closure, such as LBFGS."""
    found = f"{name} computes the loss several times in a step, so it does not support"
    if trainer.accumulate > 1:
        fix = "leave it out, or raise trainer.batch_size"
        problems.add(Code.UNSUPPORTED, ("trainer", "accumulate"), f"{found} accumulated gradients", fix, at_value=True)
    if trainer.precision == 16:
        fix = "use bf16, which needs no gradient scaling"
        problems.add(
            Code.UNSUPPORTED,
            ("trainer", "precision"),
            f"{found} the scaled gradients of precision 16",
            fix,
            at_value=True,
        )
