"""What is refused for several processes, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import dlspec
from dlspec.config.composition import start_hydra
from dlspec.errors import SpecError, UserError
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.parallel_checks import check_parallel_network, check_parallel_settings, check_ranks_agree
from dlspec.jobs.ranks import refuse_sweep_of_ranks
from dlspec.jobs.sharding_checks import find_sharding_problems
from dlspec.training.distributed import ProcessGroup
from helpers.command_line import run_in_this_process

FSDP = "trainer.parallel=fsdp"
SMALL = ("data=breast_cancer", "model=linear")


@dataclass
class TwoRanks(ProcessGroup):
    """The first of two processes; the other answers as it does, with some changes."""

    world_size: int = 2
    changes: dict[str, str] = field(default_factory=dict)

    def gather(self, value: Any) -> list[Any]:
        return [value, {**value, **self.changes}]


def prepare(*words: str) -> Any:
    return make_preparation(compose_or_raise([*SMALL, *words], start_hydra(None))).prepare()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["trainer.compile=step"], "trainer.compile"),
        (["trainer.on_nan=restore"], "trainer.on_nan"),
        (["optimizer=LBFGS"], "optimizer"),
        (["trainer.parallel=none"], "trainer.parallel"),
    ],
    ids=str,
)
def test_what_two_processes_can_not_do(words: list[str], key: str) -> None:
    prepared = prepare(*words)
    with pytest.raises(SpecError) as error:
        check_parallel_settings(prepared.spec, TwoRanks())
        check_parallel_network(prepared, TwoRanks())
    assert [each.path for each in error.value.problems] == [key]
    if key != "trainer.parallel":  # one process can
        check_parallel_settings(prepared.spec, ProcessGroup())
        assert check_parallel_network(prepared, ProcessGroup()) == []


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["trainer.compile=model"], "trainer.compile"),
        (["trainer.precision=16"], "trainer.precision"),
        (["trainer.batch_size=auto"], "trainer.batch_size"),
        (["trainer.tune=true"], "trainer.tune"),
        (["trainer.channels_last=true"], "trainer.channels_last"),
        (["trainer.debug=anomaly"], "trainer.debug"),
        (["trainer.pictures=true"], "trainer.pictures"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_with_divided_parameters(words: list[str], path: str) -> None:
    spec = make_preparation(compose_or_raise([*SMALL, *words, FSDP], start_hydra(None))).read()
    [problem] = find_sharding_problems(spec)
    assert problem.path == path
    assert problem.fix.endswith("or trainer.parallel=ddp")


def test_networks_that_can_not_be_divided() -> None:
    prepared = prepare("optimizer=Adafactor", "model=mlp", "trainer.activation_checkpointing=['1']", FSDP)
    module = prepared.network.module
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    nn.utils.parametrizations.weight_norm(module.get_submodule("4"))
    with pytest.raises(SpecError) as error:
        check_parallel_network(prepared, TwoRanks(mesh=object()))
    texts = "\n".join(each.found for each in error.value.problems)
    for found in (
        "'scale' is a single number",
        "'4' computes its weight from others",
        "selects '1'",
        "Adafactor may need",
    ):
        assert found in texts


def test_an_embedding_with_sparse_gradients_is_refused() -> None:
    prepared = prepare()
    prepared.network.module.add_module("extra", nn.Embedding(3, 2, sparse=True))
    with pytest.raises(SpecError, match="sparse gradients"):
        check_parallel_network(prepared, TwoRanks())


def test_batch_norm_is_said_in_a_line_and_needs_two_samples_in_each_process() -> None:
    prepared = prepare("trainer.batch_size=9")
    prepared.network.module.add_module("extra", nn.BatchNorm1d(2))
    [line] = check_parallel_network(prepared, TwoRanks())
    assert line.startswith("batch normalization uses the 5 samples of each process")
    prepared = prepare("trainer.batch_size=3")
    prepared.network.module.add_module("extra", nn.BatchNorm1d(2))
    with pytest.raises(SpecError, match="needs two samples in each of 2 processes, got batches of 3"):
        check_parallel_network(prepared, TwoRanks())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"torch": "2.12.0"}, f"rank 1 has torch 2.12.0, and rank 0 has {torch.__version__}"),
        ({"trainer.batch_size": "7"}, "rank 1 has trainer.batch_size 7, and rank 0 has 32"),
        ({"samples in the train split": "9"}, "rank 1 has samples in the train split 9"),
    ],
    ids=["version", "spec", "data"],
)
def test_a_process_that_differs_is_refused(changes: dict[str, str], text: str) -> None:
    prepared = prepare()
    check_ranks_agree(prepared, TwoRanks())
    with pytest.raises(UserError, match=text.replace("+", r"\+")):
        check_ranks_agree(prepared, TwoRanks(changes=changes))


def test_words_without_torchrun() -> None:
    for parallel in ("ddp", "fsdp"):
        done = run_in_this_process(*SMALL, f"trainer.parallel={parallel}")
        assert (done.code, "torchrun --nproc-per-node 2 -m dlspec" in done.err) == (2, True)


def test_a_sweep_under_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sweep_of_ranks()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    done = run_in_this_process("-m", *SMALL, "seed=0,1")
    assert (done.code, "a sweep can't run under torchrun" in done.err) == (2, True)
    with pytest.raises(UserError, match="a sweep can't run under torchrun"):
        dlspec.sweep({"model": "linear"}, {"seed": [0, 1]}, "breast_cancer")
