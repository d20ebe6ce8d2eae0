"""The training loop. It takes a network, a criterion, an optimizer and data, and nothing makes it wait within an epoch.

Everything a step does is queued on the device; losses and outputs are read once an epoch or in large pieces
(`scores`), batches are gathered from whole tensors (`batches`). Training, validation and test are one epoch function.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlspec.compat.torch_layers import is_batch_norm
from dlspec.data.batches.batches import NO_FEWEST, Batch, Batches, chosen_batch_size, permutation
from dlspec.data.dataset import Dataset, Split
from dlspec.errors import Finding, TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.optim.averaging import make_average
from dlspec.optim.freezing import Freezing
from dlspec.optim.schedule import Schedule
from dlspec.runs.job_result import JobResult
from dlspec.runs.job_state import JobState
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import BestWeights, KeepsBest
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.evaluation.looking import View
from dlspec.training.evaluation.scores import Scores
from dlspec.training.health.diagnosis import SMALLER, Names, Passing, cause_of
from dlspec.training.health.on_nan import KINDS
from dlspec.training.health.out_of_memory import OutOfMemory, forget, is_out_of_memory, out_of_memory
from dlspec.training.monitor import Monitor, choose_mode, choose_monitored
from dlspec.training.protocols import Criterion, Metric, Metrics
from dlspec.training.resuming import Epoch, Left, restore, snapshot_of
from dlspec.training.runtime.devices import choose_device
from dlspec.training.runtime.interruption import Interrupted, Interruption
from dlspec.training.runtime.randomness import random_state, seed_generators
from dlspec.training.state import Phase, State, outcome
from dlspec.training.step.computing import Computing
from dlspec.training.step.finite import NotFinite, TooLate, all_finite
from dlspec.training.step.steps import Accumulation, Step, shares

log = logging.getLogger("dlspec")

SPLITS = {"train": "training", "val": "validation", "test": "test"}


class Trainer:
    """Trains `network` on `data` as `settings` say.

    `inputs` names the tensors of a split that `network.forward` takes, in order: `("text", "text_lengths")`. `metrics`,
    or a function that makes them, are by their names for each target that the criterion judges, and are reported as
    `train/NAME`, `val/NAME` and `test/NAME`. `optimizer` is None for a network without parameters. `trim=False` keeps
    batches of sequences at their full length, `fewest_steps` are those that the network's windows need of each field;
    `widest` is the most numbers that a layer gives for a sample. `seed` decides the order of the samples and seeds
    PyTorch's, NumPy's and Python's generators when `fit` begins. Raises UserError where the device or the monitored
    result does not exist, before anything is trained.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: Optimizer | None,
        data: Dataset,
        settings: TrainerSpec,
        *,
        inputs: Sequence[str],
        schedule: Schedule | None = None,
        freezing: Freezing | None = None,
        metrics: Callable[[], Metrics] | Metrics = (),
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        trim: bool = True,
        widest: int = 0,
        fewest_steps: Mapping[str, int] = NO_FEWEST,
    ) -> None:
        self.device = choose_device(settings.device)
        self.network = network
        self.criterion = criterion
        self.computing = Computing(network, criterion, settings, self.device, widest)
        self.optimizer = optimizer
        self.data = data
        self.settings = settings
        self.inputs = tuple(inputs)
        self.schedule = schedule
        self.freezing = freezing or Freezing({})
        self.callbacks: Sequence[Callback] = _completed(callbacks, settings)
        self.seed = seed
        self.trim, self.fewest_steps = trim, fewest_steps
        self.widest = widest
        groups = _moved(metrics() if callable(metrics) else metrics, self.device)
        self.metrics: dict[str, Metric] = {name: each for group in groups for name, each in group.items()}
        self.scores = Scores(self.criterion, groups, copies=self.computing.is_large)
        self.state = self._new_state()
        self.epoch: Epoch | None = None
        self._left: Left | None = None
        self._is_restored = False
        # On a GPU a loss is read when the weights have moved on: then training goes back to the newest snapshot.
        self.on_nan = KINDS[settings.on_nan](self.network, optimizer, self.state.average)
        is_in_time = self.device.type == "cpu" and settings.compile != "step"
        self._looks_at_once = is_in_time or self.on_nan.is_strict or settings.debug is not None
        self._newest: Snapshot | None = None
        self._suspect = -1  # while it goes up to this step once more, every loss is looked at
        self.interruption = Interruption()

    def use(self, callbacks: Sequence[Callback]) -> None:
        """Replaces the callbacks, for a run whose folder is made once the trainer is known to be right."""
        self.callbacks = _completed(callbacks, self.settings)

    def restore(self, snapshot: Snapshot) -> None:
        """Goes on from there when `fit` is called. Raises TrainingFailed where the snapshot does not fit."""
        self._left = restore(self, snapshot)
        self._is_restored = True
        self._newest = None if self._looks_at_once else snapshot.copied()

    def trial(self) -> Callable[[int], None]:
        """Trains on a batch of so many samples, the longest ones, and waits for it: to try what a size needs."""
        batches, step = self._train_batches(), self.computing.trial_step(self.optimizer)
        self.network.train()
        self.freezing.hold(self.network)

        def train(rows: int) -> None:
            step(*batches.longest(rows))[1].sum().item()

        return train

    def rehearse(self, draws: int = 0) -> Iterator[tuple[Tensor, int]]:
        """Trains as `fit` does, without results and callbacks, and never ends; gives each step's loss and samples.

        To try what settings cost: the trainer is of no use afterwards. With other `draws` dropout and its like draw
        other numbers.
        """
        state = self.state
        seed_generators(self.seed + draws)
        train = self._train_batches()
        step = self._training_step(train)
        self.network.train()
        self.freezing.hold(self.network)
        for state.epoch in count(1) if len(train) else ():
            batches = zip(train.shuffled(self.seed, state.epoch), train.sizes, strict=True)
            for state.batch, ((inputs, targets), rows) in enumerate(batches):
                yield step(inputs, targets)[1], rows

    def run(self) -> JobResult:
        """Trains, then tests unless `settings.test` is `none`."""
        self.state.awaits_test = self.state.is_tested
        self.fit()
        if self.settings.test != "none":
            self.test()
        return outcome(self.state)

    def fit(self) -> JobResult:
        """Trains until the last epoch, the last step or a callback's stop. Raises TrainingFailed on a loss of nan."""
        state = self.state
        with self._closing():
            if not self._is_restored:
                seed_generators(self.seed)
            train, validation = self._train_batches(), self._eval_batches(self.data.validation)
            steps = self.settings.epochs * self._steps_of(len(train))
            state.planned_steps = min(steps, self.settings.max_steps or sys.maxsize)
            log.debug(self.computing.described(self.optimizer))
            self._call("on_train_start")
            self._epochs(train, validation)
            self._call("on_train_end")
            self._take_average()
            state.status = JobState.FINISHED
        return outcome(state)

    def test(self) -> dict[str, float]:
        """The test split's results, by the best or the last weights; the network keeps those. Empty without a split."""
        with self._closing():
            if not len(self.data.test):
                log.info("there is no test split: nothing was tested")
                return {}
            if self.settings.test == "best":
                self._load_best()
            self._call("on_test_start")
            batches = self._eval_batches(self.data.test)
            self.state.test_results = self._run("test", batches, batches.in_order(), self._evaluation_step())
            self._call("on_test_end")
            self.state.awaits_test = False
        return self.state.test_results

    def _epochs(self, train: Batches, validation: Batches) -> None:
        if not self._looks_at_once and self._newest is None:
            self._newest = self.snapshot()
        while self._goes_on(len(train)):
            try:
                self._epoch(train, validation)
            except TooLate:
                self._go_back()
            if 0 <= self._suspect <= self.state.step:
                log.warning("this time the loss stayed finite up to step %d: training goes on", self.state.step)
                self._suspect = -1

    def _go_back(self) -> None:
        """To the newest snapshot, from where on every loss is looked at until the one is found that was not finite."""
        state, newest = self.state, self._newest
        told = f"train/loss was not finite in epoch {state.epoch}, at step {state.step} at the latest"
        if newest is None:
            raise TrainingFailed(f"{told}, learning rate {state.lr}; {SMALLER}")
        log.warning("%s: looking at every step from step %d on", told, newest.step)
        self._suspect = state.step
        self.restore(newest.copied())
        self.epoch, state.is_between_epochs, state.is_whole = None, self._left is None, True
        self._call("on_train_start")

    def _epoch(self, train: Batches, validation: Batches) -> None:
        """One epoch: train, validate, judge, step the schedule, tell everyone."""
        state = self.state
        epoch = self._begin_epoch()
        self._call("on_epoch_start")
        if epoch.results is None:
            epoch.results = self._train(train, epoch, self._training_step(train))
            if state.average:
                state.average.after_epoch(state.epoch, (inputs for inputs, _ in train.shuffled(self.seed, state.epoch)))
            epoch.batch, epoch.samples, epoch.generators = state.batch, state.samples, random_state(self.device)
        timing = _timing(state.epoch, state.step, epoch)
        results = epoch.results
        if len(validation):
            results = results | self._run("val", validation, validation.in_order(), self._evaluation_step())
        state.timing.append(timing | {"seconds": _seconds_since(epoch.started)})
        state.results = results | ({} if epoch.lr is None else {"lr": epoch.lr})
        state.history.append(state.results)
        state.monitor.update(results[state.monitor.name], state.epoch)
        if self.schedule:
            self.schedule.after_epoch(results[state.monitor.name])
        self.epoch, state.is_between_epochs = None, True
        self._call("on_epoch_end")

    def _begin_epoch(self) -> Epoch:
        """The next epoch, or the one that a resumed run was left in."""
        state, left = self.state, self._left
        if left is None:
            state.epoch += 1
            self.freezing.enter(state.epoch)
        started = time.perf_counter() - (left.seconds if left else 0)
        lr = left.lr if left else state.lr
        self.epoch = Epoch(started, lr)
        if left is not None and left.results is not None:
            self.epoch.batch, self.epoch.samples, self.epoch.results = left.batch, left.samples, dict(left.results)
            self.epoch.generators, self._left = random_state(self.device), None
        state.is_between_epochs = False
        return self.epoch

    def _train(self, train: Batches, epoch: Epoch, step: Step) -> dict[str, float]:
        """The training split once, or what is left of it."""
        if self._left is None:
            self.on_nan.begin_epoch()
        order = train.shuffled(self.seed, self.state.epoch, self._left.batch if self._left else 0)
        results = self._run("train", train, order, self.on_nan.guarded(step))
        if not results:
            raise TrainingFailed(f"no batch of epoch {self.state.epoch} had a loss and gradients that are finite")
        return results | {f"train/{name}": value for name, value in self.on_nan.end_epoch(self.state).items()}

    def _begin_pass(self, phase: Phase, batches: Batches) -> int:
        """Nothing was seen of a split yet, or of the training split what a resumed run has seen; how many batches."""
        state, left = self.state, self._left if phase == "train" else None
        state.phase, state.batches, state.phase_started = phase, len(batches), time.perf_counter()
        state.batch_size = max(batches.sizes, default=0)
        state.batch, state.samples = (left.batch, left.samples) if left else (0, 0)
        self.scores.reset()
        if left is not None:
            assert left.scores is not None  # the training split was not done
            self.scores.load_state_dict(left.scores, self.device)
            state.phase_started -= left.seconds
            self._left = None
        return state.batch

    def _run(self, phase: Phase, batches: Batches, order: Iterator[Batch], step: Step) -> dict[str, float]:
        """One pass over a split: its mean loss and metrics as `phase/NAME`; empty for an empty split."""
        state, scores, training, interruption = self.state, self.scores, phase == "train", self.interruption
        start = self._begin_pass(phase, batches)
        accumulate = self.settings.accumulate if training else 1
        most = (self.settings.max_steps if training else None) or sys.maxsize
        listeners = [each.on_step_end for each in self.callbacks if _listens(each)]
        network = self.network if training else state.evaluated
        network.train(training)
        if training:
            self.freezing.hold(self.network)
        with torch.inference_mode(not training):
            for (inputs, targets), rows in zip(order, batches.sizes[start:], strict=True):
                if state.step >= most:
                    break
                try:
                    output, loss = step(inputs, targets)  # only queues work: nothing here or below waits for the device
                except NotFinite as bad:
                    self._meet(bad, batches, (inputs, targets))
                else:
                    scores.add(output, loss, targets, rows)
                state.batch += 1
                state.samples += rows
                if accumulate > 1:
                    state.is_whole = state.batch % accumulate == 0 or state.batch == len(batches)
                for listener in listeners:
                    listener(state)
                if interruption.signal and state.is_whole:
                    self._call("on_interrupt")
                    raise Interrupted(interruption.signal)
        results = {f"{phase}/{name}": value for name, value in scores.results().items()}
        self._demand_finite(results.get(f"{phase}/loss", 0.0), batches)
        return results

    # What a run is made of

    def _new_state(self) -> State:
        monitored = choose_monitored(self.settings.monitor, self._result_names())
        monitor = Monitor(monitored, choose_mode(self.settings.mode, monitored, self.metrics))
        return State(
            network=self.network,
            optimizer=self.optimizer,
            device=self.device,
            monitor=monitor,
            epochs=self.settings.epochs,
            running_loss=self.scores.running_loss,
            snapshot=self.snapshot,
            is_tested=self.settings.test != "none" and len(self.data.test) > 0,
            view=self._view,
            average=make_average(self.network, self.settings.average, self.settings.epochs),
        )

    def snapshot(self) -> Snapshot | None:
        """The whole run, between two steps or two epochs; None where its weights are not finite any more."""
        if not all_finite(each for each in self.network.parameters() if each.requires_grad):
            log.warning("nothing is kept of step %d: the weights are not finite", self.state.step)
            return None
        made = snapshot_of(self, _seconds_since(self.epoch.started) if self.epoch else 0.0)
        self._newest = None if self._looks_at_once else made
        return made

    def _view(self) -> View | None:
        view = View("test" if self.state.is_tested else "validation", self.state.evaluated, self.criterion, self.data,
                    self.inputs, self._eval_batches)  # fmt: skip
        return view if len(view.split) else None

    def _result_names(self) -> list[str]:
        """Every result that an epoch will give, known before the first."""
        phases = ["train", "val"] if len(self.data.validation) else ["train"]
        names = [f"{phase}/{name}" for phase in phases for name in self.scores.names]
        return [*names, *(f"train/{name}" for name in KINDS[self.settings.on_nan].names)]

    def _training_step(self, train: Batches) -> Step:
        state, accumulate = self.state, self.settings.accumulate
        return self.computing.training_step(
            self.optimizer,
            self._after_update,
            at_once=self._looks_at_once or self._suspect >= 0,
            accumulation=Accumulation(shares(train.sizes, accumulate), lambda: state.batch) if accumulate > 1 else None,
            is_strict=self.on_nan.is_strict,
        )

    def _evaluation_step(self) -> Step:
        return self.computing.evaluation_step(self.state.evaluated)

    def _after_update(self) -> None:
        self.state.step += 1
        if self.state.average:
            self.state.average.after_step()
        if self.schedule:
            self.schedule.after_step()

    def _train_batches(self) -> Batches:
        # Batch normalisation has no variance of a single sample and raises: such a last batch joins the one before.
        normalises = any(is_batch_norm(each) for each in self.network.modules())
        return self._batches(self.data.train, self.settings.rows, smallest=2 if normalises else 1)

    def _eval_batches(self, split: Split) -> Batches:
        chosen = chosen_batch_size(split, self.inputs, self.settings.rows, self.device, self.widest)
        return self._batches(split, self.settings.eval_batch_size or chosen)

    def _batches(self, split: Split, batch_size: int, smallest: int = 1) -> Batches:
        return Batches(
            split,
            self.inputs,
            self.criterion.target_names,
            batch_size,
            self.device,
            limit=self.settings.limit_batches,
            smallest=smallest,
            trim=self.trim,
            trims=self.criterion.trims,
            fewest_steps=self.fewest_steps,
            dtype=self.computing.precision.numbers,
            workers=self.settings.num_workers,
        )

    def _steps_of(self, batches: int) -> int:
        """How many updates so many batches of an epoch make."""
        return -(-batches // self.settings.accumulate)

    def _goes_on(self, batches: int) -> bool:
        state, most = self.state, self.settings.max_steps
        if self._left is not None:
            return True
        if not batches:
            raise TrainingFailed(f"the training split of '{self.data.name}' is empty")
        if most is not None and state.step >= most:
            state.stop(f"max_steps ({most}) is reached")
        return state.epoch < state.epochs and not state.stop_reason

    def _demand_finite(self, loss: float, batches: Batches) -> None:
        """A pass is over: its mean loss is to be a finite number."""
        state = self.state
        if math.isfinite(loss):
            return
        bad = self.scores.first_bad_step() or 0
        if state.phase == "train" and self._learns():
            raise TooLate
        state.batch = bad
        order = batches.in_order() if state.phase != "train" else batches.shuffled(self.seed, state.epoch)
        cause = self._found(NotFinite(f"loss became {loss}"), batches, next(islice(order, bad, None)))
        raise TrainingFailed(f"{cause.found}; {cause.fix}")

    def _meet(self, bad: NotFinite, batches: Batches, batch: Batch) -> None:
        """A batch has made no update, as its loss or gradients are not finite: training goes on without, or fails."""
        on_nan = self.on_nan
        if not on_nan.may_go_on(self.state):
            cause = self._found(bad, batches, batch)
            raise TrainingFailed(f"{cause.found}; {on_nan.gave_up or cause.fix}")
        if on_nan.tells:
            log.warning("%s; %s", self._found(bad, batches, batch).found, on_nan.go_on())
        else:
            on_nan.go_on()

    def _found(self, bad: NotFinite, batches: Batches, batch: Batch) -> Finding:
        """Where a batch, the one that comes next, began to be not finite, and what may help."""
        state = self.state
        network = self.network if state.phase == "train" else state.evaluated
        names = Names(self.inputs, self.criterion.target_names, lambda row: self._sample(batches, row))
        cause = cause_of(bad, Passing(network, self.criterion, batch, self.computing.precision.forward, names))
        step = state.step + (state.phase == "train" and self._learns())
        where = f"in epoch {state.epoch} at step {step}, learning rate {state.lr}"
        return replace(cause, found=f"{state.phase}/{bad} {where}: {cause.found}")

    def _sample(self, batches: Batches, row: int) -> str:
        """Which of its split a row of the batch is that comes next."""
        place, split = sum(batches.sizes[: self.state.batch]) + row, SPLITS[self.state.phase]
        if self.state.phase == "train":
            place = int(permutation(len(self.data.train), self.seed, self.state.epoch)[place])
        return f"sample {place} of the {split} split (the first is 0)"

    def _learns(self) -> bool:
        return self.optimizer is not None and any(each.requires_grad for each in self.network.parameters())

    def _take_average(self) -> None:
        """The training is over: from now on the network has the averaged weights."""
        if self.state.evaluated is not self.network:
            self.network.load_state_dict(self.state.evaluated.state_dict())
        self.state.average = None

    def _load_best(self) -> None:
        if self.state.monitor.epoch == self.state.epoch:
            return  # the weights of the last epoch are the best ones
        keeper = next(each for each in self.callbacks if isinstance(each, KeepsBest))
        weights = keeper.best_weights()
        if weights is not None:
            self.network.load_state_dict(weights)

    def _call(self, name: str) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(self.state)

    def _close_callbacks(self) -> None:
        """Closes every callback: one that fails at it is told and keeps no other from being closed."""
        for callback in self.callbacks:
            try:
                callback.close(self.state)
            except Exception as error:
                log.warning("%s could not be closed: %s", type(callback).__name__, error)

    def _freed(self, error: BaseException) -> OutOfMemory:
        """Out of memory: what the step held is freed, so that something smaller has room."""
        log.debug("out of memory: %s", error)
        for parameter in self.network.parameters():
            parameter.grad = None
        self.scores.reset()
        forget(error)
        return out_of_memory(self.state, self.settings)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """However what is within it ends, the state says how and every callback is closed."""
        try:
            with self.computing.switched(self.settings.rows):
                yield
        except BaseException as raised:
            error = self._freed(raised) if is_out_of_memory(raised) else raised
            self.state.status = JobState.FAILED if isinstance(error, Exception) else JobState.INTERRUPTED
            self.state.error = str(error) or type(error).__name__
            is_second = self.interruption.signal != 0 and not isinstance(error, Interrupted)
            self.state.ends_at_once = is_second and isinstance(error, KeyboardInterrupt)
            if error is not raised:
                raise error from None
            raise
        finally:
            self._close_callbacks()


def _completed(callbacks: Sequence[Callback], settings: TrainerSpec) -> list[Callback]:
    """The callbacks, and those that the settings ask for where none of them does it already."""
    completed = list(callbacks)
    if settings.test == "best" and not any(isinstance(each, KeepsBest) for each in completed):
        completed.insert(0, BestWeights())
    if settings.patience is not None and not any(isinstance(each, EarlyStopping) for each in completed):
        completed.insert(0, EarlyStopping(settings.patience))
    return completed


def _moved(metrics: Metrics, device: torch.device) -> Metrics:
    for metric in (each for group in metrics for each in group.values()):
        metric.to(device)
    return metrics


def _listens(callback: Callback) -> bool:
    return type(callback).on_step_end is not Callback.on_step_end


def _timing(number: int, step: int, epoch: Epoch) -> dict[str, float]:
    """An epoch's row of timing.jsonl. Reading the loss made the device finish, so the seconds are real."""
    seconds = _seconds_since(epoch.started)
    speed = round(epoch.samples / seconds, 2) if seconds else 0.0
    row = {"epoch": number, "step": step, "seconds": seconds, "train_seconds": seconds, "samples": epoch.samples}
    return row | {"samples_per_second": speed}


def _seconds_since(started: float) -> float:
    return round(time.perf_counter() - started, 6)
