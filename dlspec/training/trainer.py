"""The training loop: epochs of training and validation, then a test. `batch_loop` runs one pass over a split."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dlspec.data.batches.batch_loader import BatchLoader
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.optimizer import convert_first_state
from dlspec.optim.weight_averages import StochasticWeightAverage, make_average
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.training.batch_factory import BatchFactory
from dlspec.training.batch_loop import BatchLoop
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.callback_list import (
    add_required_callbacks,
    call_callbacks,
    close_callbacks,
    find_step_listeners,
    list_step_listeners,
    load_best_weights,
)
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.stateful import ABSENT_PART, CheckpointParts, load_snapshot, take_snapshot
from dlspec.training.checkpoint_parts import (
    LOADING_ORDER,
    OPTIONAL_PARTS,
    UNCHANGED,
    AverageState,
    CallbackStates,
    EpochPosition,
    GeneratorState,
    MonitorState,
    NetworkState,
    OptimizerState,
    ResumeChanges,
    ScalerState,
    ScheduleState,
)
from dlspec.training.components import Model, Optimization, TrainingData
from dlspec.training.criterion_interface import MetricGroups
from dlspec.training.distributed import ProcessGroup, find_process_group
from dlspec.training.evaluation.prediction_view import PredictionView
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.nan_checks import NotFiniteAfterUpdate
from dlspec.training.health.nan_guard import NanGuard
from dlspec.training.health.on_nan import NAN_POLICIES
from dlspec.training.health.out_of_memory import free_failed_step, is_out_of_memory
from dlspec.training.metric_monitor import MetricMonitor, choose_monitor_mode, choose_monitored
from dlspec.training.runtime.devices import choose_device
from dlspec.training.runtime.interruption import Interrupted, Interruption
from dlspec.training.runtime.randomness import read_random_states, seed_generators
from dlspec.training.stacking.stack_member import StackMember
from dlspec.training.stacking.training_pass import TrainingPass
from dlspec.training.state import EpochProgress, Phase, TrainingState, make_job_result
from dlspec.training.step.compute_backend import ComputeBackend
from dlspec.training.step.step_factory import PassSteps, StepFactory

log = logging.getLogger("dlspec")


class Trainer:
    """Trains, validates and tests a model.

    Args:
        model: the network with its loss and metrics.
        optimization: the optimizer, the learning-rate schedule and frozen parameters.
        data: the dataset and how batches are made from it.
        settings: the `trainer` section.
        callbacks: called in this order.
        group: the processes that train together; by default those that this process has joined.

    Raises:
        UserError: if the device or the monitored result does not exist.
    """

    def __init__(
        self,
        model: Model,
        optimization: Optimization,
        data: TrainingData,
        settings: TrainerSpec,
        callbacks: Sequence[Callback] = (),
        group: ProcessGroup | None = None,
    ) -> None:
        self.group = group or find_process_group()
        self.model, self.optimization, self.data, self.settings = model, optimization, data, settings
        device = choose_device(settings.device)
        self.backend = ComputeBackend(
            model.network, model.criterion, settings, device, data.max_layer_outputs, self.group
        )
        if optimization.optimizer is not None:  # the backend may have converted the weights
            convert_first_state(optimization.optimizer)
        self.callbacks: Sequence[Callback] = add_required_callbacks(callbacks, settings)
        metrics = model.make_metrics(device)
        self.scores = Scores(model.criterion, metrics, copies_outputs=self.backend.has_large_tensors, group=self.group)
        self.batches = BatchFactory(model, data, settings, device, self.backend.precision.weights_dtype, self.group)
        self.state = TrainingState(
            network=model.network,
            optimizer=optimization.optimizer,
            device=device,
            monitor=_make_monitor(settings, self.scores, metrics, has_validation=len(data.dataset.validation) > 0),
            epochs=settings.epochs,
            running_loss=self.scores.running_loss,
            snapshot=self.snapshot,
            will_test=settings.test != "none" and len(data.dataset.test) > 0,
            view=lambda: _make_view(self.state, model, data, self.batches),
            average=make_average(model.network, settings.average, settings.epochs, model.copy),
        )
        wrap_forward = self.backend.precision.wrap_forward
        self.guard = NanGuard(self.state, model, data, settings, wrap_forward, self.group)
        self.steps = StepFactory(self.state, self.backend, optimization, self.guard, settings, data.seed, self.group)
        self.interruption = Interruption()
        self.stack: StackMember | None = None  # trains the run's batches together with those of other runs
        self._batch_loop = BatchLoop(
            self.state, self.scores, self.guard, optimization.freezing, settings, self.interruption, self.group
        )

    def set_callbacks(self, callbacks: Sequence[Callback]) -> None:
        """Replace the callbacks, for example when the run's folder is created after the trainer."""
        self.callbacks = add_required_callbacks(callbacks, self.settings)

    def run(self) -> JobResult:
        """Train, then test unless `settings.test` is `none`."""
        self.state.has_test_pending = self.state.will_test
        self.fit()
        if self.settings.test != "none":
            self.test()
        return make_job_result(self.state)

    def fit(self) -> JobResult:
        """Train until the last epoch or step, or until a callback stops training.

        Raises:
            TrainingFailed: if the training split is empty, or the loss is not finite.
        """
        state, settings = self.state, self.settings
        with self._close_callbacks_after():
            if not state.is_restored:
                seed_generators(self.data.seed + self.group.rank)  # each process draws its own dropout
            train = self.batches.make_training_batches()
            validation = self.batches.make_evaluation_batches(self.data.dataset.validation, is_shared=True)
            # Rounded up: the last update of an epoch may accumulate fewer batches.
            steps = state.count_planned_steps(-(-len(train) // settings.accumulate))
            state.planned_steps = min(steps, settings.max_steps or sys.maxsize)
            log.debug(self.backend.describe(state.optimizer))
            self._call_callbacks("on_train_start")
            self._run_epochs(train, validation)
            self._call_callbacks("on_train_end")
            _load_averaged_weights(state)
            state.status = JobState.FINISHED
        return make_job_result(state)

    def test(self) -> dict[str, float]:
        """Test with the best or the last weights, as `settings.test` says, and leave these weights in the network.

        Return the results by name; empty without a test split.
        """
        with self._close_callbacks_after():
            if not len(self.data.dataset.test):
                log.info("no test split: skipping the test")
                return {}
            if self.settings.test == "best":
                load_best_weights(self.callbacks, self.state)
            self._call_callbacks("on_test_start")
            batches = self.batches.make_evaluation_batches(self.data.dataset.test, is_shared=True)
            self.state.test_results = self._evaluate("test", batches)
            self._call_callbacks("on_test_end")
            self.state.has_test_pending = False
        return self.state.test_results

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot | None:
        """Take a snapshot of the whole run between two steps; None if the weights are not finite.

        All processes must call this. Only the first gets the snapshot, unless each has a part of the parameters.
        """
        if not self.guard.has_finite_weights():
            return None
        if not self.group.is_writer and not self.group.is_sharded:
            for name in ("generators", "left"):  # contain a part of each process
                self._checkpoint_parts()[name].state_dict()
            return None
        if self.stack:
            self.stack.activate_generators()
        snapshot = take_snapshot(self.state.step, self._checkpoint_parts())
        self.guard.store_snapshot(snapshot)
        return snapshot

    def restore(self, snapshot: Snapshot, changes: ResumeChanges = UNCHANGED) -> None:
        """Load a snapshot, so that `fit` continues from there.

        Args:
            snapshot: the snapshot to load.
            changes: what has changed since it was taken. Needs a trainer that has not trained yet.

        Raises:
            TrainingFailed: if the snapshot belongs to a run with another network, optimizer or data.
        """
        if snapshot.shards is not None or self.group.is_sharded:
            from dlspec.training.checkpoint.sharded_checkpoint import load_parts  # imports torch.distributed

            names = {name for name, _ in self.state.network.named_parameters(remove_duplicate=False)}
            snapshot = load_parts(snapshot, self.group.mesh, names)
        parts = self._checkpoint_parts(changes)
        load_snapshot(snapshot, {name: parts[name] for name in LOADING_ORDER}, optional=OPTIONAL_PARTS)
        self.optimization.freezing.set_epoch(max(self.state.epoch, 1))
        self.state.is_restored = True
        if changes == UNCHANGED:
            self.guard.store_snapshot(snapshot, is_shared=True)
        else:  # `fit` takes a new snapshot to go back to
            self.guard.policy.restart_epoch()

    def _checkpoint_parts(self, changes: ResumeChanges = UNCHANGED) -> CheckpointParts:
        """List the parts saved in a checkpoint. Their names and order are the checkpoint's format."""
        state, optimizer, schedule, scaler = (
            self.state,
            self.state.optimizer,
            self.optimization.schedule,
            self.backend.scaler,
        )
        return {
            "progress": state,
            "samples": self.data,
            "monitor": MonitorState(state),
            "network": NetworkState(state.network),
            "optimizer": OptimizerState(optimizer, state.network, changes) if optimizer else ABSENT_PART,
            "scaler": ScalerState(scaler) if scaler else ABSENT_PART,
            "schedule": ScheduleState(schedule, state, changes) if schedule else ABSENT_PART,
            "average": AverageState(state, changes),
            "generators": GeneratorState(state, self.group),
            "left": EpochPosition(state, self.scores),
            "on_nan": self.guard,
            "callbacks": CallbackStates(self.callbacks, state),
        }

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def _run_epochs(self, train: BatchLoader, validation: BatchLoader) -> None:
        if self.guard.needs_snapshot:
            self.snapshot()
        while self._has_next_epoch(len(train)):
            try:
                self._run_epoch(train, validation)
            except NotFiniteAfterUpdate:
                self.restore(self.guard.roll_back())
                self.state.is_update_complete = True
                self._call_callbacks("on_train_start")
            self.guard.end_checks_after_rollback()

    def _has_next_epoch(self, num_batches: int) -> bool:
        """Return whether there is another epoch to run, or the rest of an interrupted one.

        `num_batches` is the number of batches of the training split.
        """
        state, max_steps = self.state, self.settings.max_steps
        if state.current is not None:
            return True
        if not num_batches:
            raise TrainingFailed(f"the training split of '{self.data.dataset.name}' is empty")
        if max_steps is not None and state.step >= max_steps:
            state.stop(f"reached max_steps ({max_steps})")
        return state.epoch < state.epochs and not self.group.is_true_on_any_rank(bool(state.stop_reason))

    def _run_epoch(self, train: BatchLoader, validation: BatchLoader) -> None:
        """Run one epoch: train, validate, update the monitor, step the schedule, call the callbacks."""
        state, schedule = self.state, self.optimization.schedule
        epoch = self._start_epoch()
        self._call_callbacks("on_epoch_start")
        if epoch.results is None:
            epoch.results = self._train_epoch(train, epoch)
            if state.average:
                inputs = (inputs for inputs, _ in train.iterate_shuffled(self.data.seed, state.epoch))
                state.average.after_epoch(state.epoch, inputs)
                if isinstance(state.average, StochasticWeightAverage):
                    self.group.average_statistics(state.average.network)
            epoch.batch, epoch.samples, epoch.generators = state.batch, state.samples, read_random_states(state.device)
        timing = state.time_training(epoch)
        results = epoch.results
        if len(validation):
            results = results | self._evaluate("val", validation)
        state.record_epoch(epoch, results, timing)
        if schedule:
            schedule.after_epoch(results[state.monitor.name])
        state.current = None
        self._call_callbacks("on_epoch_end")

    def _start_epoch(self) -> EpochProgress:
        """Start the next epoch, or continue the epoch in which a resumed run was interrupted."""
        state = self.state
        is_resumed = state.current is not None
        epoch = state.start_epoch()
        if not is_resumed:
            self.optimization.freezing.set_epoch(state.epoch)
        elif epoch.results is not None:
            epoch.generators = read_random_states(state.device)
        return epoch

    def _train_epoch(self, train: BatchLoader, epoch: EpochProgress) -> dict[str, float]:
        """Train on the training split once, or on the rest of it after resuming."""
        state, policy = self.state, self.guard.policy
        if epoch.scores is None:
            policy.start_epoch()

        def make_steps() -> PassSteps:
            steps = self.steps.make_training_steps(train, list_step_listeners(self.callbacks))
            return replace(steps, step=policy.wrap_step(steps.step))

        results = self._batch_loop.run("train", train, make_steps, self.callbacks, self._make_stacked_training(train))
        if not results:
            raise TrainingFailed(f"every batch of epoch {state.epoch} had a non-finite loss or gradient")
        return results | {f"train/{name}": value for name, value in policy.finish_epoch(state).items()}

    def _evaluate(self, phase: Phase, batches: BatchLoader) -> dict[str, float]:
        return self._batch_loop.run(phase, batches, lambda: self.steps.make_evaluation_steps(batches), self.callbacks)

    def _make_stacked_training(self, train: BatchLoader) -> Callable[[], None] | None:
        """Make the function that trains an epoch's batches together with those of other runs; None outside a stack."""
        stack = self.stack
        if stack is None or self.optimization.optimizer is None:
            return None
        return lambda: stack.train(
            TrainingPass(
                self.state,
                self.backend,
                self.optimization.schedule,
                self.scores,
                train,
                train.shuffle_samples(self.data.seed, self.state.epoch),
                find_step_listeners(self.callbacks),
                not list_step_listeners(self.callbacks),
                self.interruption,
                self.settings.max_steps or sys.maxsize,
            )
        )

    # ---- callbacks and errors ----------------------------------------------------------------------------------------

    def _call_callbacks(self, name: str) -> None:
        call_callbacks(self.callbacks, name, self.state)

    @contextmanager
    def _close_callbacks_after(self) -> Iterator[None]:
        """Close all callbacks when this context ends. After an error, set the state's status and error first."""
        state = self.state
        try:
            with self.backend.apply_settings(self.settings.initial_batch_size):
                yield
        except BaseException as raised:
            error = raised
            if is_out_of_memory(raised) and not isinstance(raised, TrainingFailed):  # of another process
                error = free_failed_step(raised, state, self.scores, self.settings)
            state.status = JobState.FAILED if isinstance(error, Exception) else JobState.INTERRUPTED
            state.error = str(error) or type(error).__name__
            is_second_signal = self.interruption.signal != 0 and not isinstance(error, Interrupted)
            state.must_exit_now = is_second_signal and isinstance(error, KeyboardInterrupt)
            if error is not raised:
                raise error from None
            raise
        finally:
            close_callbacks(self.callbacks, state)


def _make_monitor(
    settings: TrainerSpec, scores: Scores, metrics: MetricGroups, *, has_validation: bool
) -> MetricMonitor:
    """Make the monitor of one of an epoch's results, and check that epochs have a result of that name."""
    phases = ["train", "val"] if has_validation else ["train"]
    names = [f"{phase}/{name}" for phase in phases for name in scores.names]
    names += [f"train/{name}" for name in NAN_POLICIES[settings.on_nan].names]
    monitored = choose_monitored(settings.monitor, names)
    by_name = {name: each for group in metrics for name, each in group.items()}
    return MetricMonitor(monitored, choose_monitor_mode(settings.mode, monitored, by_name))


def _make_view(state: TrainingState, model: Model, data: TrainingData, batches: BatchFactory) -> PredictionView | None:
    """Make a view of the predictions for the test split, or without a test for the validation split.

    Return None if that split is empty.
    """
    view = PredictionView(
        "test" if state.will_test else "validation",
        state.evaluated_network,
        model.criterion,
        data.dataset,
        tuple(model.inputs),
        batches.make_evaluation_batches,
    )
    return view if len(view.split) else None


def _load_averaged_weights(state: TrainingState) -> None:
    """Load the averaged weights into the network after training, and drop the average."""
    if state.evaluated_network is not state.network:
        state.network.load_state_dict(state.evaluated_network.state_dict())
    state.average = None
