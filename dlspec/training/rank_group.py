"""The processes that torchrun has started, connected by `torch.distributed`.

A step makes one call: `all_reduce` of a flat tensor with everything that the processes add up, which are decisions,
which gradients there are, the gradients and running statistics.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from signal import Signals
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from dlspec.compat.torch_foreach import copy_tensors
from dlspec.compat.torch_gloo import wait_for_gloo_threads
from dlspec.compat.torch_layers import can_have_running_statistics
from dlspec.errors import TrainingFailed
from dlspec.formatting import first_line
from dlspec.limits import get_limit
from dlspec.training.distributed import JointDecisions, ProcessGroup
from dlspec.training.runtime.interruption import STOP_SIGNALS

T = TypeVar("T")

MAX_MESSAGE_SECONDS = 3.0  # to wait for the message of a process that has failed
SECONDS_BETWEEN_LOOKS = 0.05
NUM_FLAGS = 2 + len(STOP_SIGNALS)  # bad loss, save a checkpoint, one for each signal


_starts = itertools.count()  # numbers the connections of this process, as a script can train several networks


class RankFailed(TrainingFailed):
    """Other processes of the group have failed.

    Args:
        message: which ones, and why.
        reporter: the rank that prints the message; None if the failed process prints it itself.
    """

    def __init__(self, message: str, reporter: int | None = None) -> None:
        super().__init__(message)
        self.reporter = reporter


@dataclass
class RankGroup(ProcessGroup):
    """This process's connection to the others. All of them must make the same calls in the same order.

    Every call raises `RankFailed` if another process has ended.
    """

    store: Any = None  # of torch.distributed: a mapping that all processes share
    bytes_sent: int = field(default=0, init=False)  # in the tensors of all `all_reduce` calls of this process
    calls: int = field(default=0, init=False)

    # ---- objects -----------------------------------------------------------------------------------------------------

    def is_true_on_any_rank(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def broadcast(self, value: T) -> T:
        values = [value]
        self._call(lambda: dist.broadcast_object_list(values, src=0))
        return values[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world_size
        self._call(lambda: dist.all_gather_object(values, value))
        return values

    def prepare_metric(self, metric: Any) -> None:
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = self._gather_tensors

    def _gather_tensors(self, tensor: Tensor, group: Any = None) -> list[Tensor]:
        """Return the tensors of all processes. Empty ones of processes without samples are left out."""
        found = [each.to(tensor.device) for each in self.gather(tensor.cpu())]
        return [each for each in found if each.numel()] or found[:1]

    # ---- steps -------------------------------------------------------------------------------------------------------

    def compute_gradients(
        self, backward: Callable[[], None], parameters: Sequence[nn.Parameter], network: nn.Module, *, is_bad: bool
    ) -> bool:
        """Compute gradients; replace them by their sums over all processes, and running statistics by their means.

        Args:
            backward: computes this process's gradients. Not called for a loss that is not finite.
            parameters: the parameters whose gradients are replaced; none between the batches of one update.
            network: the network, for its running statistics.
            is_bad: whether this process's loss is not finite.

        Returns:
            Whether the loss of any process is not finite.
        """
        if not is_bad:
            backward()
        trained = [each for each in parameters if each.requires_grad]
        statistics = _list_running_statistics(network) if trained else []
        present = [0.0 if each.grad is None else 1.0 for each in trained]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
        head = torch.tensor([*self._make_flags(is_bad), *present], device=_find_device(gradients))
        sums = self._add_up([head, *gradients, *statistics])
        numbers = sums[0].tolist()
        any_is_bad = self._read_flags(numbers[:NUM_FLAGS])
        if not any_is_bad:
            _set_gradients(trained, gradients, sums[1 : 1 + len(trained)], numbers[NUM_FLAGS:])
            self._set_means(statistics, sums[1 + len(trained) :])
        return any_is_bad

    def decide_together(self) -> None:
        self._read_flags(self._add_up([torch.tensor(self._make_flags(is_bad=False))])[0].tolist())

    def average_statistics(self, network: nn.Module) -> None:
        statistics = _list_running_statistics(network)
        if statistics:
            self._set_means(statistics, self._add_up(statistics))

    @torch.no_grad()
    def _set_means(self, tensors: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        if tensors:
            copy_tensors(list(tensors), [each / self.world_size for each in sums])

    def _make_flags(self, is_bad: bool) -> list[float]:
        signals = [float(self.interruption.signal == getattr(Signals, name, None)) for name in STOP_SIGNALS]
        return [float(is_bad), float(self.is_writer and self.wants_to_save()), *signals]

    def _read_flags(self, flags: Sequence[float]) -> bool:
        """Store the decisions; return whether the loss of any process is not finite."""
        is_bad, saves, *signals = (each > 0 for each in flags)
        self.decisions.saves = saves and not is_bad
        for name, is_received in zip(STOP_SIGNALS, signals, strict=True):
            if is_received and not self.decisions.interruption.signal:
                self.decisions.interruption.request(int(getattr(Signals, name)))
        return is_bad

    @torch.no_grad()
    def _add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Add up tensors over all processes, with one call for each dtype."""
        sums: list[Tensor] = list(tensors)
        for dtype in dict.fromkeys(each.dtype for each in tensors):
            chosen = [index for index, each in enumerate(tensors) if each.dtype == dtype]
            flat = torch.cat([tensors[index].reshape(-1) for index in chosen])
            self._all_reduce(torch.view_as_real(flat) if flat.is_complex() else flat)
            parts = torch.split(flat, [tensors[index].numel() for index in chosen])
            for index, part in zip(chosen, parts, strict=True):
                sums[index] = part.view(tensors[index].shape)
        return sums

    def _all_reduce(self, tensor: Tensor) -> None:
        self.calls += 1
        self.bytes_sent += tensor.nbytes
        self._call(lambda: dist.all_reduce(tensor))

    # ---- failures ----------------------------------------------------------------------------------------------------

    def _call(self, communicate: Callable[[], Any]) -> None:
        try:
            communicate()
        except RuntimeError as error:
            raise self._explain(error) from None

    def _explain(self, error: RuntimeError) -> RankFailed:
        """Find out which process has failed. The store ends with the machine of rank 0."""
        try:
            return self._find_failure(error)
        except RuntimeError:
            is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
            found = f"rank {self.rank} lost the connection to rank 0 and its torchrun"
            return RankFailed(found, self.rank if is_first_here else None)

    def _find_failure(self, error: RuntimeError) -> RankFailed:
        """Find the failed process: it has left a message, has ended, or does not answer."""
        self.store.set(f"answers/{self.rank}", "")
        failed = self._find_failed_rank()
        if failed is not None:
            return failed
        silent = [rank for rank in self._other_ranks if not self.store.check([f"answers/{rank}"])]
        answering = min(set(range(self.world_size)) - set(silent))
        if not silent:
            message = f"rank {self.rank} lost the connection to the other processes: {first_line(error)}"
            return RankFailed(message, answering)
        shown = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
        found = f"{shown} did not answer for {get_limit('rank_seconds')} seconds; the other processes stop"
        return RankFailed(found, answering)

    def _find_failed_rank(self) -> RankFailed | None:
        """Find another process that has failed, after waiting some seconds for its message; None if there is none."""
        deadline = time.monotonic() + MAX_MESSAGE_SECONDS
        while time.monotonic() < deadline:
            for rank in self._other_ranks:
                if self.store.check([f"failed/{rank}"]):
                    return RankFailed(f"rank {rank}: {self.store.get(f'failed/{rank}').decode()}")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        for rank in self._other_ranks:
            if _has_ended(self.store.get(f"process/{rank}").decode()):
                return RankFailed(f"rank {rank} was killed; the other processes stop", min({0, 1} - {rank}))
        return None

    @property
    def _other_ranks(self) -> list[int]:
        return [rank for rank in range(self.world_size) if rank != self.rank]

    def report_failure(self, message: str) -> None:
        """Tell the other processes why this one fails."""
        try:
            self.store.set(f"failed/{self.rank}", message)
        except RuntimeError:  # torchrun itself has ended
            return

    def find_failure_of_first(self) -> str | None:
        """Return why the first process fails, after waiting for it some seconds; None if it does not."""
        deadline = time.monotonic() + MAX_MESSAGE_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.store.check(["failed/0"]):
                    return str(self.store.get("failed/0").decode())
            except RuntimeError:
                return None
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return None


def start_rank_group() -> RankGroup:
    """Connect to the other processes that torchrun has started.

    Raises:
        TrainingFailed: if they do not answer in time.
    """
    if dist.is_initialized():
        raise TrainingFailed("the processes of torchrun are already connected; leave out init_process_group")
    timeout = timedelta(seconds=get_limit("rank_seconds"))
    try:
        shared, rank, world_size = next(iter(rendezvous("env://", timeout=timeout)))
        # torchrun keeps the store when it restarts the processes: without a name of its own, an attempt finds the
        # addresses of the one before.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"dlspec/{attempt}/{next(_starts)}", shared)  # type: ignore[attr-defined]
        _select_device()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise TrainingFailed(f"can't connect the processes of torchrun: {first_line(error)}") from None
    atexit.register(wait_for_gloo_threads)  # a script can still use the network, and so the connection, until it ends
    store.set(f"process/{rank}", f"{socket.gethostname()} {os.getpid()}")
    return RankGroup(rank, world_size, JointDecisions(), store=store)


def _select_device() -> None:
    """Give each process of a machine a GPU of its own; `cuda` without a number then means this one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def stop_rank_group(group: RankGroup, *, waits: bool) -> None:
    """Disconnect from the other processes; `waits`: after all of them have finished."""
    if waits:
        group.gather(None)
    if dist.is_initialized():
        dist.destroy_process_group()


def _has_ended(described: str) -> bool:
    """Whether a process of this machine has ended; False if it runs elsewhere."""
    host, _, number = described.partition(" ")
    if host != socket.gethostname():
        return False
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Path("/proc/self/stat").exists()
    return status.rpartition(")")[2].split()[0] in "ZX"


def _find_device(tensors: Sequence[Tensor]) -> torch.device:
    return tensors[0].device if tensors else torch.device("cpu")


@torch.no_grad()
def _set_gradients(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], sums: Sequence[Tensor], present: Sequence[float]
) -> None:
    """Set the gradients of all parameters that have one in any process."""
    if parameters:
        copy_tensors(list(gradients), list(sums))
    for parameter, gradient, count in zip(parameters, gradients, present, strict=True):
        if parameter.grad is None and count > 0:
            parameter.grad = gradient


def _list_running_statistics(network: nn.Module) -> list[Tensor]:
    """List the running statistics of normalization layers, which each process updates from its own samples."""
    return [
        each
        for module in network.modules()
        if can_have_running_statistics(module) and module.running_mean is not None
        for each in (module.running_mean, module.running_var)
        if isinstance(each, Tensor)
    ]
