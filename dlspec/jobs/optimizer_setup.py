"""Build what changes a network's weights: the optimizer with its groups, the schedule, and the frozen parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, SequentialLR

from dlspec.compat.torch_dynamo import without_dynamo
from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.jobs.optimizer_checks import STEP_SCHEDULERS, check_optimizer
from dlspec.jobs.scheduler_groups import fit_settings_to_groups
from dlspec.jobs.spec import CheckedPart, Spec
from dlspec.language.parse.pattern import ParameterPattern
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import WARMUP_OF_EPOCHS
from dlspec.limits import explain_raising_limit, get_limit
from dlspec.metrics.selection import SelectedMetric, make_metrics
from dlspec.network.built_network import Network
from dlspec.network.parameters import NamedParameter, list_named_parameters, match_patterns
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.optimizer import has_sparse_gradients, make_optimizer
from dlspec.optim.schedule import Schedule, TrainedLength
from dlspec.optim.warmup import Warmup
from dlspec.parts.specs.parameters_spec import UNFREEZE_KEY
from dlspec.training.metric_monitor import choose_monitor_mode


def freeze_parameters(network: Network, patterns: Sequence[ParameterPattern], problems: Problems) -> FrozenParameters:
    """Freeze the parameters that the patterns match.

    Args:
        network: The network, changed in place.
        patterns: The patterns of `freeze`, each with the epoch that unfreezes it, if any.
        problems: Gets a problem for each pattern that matches nothing.
    """
    picks = match_patterns(list_named_parameters(network), patterns, problems) if patterns else []
    return FrozenParameters({each.parameter: pattern.settings.get(UNFREEZE_KEY) for each, pattern in picks if pattern})


def group_parameters(
    network: Network, freezing: FrozenParameters, groups: Sequence[ParameterPattern], problems: Problems
) -> list[tuple[ParameterPattern | None, list[NamedParameter]]]:
    """Divide the trained parameters into the optimizer's groups.

    Args:
        network: The network.
        freezing: The frozen parameters; those that are frozen for the whole run are in no group.
        groups: The patterns of `optimizer.groups`.
        problems: Gets a problem for each pattern that matches nothing.

    Returns:
        The groups that are not empty: first the parameters that no pattern matches (None), then those of each pattern.
    """
    picks = match_patterns(list_named_parameters(network), groups, problems)
    trained = [(each, pattern) for each, pattern in picks if freezing.is_ever_trained(each.parameter)]
    found = [(group, [each for each, pattern in trained if pattern is group]) for group in (None, *groups)]
    return [(group, parameters) for group, parameters in found if parameters]


def build_optimizer(spec: Spec, network: Network, freezing: FrozenParameters, problems: Problems) -> Optimizer | None:
    """Build the spec's optimizer.

    Args:
        spec: The spec.
        network: The network, on the device that it is trained on.
        freezing: The frozen parameters; those that are frozen for the whole run are left out.
        problems: Gets a problem if the optimizer can't be built or does not fit the trainer's settings.

    Returns:
        The optimizer, or None if there is a problem or nothing to train.
    """
    groups = [
        {"params": [each.parameter for each in parameters], **(group.settings if group else {})}
        for group, parameters in group_parameters(network, freezing, spec.groups, problems)
    ]
    if not groups:
        return None
    part, fuse = spec.optimizer, not has_sparse_gradients(network.module)
    if fuse and part.schema.name == "SparseAdam":
        problems.add(
            Code.UNSUPPORTED,
            part.part.path,
            "SparseAdam needs an embedding with sparse: true, and there is none",
            "use Adam",
            at_value=True,
        )
        return None
    try:
        optimizer = make_optimizer(cast(type[Optimizer], part.schema.build), groups, part.settings, fuse=fuse)
    except (ValueError, TypeError, RuntimeError) as error:
        _report_refusal(part, error, problems)
        return None
    check_optimizer(spec, optimizer, problems)
    return optimizer


def resolve_scheduler(
    spec: Spec, metrics: Sequence[SelectedMetric], predicted: Sequence[Target], problems: Problems
) -> CheckedPart | None:
    """Return the spec's scheduler; ReduceLROnPlateau gets the mode of the monitored result, min or max.

    Args:
        spec: The spec.
        metrics: The run's metrics, one of which may be monitored.
        predicted: The targets that the model predicts.
        problems: Gets a problem if `mode` is written and contradicts the monitored result.
    """
    part = spec.scheduler
    if part is None or part.schema.name != "ReduceLROnPlateau":
        return part
    name = spec.trainer.monitor
    metric_groups = make_metrics(metrics, predicted)
    mode = choose_monitor_mode(
        spec.trainer.mode, name, {key: each for group in metric_groups for key, each in group.items()}
    )
    if part.settings.get("mode", mode) != mode:
        found = f"mode is {part.settings['mode']}, but {'more' if mode == 'max' else 'less'} is better for {name}"
        problems.add(Code.CONFLICT, part.part.path_of("mode"), found, f"leave it out: it is {mode}", at_value=True)
    return replace(part, settings={**part.settings, "mode": mode})


def build_schedule(
    spec: Spec, optimizer: Optimizer | None, data: Dataset, trained: TrainedLength, problems: Problems
) -> Schedule | None:
    """Build the spec's scheduler, with the warm-up before it.

    Args:
        spec: The spec.
        optimizer: The optimizer; None if nothing is trained.
        data: The data, whose size gives the run's length in steps.
        trained: What was trained before the run was resumed.
        problems: Gets a problem if the settings do not fit the optimizer's groups, or PyTorch refuses them.

    Returns:
        The schedule, or None without a scheduler or optimizer.
    """
    part = spec.scheduler
    if part is None or optimizer is None:
        return None
    is_plateau, name = part.schema.name == "ReduceLROnPlateau", part.schema.name
    interval = "epoch" if is_plateau else spec.interval or ("step" if name in STEP_SCHEDULERS else "epoch")
    if spec.warmup and spec.interval is None and interval == "epoch" and not is_plateau:  # which had no warm-up before
        problems.refuse_changed_rule(WARMUP_OF_EPOCHS, ("scheduler", "warmup"))
    run_length, found_before = _count_run_length(spec, data, trained), len(problems)
    settings = fit_settings_to_groups(part, _fill_run_length(part, spec, run_length, interval), optimizer, problems)
    if len(problems) > found_before:
        return None
    try:
        with without_dynamo():
            scheduler = part.schema.build(optimizer, **settings)
            _check_total_steps(part, scheduler, run_length, interval, problems)
            if interval == "step":
                scheduler = _put_warmup_before(scheduler, optimizer, spec.warmup)
    except (ValueError, TypeError) as error:
        _report_refusal(part, error, problems)
        return None
    has_factor = spec.warmup and interval == "epoch"
    return Schedule(scheduler, interval, Warmup(optimizer, spec.warmup) if has_factor else None)


def check_run_length(spec: Spec, data: Dataset, trained: TrainedLength, problems: Problems) -> None:
    """Report a run that is planned to take more optimizer steps than the limit.

    Args:
        spec: The spec.
        data: The data, whose size gives the number of steps of an epoch.
        trained: What was trained before the run was resumed.
        problems: Gets the problem.
    """
    steps, limit = _count_run_length(spec, data, trained).steps, get_limit("steps")
    if steps > limit:
        found = f"{spec.trainer.epochs:,} epochs of these data are {steps:,} steps, at most {limit:,} are allowed"
        fix = f"lower it, or set trainer.max_steps; {explain_raising_limit('steps')}"
        problems.add(Code.TOO_LARGE, ("trainer", "epochs"), found, fix, at_value=True)


def _check_total_steps(
    part: CheckedPart, scheduler: LRScheduler, run_length: _RunLength, interval: str, problems: Problems
) -> None:
    """Report a OneCycleLR that is shorter than the run: it can't be stepped after its end."""
    length = run_length.steps if interval == "step" else run_length.epochs
    if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < length:
        key = "total_steps" if part.settings.get("total_steps") is not None else "epochs"
        found = f"OneCycleLR lasts {scheduler.total_steps:,} steps, but the run makes {length:,}"
        fix = "leave out total_steps, epochs and steps_per_epoch: then it lasts as long as the run"
        problems.add(Code.CONFLICT, part.part.path_of(key), found, fix, at_value=True)


def _put_warmup_before(scheduler: LRScheduler, optimizer: Optimizer, warmup: int) -> LRScheduler:
    """Put a warm-up before a scheduler that counts steps: the learning rate rises linearly (for 2 steps: 1/3, 2/3)."""
    if not warmup:
        return scheduler
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]  # undo the scheduler's first step, which PyTorch takes when it is made
    warmup_scheduler = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [warmup_scheduler, scheduler], [warmup])


@dataclass(frozen=True)
class _RunLength:
    """The whole length of a run."""

    epochs: int
    steps: int


def _count_run_length(spec: Spec, data: Dataset, trained: TrainedLength) -> _RunLength:
    """Count the epochs and steps of the whole run: what was trained before it was resumed, and what is left."""
    trainer = spec.trainer
    batches = -(-len(data.train) // trainer.initial_batch_size)
    steps_per_epoch = max(1, -(-min(batches, trainer.limit_batches or batches) // trainer.accumulate))
    steps = trained.steps + max(0, trainer.epochs - trained.epochs) * steps_per_epoch
    steps = min(steps, trainer.max_steps or steps)
    return _RunLength(trained.epochs - (trained.steps - steps) // steps_per_epoch, steps)


def _fill_run_length(part: CheckedPart, spec: Spec, run_length: _RunLength, interval: str) -> dict[str, Any]:
    """Return the scheduler's settings; T_max or total_steps, if missing, is set to the length of the run."""
    settings = dict(part.settings)
    length = max(1, run_length.steps if interval == "step" else run_length.epochs)
    length = max(1, length - spec.warmup) if interval == "step" else length
    for name, length_setting in {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps"}.items():
        if part.schema.name == name and settings.get(length_setting) is None and settings.get("epochs") is None:
            settings[length_setting] = length
    return settings


def _report_refusal(part: CheckedPart, error: Exception, problems: Problems) -> None:
    reason = first_line(error)
    named = [each for each in part.part.settings if each.removesuffix("s").lower() in reason.lower()]
    path = part.part.path_of(named[0]) if len(named) == 1 else part.part.path
    found = f"invalid settings for {part.schema.name}"
    problems.add(Code.LAYER_REFUSED, path, found, f"PyTorch says: {reason}", at_value=len(named) == 1)
