"""The `summary` command: its table, its sums, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import dlspec as library
from dlspec.analysis.costs import measure_costs
from dlspec.cli.commands.summary import WORDS
from dlspec.cli.summary.layer_rows import fold_rows, make_layer_rows
from dlspec.cli.summary.network_summary import SpecSummary, format_summary, summarize
from dlspec.jobs import python_spec as face
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS
from dlspec.language.source_map import SourceMap
from dlspec.network import build_mode as place
from dlspec.network.build_mode import SMALL_MODE
from helpers.command_line import QUICK
from helpers.prepared_runs import prepare_layers

ROW = ["data=random", "data.shape=[20]", "data.num_classes=3", "data.size=20"]
TOKENS = ["data=random", "data.shape=null", "data.vocab_size=50", "data.length=6", "data.num_classes=3"]
STACK = "layers: [{Linear: 16}, ReLU, {Linear: 3}]"
SHARING = """
layers:
  - Linear: {out_features: 20, name: one}
  - ReLU
  - share: one
  - Linear: {out_features: 20, tie: one}
  - Linear: {out_features: 3, name: head}
"""
BLOCKS = """
blocks:
  wide:
    layers: [{Residual: [{Linear: 20}, ReLU]}, {Linear: 20}]
layers:
  - wide: {repeat: 3}
  - Linear: {out_features: 3, repeat: 2}
"""


def test_a_small_network_by_hand(dlspec, write) -> None:
    write("conf/model/mine.yaml", STACK)
    said = dlspec("summary", "model=mine", *ROW, "trainer.batch_size=1000", "optimizer=Adam")
    assert said.code == 0
    assert said.out.splitlines() == [
        "layer  type                   output         parameters  multiply-adds  activations",
        "       input                  (20) features",
        "0      Linear                 (16) features         336            320    <0.01 MiB",
        "1      ReLU                   (16) features                               <0.01 MiB",
        "2      Linear                 (3) features           51             48",
        "       loss CrossEntropyLoss                                              <0.01 MiB",
        "387 parameters, 0.00 MiB",
        "a sample: 368 multiply-adds, 0.16 KiB of activations kept for the backward pass",
        "a training step of 1000 samples: about 0.16 MiB",
        "  weights 1.51 KiB, gradients 1.51 KiB, Adam's state 3.02 KiB, activations 0.16 MiB",
    ]


def test_averaged_weights_take_memory_too(dlspec, write) -> None:
    write("conf/model/mine.yaml", STACK)
    said = dlspec("summary", "model=mine", *ROW, "optimizer=Adam", "trainer.average=EMA")
    assert "Adam's state 3.02 KiB, averaged weights 1.51 KiB, activations" in said.out.splitlines()[-1]


def test_columns_of_weights_that_are_special(dlspec, write) -> None:
    write("conf/model/mine.yaml", SHARING)
    lines = dlspec("summary", "model=mine", *ROW).out.splitlines()
    assert lines[0].split() == ["layer", "type", "output", "parameters", "multiply-adds", "activations", "weights"]
    assert [line.split("  ")[-1].strip() for line in lines[4:6]] == ["shares one", "tied to one"]
    assert lines[8].startswith("503 parameters")


def test_frozen_layers_and_groups() -> None:
    found = prepare_layers([{"Linear": 16}, "BatchNorm1d", {"Linear": 2}], {"shape": [20]})
    first, norm, head = (each.module for each in found.network.layers)
    first.requires_grad_(False)
    norm.bias.requires_grad_(False)
    groups = [{"params": [norm.weight]}, {"params": list(head.parameters())}]
    rows = make_layer_rows(found.network, {}, optim.SGD(groups, lr=0.1))
    assert [row.remarks for row in rows] == ["frozen", "partly frozen", ""]
    assert [row.groups for row in rows] == [(), (0,), (1,)]
    text = format_summary(
        SpecSummary(found, measure_costs(found.network, found.criterion, found.data, SMALL_MODE), SMALL_MODE)
    )
    assert "402 parameters (50 trained)" in text


def test_noise_is_outlined_with_its_facts_and_refusals() -> None:
    data = {"type": "random", "shape": [3, 64, 64], "num_classes": 40, "size": 5000, "validation": 0.1, "test": 0.2}
    tree = {"model": {"layers": ["Flatten", {"Linear": 40}]}, "data": data, "optimizer": "SGD"}
    opened = Preparation(tree, SourceMap).open(outline=True)
    assert len(opened.data.train) + len(opened.data.validation) + len(opened.data.test) == 2**24 // (
        3 * 64 * 64 * 4 + 8
    )
    whole = Preparation({**tree, "data": {**data, "size": 40}}, SourceMap).open()
    assert (opened.data.facts, opened.spec.data.size) == (whole.data.facts, 5000)
    with pytest.raises(library.SpecError, match="at most 4 GB are allowed"):
        Preparation({**tree, "data": {**data, "size": 10**7}}, SourceMap).open(outline=True)


TUNED = """
freeze: ["stem.*", {match: "mid.*", unfreeze_at_epoch: 3}]
layers:
  - Linear: {out_features: 8, name: stem}
  - Linear: {out_features: 8, name: mid}
  - Linear: {out_features: 3, name: head}
"""


def test_freeze_and_groups_of_a_spec(dlspec, write) -> None:
    write("conf/model/mine.yaml", TUNED)
    said = dlspec("summary", "model=mine", *ROW, "optimizer.groups=[{match: '*.bias', weight_decay: 0.5}]")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[2:5] == [
        "stem Linear (8) features 168 160 frozen",
        "mid Linear (8) features 72 64 <0.01 MiB 0, 1 frozen until epoch 3",
        "head Linear (3) features 27 24 <0.01 MiB 0, 1",
    ]
    assert lines[6].startswith("267 parameters (99 trained)")
    assert lines[8:10] == ["group 0: 88 parameters, weight_decay 0", "group 1: 11 parameters, weight_decay 0.5"]


def test_long_lines_lose_layouts_then_the_beginnings_of_names() -> None:
    deep: Any = {"Linear": {"out_features": 20, "name": "the_last_of_them"}}
    for at in range(8):
        deep = {"Sequential": [deep], "name": f"a_name_of_{at}"}
    found = prepare_layers([deep, {"Linear": 2}], {"shape": [20]})
    lines = format_summary(
        SpecSummary(found, measure_costs(found.network, found.criterion, found.data, SMALL_MODE), SMALL_MODE)
    ).split("\n")
    assert max(map(len, lines)) == 120
    assert lines[2].startswith("...") and " (20)  " in lines[2] and "the_last_of_them  Linear" in lines[2]


@pytest.mark.parametrize(
    ("depth", "wanted"),
    [
        (1, [("0", "wide x 3"), ("1", "Linear x 2")]),
        (2, [("0.0", "wide"), ("0.1", "wide"), ("0.2", "wide"), ("1.0", "Linear"), ("1.1", "Linear")]),
        (9, [("0.0.0.body.0", "Linear"), ("0.0.0.body.1", "ReLU"), ("0.0.0", "Add"), ("0.0.1", "Linear")]),
    ],
)
def test_blocks_are_folded_with_their_sums(dlspec, write, depth: int, wanted: list[tuple[str, str]]) -> None:
    write("conf/model/mine.yaml", BLOCKS)
    whole, lines = (
        dlspec("summary", "model=mine", *ROW, *more).out.splitlines() for more in ([], ["--depth", str(depth)])
    )
    rows = [tuple(part for part in line.split("  ") if part)[:2] for line in lines[2:]]
    assert [(name.strip(), kind.strip()) for name, kind in rows[: len(wanted)]] == wanted
    assert lines[-4:] == whole[-4:]


def test_a_folded_row_is_the_sum_of_its_own(dlspec) -> None:
    found = prepare_layers([{"Residual": [{"Linear": 20}, "ReLU"], "repeat": 2}, {"Linear": 2}], {"shape": [20]})
    costs = measure_costs(found.network, found.criterion, found.data, SMALL_MODE)
    rows = make_layer_rows(found.network, costs, None)
    (one, last) = fold_rows(rows, 1, found.spec.graph.container_types)
    assert (one.name, one.type, one.count, one.cost.multiply_adds) == ("0", "Residual x 2", 840, 800)
    assert one.cost.saved_bytes == sum(row.cost.saved_bytes for row in rows[:-1])
    assert last == rows[-1]


def test_seven_billion_parameters(dlspec) -> None:
    """27 GB of weights, which are never there; the count that Llama's authors published."""
    data = ["data=random", "data.shape=null", "data.vocab_size=32000", "data.length=2048", "data.target=input"]
    said = dlspec("summary", "experiment=llama_huggingface", "weights=null", *data, "--depth", "1", "data.size=9")
    assert (said.code, said.err) == (0, "")
    assert "decoder x 32" in said.out
    assert "6,738,415,616 parameters, 25,705.02 MiB" in said.out
    products = 32 * (2048 * (4 * 4096**2 + 3 * 4096 * 11008) + 2 * 2048**2 * 4096) + 2048 * 4096 * 32000
    assert f"{products / 1e12:.2f} T multiply-adds" in said.out


BLOCK_STACK = """
blocks:
  wide: {layers: [{Residual: [{Linear: 400}, ReLU, {Linear: 400}]}]}
layers:
  - wide: {repeat: 30}
  - Linear: {out_features: 3, name: head}
"""
WIDE_ROW = ["data=random", "data.shape=[400]", "data.num_classes=3", "data.size=20", "trainer.batch_size=64"]


@pytest.fixture
def wide(write) -> list[str]:
    """Words of a network with 9.6 million parameters in 30 blocks."""
    write("conf/model/wide.yaml", BLOCK_STACK)
    return ["summary", "--depth", "1", "model=wide", *WIDE_ROW]


def test_what_each_of_several_processes_holds(dlspec, wide: list[str]) -> None:
    said = dlspec(*wide, "world=8", "memory=60MB")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-6:] == [
        "each of 8 processes with ddp: about 183.59 MiB, does not fit into 60 MB",
        "  weights 36.72 MiB, gradients 36.72 MiB, Adam's state 73.43 MiB, "
        "activations, then gradients to send 36.72 MiB",
        "with ddp, no number of processes of 60 MB is enough",
        "each of 8 processes with fsdp: about 27.38 MiB, fits into 60 MB",
        "  weights 4.59 MiB, gradients 4.59 MiB, Adam's state 9.18 MiB, best weights 4.59 MiB, activations 0.74 MiB, "
        "gathered weights and gradients 3.68 MiB",
        "with fsdp, 4 processes of 60 MB are enough",
    ]
    assert (
        dlspec(*wide, "world=8", "memory=60MB", "trainer.parallel=fsdp").out.splitlines()[-3:]
        == (said.out.splitlines()[-3:])
    )
    assert dlspec(*wide, "memory=1GiB").out.endswith("\none process of 1.07 GB is enough\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["world=0"], "world must be a number of processes from 1 to 4096, got '0'"),
        (["world=eight"], "world must be a number of processes from 1 to 4096, got 'eight'"),
        (["memory=80"], "memory must be the memory of one process such as 80GB or 40GiB, got '80'"),
        (["world=2", "world=3"], "world is given twice; leave one of them out"),
        (["world=2", "trainer.parallel=none"], "trainer.parallel=none trains in a single process, got world=2; leave"),
    ],
    ids=str,
)
def test_wrong_words_about_processes(dlspec, words: list[str], says: str) -> None:
    said = dlspec("summary", "model=linear", *ROW, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(says)


def test_words_of_the_command_are_no_keys_of_a_spec() -> None:
    assert {*WORDS}.isdisjoint(TOP_LEVEL_KEYS)


def test_large_or_small_the_numbers_are_equal(dlspec, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dlspec("summary").out
    monkeypatch.setattr(place, "MAX_SMALL_WEIGHT_BYTES", 1000)
    assert dlspec("summary").out == small


def test_what_could_not_be_checked_is_told(dlspec, write, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"model": {"layers": [{"Embedding": 8}, {"Linear": 50}]}}
    tokens = torch.randint(1, 50, (8, 7))
    preparing = face.prepare_spec(spec, {"words": tokens[:, :-1], "target": tokens[:, 1:]})
    assert "not checked" not in format_summary(summarize(preparing))
    monkeypatch.setattr(place, "MAX_SMALL_WEIGHT_BYTES", 1000)
    assert format_summary(summarize(preparing)).endswith("whether it sees the future")


class Picky(nn.Module):
    """Can't be trained."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no training")
        return input


def test_a_batch_that_can_t_be_passed() -> None:
    library.layer(Picky)
    preparing = face.prepare_spec({"layers": ["Picky", {"Linear": 3}]}, {"shape": [20], "num_classes": 3})
    lines = format_summary(summarize(preparing)).splitlines()
    assert lines[0].split() == ["layer", "type", "output", "parameters"]
    assert lines[-1] == "the memory of a training step is unknown: training on a batch failed: ValueError: no training"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--depth", "0"], "argument --depth: expected a whole number of names, 1 or more, got '0'"),
        (["--depth", "two"], "argument --depth: expected a whole number of names, 1 or more, got 'two'"),
        (["--depth"], "argument --depth: expected one argument"),
        (["--deep"], "unknown flag '--deep'"),
    ],
)
def test_wrong_flags(dlspec, words: list[str], says: str) -> None:
    said = dlspec("summary", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(says) and said.err.count("\n") == 1


def test_a_wrong_spec_is_refused_as_by_train(dlspec, write) -> None:
    write("conf/model/mine.yaml", "layers: [{Linear: 5}, Softmax]")
    ours, theirs = dlspec("summary", "model=mine", *ROW), dlspec("train", "model=mine", *ROW, *QUICK)
    assert (ours.code, ours.err) == (theirs.code, theirs.err) == (2, ours.err)


def test_the_shortcut_that_was_made_is_shown() -> None:
    residual = {"Residual": {"shortcut": "auto", "body": [{"Linear": 8}, "LayerNorm", "ReLU"]}}
    prepared = prepare_layers([residual, residual, {"Linear": 2}], {"shape": [4]})
    rows = make_layer_rows(prepared.network, {})
    assert [row.shortcuts for row in rows if row.type == "Add"] == [("Linear, LayerNorm",), ("input",)]
    folded = fold_rows(rows, 1, {})
    assert [row.shortcuts for row in folded] == [("Linear, LayerNorm",), ("input",), ()]
    text = format_summary(SpecSummary(prepared, {}, SMALL_MODE))
    assert "shortcut" in text.splitlines()[0] and "Linear, LayerNorm" in text
