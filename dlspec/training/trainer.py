"""The training loop: epochs of training and validation, then a test. A pass over a split is in `passes`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dlspec.data.batches.batches import Batches
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.averaging import make_average
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.training.batching import BatchMaker
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.calling import call_callbacks, close_callbacks, complete_callbacks, load_best_weights
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.stateful import ABSENT, Parts, load_snapshot, take_snapshot
from dlspec.training.components import Model, Optimization, TrainingData
from dlspec.training.distributed import find_process_group
from dlspec.training.evaluation.looking import View
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.finite import TooLate
from dlspec.training.health.guard import Guard
from dlspec.training.health.on_nan import KINDS
from dlspec.training.health.out_of_memory import free_step, is_out_of_memory
from dlspec.training.monitor import Monitor, choose_mode, choose_monitored
from dlspec.training.passes import PassRunner
from dlspec.training.protocols import Metrics
from dlspec.training.resuming import (
    ADDED_LATER,
    LOADING_ORDER,
    AverageState,
    BestEpoch,
    CallbackStates,
    Generators,
    OptimizerState,
    PositionInEpoch,
)
from dlspec.training.runtime.devices import choose_device
from dlspec.training.runtime.interruption import Interrupted, Interruption
from dlspec.training.runtime.randomness import random_state, seed_generators
from dlspec.training.state import EpochProgress, State, outcome
from dlspec.training.step.computing import Computing
from dlspec.training.step.step_maker import StepMaker

log = logging.getLogger("dlspec")


class Trainer:
    """Trains a model on data as `settings` say.

    Raises UserError where the device or the monitored result does not exist, before anything is trained.
    """

    def __init__(
        self,
        model: Model,
        optimization: Optimization,
        data: TrainingData,
        settings: TrainerSpec,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.optimization, self.data, self.settings = model, optimization, data, settings
        device = choose_device(settings.device)
        self.computing = Computing(model.network, model.criterion, settings, device, data.widest)
        self.callbacks: Sequence[Callback] = complete_callbacks(callbacks, settings)
        metrics = model.make_metrics(device)
        self.scores = Scores(model.criterion, metrics, copies=self.computing.is_large)
        self.batches = BatchMaker(model, data, settings, device, self.computing.precision.numbers)
        self.state = State(
            network=model.network,
            optimizer=optimization.optimizer,
            device=device,
            monitor=_make_monitor(settings, self.scores, metrics, has_validation=len(data.dataset.validation) > 0),
            epochs=settings.epochs,
            running_loss=self.scores.running_loss,
            snapshot=self.snapshot,
            is_tested=settings.test != "none" and len(data.dataset.test) > 0,
            view=lambda: _make_view(self.state, model, data, self.batches),
            average=make_average(model.network, settings.average, settings.epochs),
        )
        self.guard = Guard(self.state, model, data, settings, self.computing.precision.forward)
        self.steps = StepMaker(self.state, self.computing, optimization, self.guard, settings)
        self.interruption = Interruption()
        self.group = find_process_group()
        self._passes = PassRunner(
            self.state, self.scores, self.guard, optimization.freezing, settings, self.interruption, self.group
        )

    def use(self, callbacks: Sequence[Callback]) -> None:
        """Replaces the callbacks, for a run whose folder is made once the trainer is known to be right."""
        self.callbacks = complete_callbacks(callbacks, self.settings)

    def run(self) -> JobResult:
        """Trains, then tests unless `settings.test` is `none`."""
        self.state.awaits_test = self.state.is_tested
        self.fit()
        if self.settings.test != "none":
            self.test()
        return outcome(self.state)

    def fit(self) -> JobResult:
        """Trains until the last epoch, the last step or a callback's stop. Raises TrainingFailed on a loss of nan."""
        state, settings = self.state, self.settings
        with self._closing():
            if not state.is_restored:
                seed_generators(self.data.seed)
            train = self.batches.for_training()
            validation = self.batches.for_evaluation(self.data.dataset.validation)
            steps = settings.epochs * -(-len(train) // settings.accumulate)  # an epoch's last update may have fewer
            state.planned_steps = min(steps, settings.max_steps or sys.maxsize)
            log.debug(self.computing.described(state.optimizer))
            self._call("on_train_start")
            self._run_epochs(train, validation)
            self._call("on_train_end")
            _take_average(state)
            state.status = JobState.FINISHED
        return outcome(state)

    def test(self) -> dict[str, float]:
        """The test split's results, by the best or the last weights; the network keeps those. Empty without a split."""
        with self._closing():
            if not len(self.data.dataset.test):
                log.info("there is no test split: nothing was tested")
                return {}
            if self.settings.test == "best":
                load_best_weights(self.callbacks, self.state)
            self._call("on_test_start")
            batches = self.batches.for_evaluation(self.data.dataset.test)
            step = self.steps.make_evaluation_step()
            self.state.test_results = self._passes.run("test", batches, batches.in_order(), step, self.callbacks)
            self._call("on_test_end")
            self.state.awaits_test = False
        return self.state.test_results

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot | None:
        """The whole run, between two steps or two epochs; None where its weights are not finite any more."""
        if not self.guard.allows_snapshot():
            return None
        snapshot = take_snapshot(self.state.step, self._parts())
        self.guard.keep_snapshot(snapshot)
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from there when `fit` is called. Raises TrainingFailed where the snapshot does not fit."""
        parts = self._parts()
        load_snapshot(snapshot, {name: parts[name] for name in LOADING_ORDER}, optional=ADDED_LATER)
        self.optimization.freezing.enter(max(self.state.epoch, 1))
        self.state.is_restored = True
        self.guard.keep_snapshot(snapshot, is_shared=True)

    def _parts(self) -> Parts:
        """All that a checkpoint keeps of the run; names and order belong to the checkpoint's format."""
        state, optimizer = self.state, self.state.optimizer
        return {
            "progress": state,
            "samples": self.data,
            "monitor": BestEpoch(state),
            "network": state.network,
            "optimizer": OptimizerState(optimizer) if optimizer else ABSENT,
            "scaler": self.computing.scaler or ABSENT,
            "schedule": self.optimization.schedule or ABSENT,
            "average": AverageState(state),
            "generators": Generators(state),
            "left": PositionInEpoch(state, self.scores),
            "on_nan": self.guard,
            "callbacks": CallbackStates(self.callbacks, state),
        }

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def _run_epochs(self, train: Batches, validation: Batches) -> None:
        if self.guard.wants_snapshot:
            self.snapshot()
        while self._goes_on(len(train)):
            try:
                self._run_epoch(train, validation)
            except TooLate:
                self.restore(self.guard.take_snapshot())
                self.state.is_whole = True
                self._call("on_train_start")
            self.guard.end_suspicion()

    def _goes_on(self, batches: int) -> bool:
        """Whether another epoch of so many batches follows, or the rest of one."""
        state, most = self.state, self.settings.max_steps
        if state.current is not None:
            return True
        if not batches:
            raise TrainingFailed(f"the training split of '{self.data.dataset.name}' is empty")
        if most is not None and state.step >= most:
            state.stop(f"max_steps ({most}) is reached")
        return state.epoch < state.epochs and not self.group.agree(bool(state.stop_reason))

    def _run_epoch(self, train: Batches, validation: Batches) -> None:
        """One epoch: train, validate, judge, step the schedule, tell everyone."""
        state, schedule = self.state, self.optimization.schedule
        epoch = self._begin_epoch()
        self._call("on_epoch_start")
        if epoch.results is None:
            epoch.results = self._train(train, epoch)
            if state.average:
                inputs = (inputs for inputs, _ in train.shuffled(self.data.seed, state.epoch))
                state.average.after_epoch(state.epoch, inputs)
            epoch.batch, epoch.samples, epoch.generators = state.batch, state.samples, random_state(state.device)
        timing = state.time_training(epoch)
        results = epoch.results
        if len(validation):
            step = self.steps.make_evaluation_step()
            results = results | self._passes.run("val", validation, validation.in_order(), step, self.callbacks)
        state.record_epoch(epoch, results, timing)
        if schedule:
            schedule.after_epoch(results[state.monitor.name])
        state.current = None
        self._call("on_epoch_end")

    def _begin_epoch(self) -> EpochProgress:
        """The next epoch, or the one that a resumed run was left in."""
        state = self.state
        is_resumed = state.current is not None
        epoch = state.begin_epoch()
        if not is_resumed:
            self.optimization.freezing.enter(state.epoch)
        elif epoch.results is not None:
            epoch.generators = random_state(state.device)
        return epoch

    def _train(self, train: Batches, epoch: EpochProgress) -> dict[str, float]:
        """The training split once, or what is left of it."""
        state, policy = self.state, self.guard.policy
        step = self.steps.make_training_step(train)
        if epoch.scores is None:
            policy.begin_epoch()
        order = train.shuffled(self.data.seed, state.epoch, epoch.batch)
        results = self._passes.run("train", train, order, policy.guarded(step), self.callbacks)
        if not results:
            raise TrainingFailed(f"no batch of epoch {state.epoch} had a loss and gradients that are finite")
        return results | {f"train/{name}": value for name, value in policy.end_epoch(state).items()}

    # ---- callbacks and errors ----------------------------------------------------------------------------------------

    def _call(self, name: str) -> None:
        call_callbacks(self.callbacks, name, self.state)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """However what is within it ends, the state says how and every callback is closed."""
        state = self.state
        try:
            with self.computing.switched(self.settings.rows):
                yield
        except BaseException as raised:
            error = raised
            if is_out_of_memory(raised):
                error = free_step(raised, state, self.scores, self.settings)
            state.status = JobState.FAILED if isinstance(error, Exception) else JobState.INTERRUPTED
            state.error = str(error) or type(error).__name__
            is_second = self.interruption.signal != 0 and not isinstance(error, Interrupted)
            state.ends_at_once = is_second and isinstance(error, KeyboardInterrupt)
            if error is not raised:
                raise error from None
            raise
        finally:
            close_callbacks(self.callbacks, state)


def _make_monitor(settings: TrainerSpec, scores: Scores, metrics: Metrics, *, has_validation: bool) -> Monitor:
    """Watches one of the results that an epoch will give: all are known before the first."""
    phases = ["train", "val"] if has_validation else ["train"]
    names = [f"{phase}/{name}" for phase in phases for name in scores.names]
    names += [f"train/{name}" for name in KINDS[settings.on_nan].names]
    monitored = choose_monitored(settings.monitor, names)
    by_name = {name: each for group in metrics for name, each in group.items()}
    return Monitor(monitored, choose_mode(settings.mode, monitored, by_name))


def _make_view(state: State, model: Model, data: TrainingData, batches: BatchMaker) -> View | None:
    """What the network says of the test split, or without a test of the validation split; None where that is empty."""
    view = View("test" if state.is_tested else "validation", state.evaluated, model.criterion, data.dataset,
                tuple(model.inputs), batches.for_evaluation)  # fmt: skip
    return view if len(view.split) else None


def _take_average(state: State) -> None:
    """The training is over: from now on the network has the averaged weights."""
    if state.evaluated is not state.network:
        state.network.load_state_dict(state.evaluated.state_dict())
    state.average = None
