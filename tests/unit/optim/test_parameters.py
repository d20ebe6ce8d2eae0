"""`init`, `freeze` and `optimizer.groups`: parameters picked by patterns of their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import dlspec
from dlspec.errors import SpecError
from dlspec.language.problems import Problems
from dlspec.network.build_mode import META_MODE, SMALL_MODE
from dlspec.network.parameters import MAX_UNMATCHED_PATTERNS
from dlspec.network.weights.tensor_files import list_stored_tensors
from dlspec.parts.specs.parameters_spec import read_inits
from dlspec.parts.torch.inits import INITS
from helpers.paths import ROOT
from helpers.prepared_runs import prepare_layers

IMAGES = {"shape": [1, 8, 8], "num_classes": 3}
NET = [
    {"Conv2d": {"out_channels": 4, "kernel_size": 3, "name": "stem"}},
    {"BatchNorm2d": None, "name": "norm"},
    "ReLU",
    "Flatten",
    {"Linear": 5, "name": "hidden"},
    {"Linear": 3, "name": "head"},
]


def built(layers: list[Any] = NET, data: Any = IMAGES, **more: Any) -> nn.Module:
    model = {"layers": layers, **{key: more.pop(key) for key in ("init", "freeze", "params") if key in more}}
    return dlspec.build({"model": model, **more}, data=data)


def said(**more: Any) -> str:
    with pytest.raises(SpecError) as caught:
        built(**more)
    return str(caught.value)


# ---- init ------------------------------------------------------------------------------------------------------------


def test_a_later_line_wins_and_other_parameters_keep_their_start() -> None:
    plain = built().state_dict()
    init = [
        {"match": "*.weight", "layer": "Linear", "type": "constant_", "val": 2.0},
        {"match": "head.*", "type": "zeros_"},
        {"match": "*.bias", "layer": ["Conv2d", "BatchNorm2d"], "constant_": {"val": 0.5}},
    ]
    state = built(init=init).state_dict()
    assert (state["hidden.weight"] == 2).all()
    assert not state["head.weight"].any() and not state["head.bias"].any()
    assert (state["stem.bias"] == 0.5).all() and (state["norm.bias"] == 0.5).all()
    for name in ("stem.weight", "hidden.bias", "norm.weight"):
        assert torch.equal(state[name], plain[name])


def test_draws_are_torchs_in_the_order_of_the_state_dict() -> None:
    layers = [{"Linear": 4}, {"Linear": 3}]
    init = [{"layer": "Linear", "match": "*.weight", "type": "normal_", "std": 0.02}]
    ours = built(layers, {"shape": [5], "num_classes": 3}, init=init)
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    for each in theirs:
        nn.init.normal_(each.weight, std=0.02)
    assert all(torch.equal(mine, yours) for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True))


# By name the settings, and a weight's shape.
INIT_ROWS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "uniform_": ({"a": -2.0}, (4, 5)),
    "normal_": ({"mean": 1.0}, (4, 5)),
    "trunc_normal_": ({"a": -1.0, "b": 1.0}, (4, 5)),
    "constant_": ({"val": 3.0}, (4, 5)),
    "ones_": ({}, (4, 5)),
    "zeros_": ({}, (4, 5)),
    "eye_": ({}, (4, 5)),
    "dirac_": ({"groups": 2}, (4, 2, 3, 3)),
    "xavier_uniform_": ({"gain": 2.0}, (4, 5)),
    "xavier_normal_": ({}, (4, 2, 3, 3)),
    "kaiming_uniform_": ({"mode": "fan_out"}, (4, 2, 3, 3)),
    "kaiming_normal_": ({"nonlinearity": "relu"}, (4, 5)),
    "orthogonal_": ({"gain": 2.0}, (4, 2, 3, 3)),
    "sparse_": ({"sparsity": 0.5}, (4, 5)),
}


def test_every_init_has_a_row() -> None:
    assert INIT_ROWS.keys() == set(INITS)


@pytest.mark.parametrize("name", INIT_ROWS)
def test_every_init_is_pytorchs(name: str) -> None:
    settings, shape = INIT_ROWS[name]
    (init,) = read_inits([{"match": "weight", "type": name, **settings}], ("init",), problems := Problems())
    assert not problems
    ours, theirs = torch.empty(shape), torch.empty(shape)
    for tensor, fill in ((ours, init.schema.build), (theirs, getattr(nn.init, name))):
        torch.manual_seed(0)
        fill(tensor, **(init.settings if tensor is ours else settings))
    assert torch.equal(ours, theirs)


def test_params_stand_in_a_models_init_and_the_configs_comes_last() -> None:
    model_init = [{"match": "head.weight", "type": "constant_", "val": "$(1 / (2 * depth) ** 0.5)"}]
    assert built(init=model_init, params={"depth": 2})[-1].weight.unique().tolist() == [0.5]
    state = dlspec.build(
        {"model": {"layers": NET, "init": [{"match": "head.*", "type": "ones_"}]},
         "init": [{"match": "head.bias", "type": "zeros_"}]},
        data=IMAGES,
    ).state_dict()  # fmt: skip
    assert (state["head.weight"] == 1).all() and not state["head.bias"].any()


def test_padding_stays_zero_and_a_layer_within_a_layer_is_found() -> None:
    layers = [
        {"Embedding": {"embedding_dim": 4, "padding_idx": 0}, "name": "words"},
        {"Attention": {"num_heads": 2}, "name": "attention"},
        {"Parameter": {"shape": [1, 4]}, "name": "token"},
        {"Concat": {"from": ["token", "_"], "dim": 1}},
        {"Select": {"dim": 1, "index": 0}},
        {"Linear": 3},
    ]
    init = [
        {"match": "*", "type": "ones_"},
        {"match": "*", "layer": "Attention", "type": "zeros_"},
        {"layer": "Parameter", "constant_": {"val": 7.0}},
    ]
    state = built(layers, {"vocab_size": 9, "length": 6, "num_classes": 3}, init=init).state_dict()
    assert not state["words.weight"][0].any() and (state["words.weight"][1:] == 1).all()
    assert not state["attention.q_proj.weight"].any()
    assert (state["token"] == 7).all()


def test_a_tied_weight_is_found_by_both_names() -> None:
    layers = [
        {"Embedding": {"embedding_dim": 4}, "name": "words"},
        {"Mean": {"dim": 1}},
        {"Linear": {"out_features": 9, "bias": False}, "tie": "words", "name": "head"},
    ]
    data = {"vocab_size": 9, "length": 6, "num_classes": 9}
    network = built(layers, data, init=[{"match": "head.*", "type": "ones_"}])
    assert (network.state_dict()["words.weight"] == 1).all()


# ---- freeze ----------------------------------------------------------------------------------------------------------


def trained(work: Path, say: Callable[..., Any], *words: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    folder = f"run{len(list(work.iterdir()))}"
    done = say(*words, f"hydra.run.dir={folder}", "trainer.curves=false", "trainer.tensorboard=false")
    assert (done.code, done.err) == (0, "")
    stored = list_stored_tensors(work / folder / "checkpoints/last.safetensors")
    rows = [json.loads(line) for line in (work / folder / "metrics.jsonl").read_text().splitlines()]
    return {name: each.read() for name, each in stored.items()}, rows


MINE = """
layers:
  stem: {Conv2d: {out_channels: 4, kernel_size: 3}}
  norm: BatchNorm2d
  flat: Flatten
  head: {Linear: 10}
"""
FEW = ("model=mine", "trainer.epochs=3", "trainer.limit_batches=5", "trainer.progress=none")


def test_what_is_frozen_stays_and_so_do_its_running_statistics(work: Path, dlspec, write) -> None:
    write("conf/model/mine.yaml", MINE)
    start, _ = trained(work, dlspec, *FEW, "freeze=['stem.*','norm.*','head.weight']")
    frozen, _ = trained(work, dlspec, *FEW, "freeze=['stem.*',{layer: BatchNorm2d}]")
    for name in ("stem.weight", "stem.bias", "norm.weight", "norm.running_mean", "norm.running_var"):
        assert torch.equal(frozen[name], start[name]), name
    assert not torch.equal(frozen["head.weight"], start["head.weight"])


def test_a_run_in_which_nothing_learns_says_so(work: Path, dlspec, write) -> None:
    said = dlspec("model=linear", "freeze=['*']", "trainer.epochs=1", "hydra.run.dir=made", "trainer.progress=none")
    assert (said.code, said.err) == (0, "nothing is trained: all parameters are frozen\n")
    assert "training 0 of 650 parameters on " in (work / "made/log.txt").read_text()
    assert "nothing is trained" not in dlspec("model=linear", "freeze=['*.bias']", "trainer.epochs=1").err


def test_idle_patterns_are_told_up_to_a_bound() -> None:
    text = said(freeze=[f"x{index}*" for index in range(MAX_UNMATCHED_PATTERNS + 9)])
    assert f"x{MAX_UNMATCHED_PATTERNS - 1}*" in text and f"x{MAX_UNMATCHED_PATTERNS}*" not in text


def test_a_frozen_part_learns_from_its_epoch_on(work: Path, dlspec, write) -> None:
    write("conf/model/mine.yaml", MINE)
    two = ("freeze=[{match: 'stem.*', unfreeze_at_epoch: 3}]",)
    never, _ = trained(work, dlspec, *FEW, "freeze=['stem.*']", "trainer.epochs=2")
    before, _ = trained(work, dlspec, *FEW, *two, "trainer.epochs=2")
    after, _ = trained(work, dlspec, *FEW, *two, "trainer.epochs=3")
    assert all(torch.equal(before[name], never[name]) for name in never)
    assert not torch.equal(after["stem.weight"], before["stem.weight"])


def test_all_but_the_head_and_by_dimensions() -> None:
    frozen = built(freeze=[{"match": "*", "except": "head.*"}])
    assert [name for name, each in frozen.named_parameters() if each.requires_grad] == ["head.weight", "head.bias"]
    frozen = built(freeze=[{"dims": 1, "except": ["stem.*", "norm.*"]}])
    names = [name for name, each in frozen.named_parameters() if not each.requires_grad]
    assert names == ["hidden.bias", "head.bias"]
    found = said(freeze=[{"match": "head.*", "dims": 4}])
    assert "'dims' and 'except' leave no parameter that 'head.*' matches" in found


def test_the_configs_freeze_takes_the_place_of_the_models() -> None:
    frozen = built(freeze=["stem.*"])
    assert [name for name, each in frozen.named_parameters() if not each.requires_grad] == ["stem.weight", "stem.bias"]
    thawed = dlspec.build({"model": {"layers": NET, "freeze": ["stem.*"]}, "freeze": []}, data=IMAGES)
    assert all(each.requires_grad for each in thawed.parameters())


# ---- optimizer.groups ------------------------------------------------------------------------------------------------


def test_groups_step_as_pytorchs_do(work: Path, dlspec, write) -> None:
    """SGD without momentum: one step from the same start moves each group by its own learning rate."""
    write("conf/model/mine.yaml", MINE)
    one = ("trainer.max_steps=1", "optimizer=SGD", "optimizer.lr=1.0")
    start, _ = trained(work, dlspec, *FEW, *one, "optimizer.lr=0")
    plain, _ = trained(work, dlspec, *FEW, *one)
    groups = "{match: '*.bias', lr: 0.5}, {layer: Conv2d, lr: 0}, {match: 'head.*', lr: 9}"
    grouped, _ = trained(work, dlspec, *FEW, *one, f"optimizer.groups=[{groups}]")
    for name, factor in {"head.bias": 0.5, "norm.weight": 1.0, "stem.weight": 0.0, "head.weight": 9.0}.items():
        moved, alone = grouped[name] - start[name], plain[name] - start[name]
        torch.testing.assert_close(moved, factor * alone, rtol=1e-4, atol=1e-6)


def test_a_run_with_all_of_it_can_be_repeated(work: Path, dlspec, write) -> None:
    write("conf/model/mine.yaml", MINE + "init: [{match: '*.weight', layer: Linear, type: xavier_uniform_}]\n")
    words = [
        "optimizer.groups=[{match: '*.bias', weight_decay: 0.5}]",
        "freeze=[{match: 'stem.*', unfreeze_at_epoch: 2}]",
        "init=[{match: 'head.bias', type: ones_}]",
    ]
    first, rows = trained(work, dlspec, *FEW, *words)
    folder = next(each for each in work.iterdir() if (each / "spec.yaml").exists())
    again, more = trained(work, dlspec, f"run={folder}", "trainer.progress=none")
    assert rows == more
    assert all(torch.equal(first[name], again[name]) for name in first)


REFUSED = {
    "no such name": ({"init": [{"match": "hed.*", "type": "zeros_"}]}, "no parameter matches 'hed.*'"),
    "no such layer there": ({"freeze": [{"layer": "LSTM"}]}, "no LSTM has a parameter"),
    "cannot be filled": (
        {"init": [{"match": "*.bias", "type": "xavier_normal_"}]},
        "xavier_normal_ can't initialize stem.bias of shape (4,)",
    ),
    "no such function": ({"init": [{"match": "*", "type": "glorot_uniform"}]}, "use xavier_uniform_"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    more, text = REFUSED[name]
    assert text in said(**more)


@pytest.mark.parametrize("type", ["xavier_normal_", "kaiming_uniform_", "orthogonal_", "dirac_", "eye_", "sparse_"])
def test_a_large_network_without_values_refuses_the_same_initializers(type: str) -> None:
    init = {"match": "*.bias", "type": type, **({"sparsity": 0.1} if type == "sparse_" else {})}
    texts = []
    for mode in (SMALL_MODE, META_MODE):
        with pytest.raises(SpecError) as raised:
            prepare_layers([{"Linear": 3}], {"shape": [5]}, mode, init=[init])
        texts.append(str(raised.value))
    assert texts[0] == texts[1]
    assert f"{type} can't initialize 0.bias of shape (3,)" in texts[0]


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "unet"])
def test_a_convolution_with_a_bias_extends_dlspecs_own_models(model: str) -> None:
    read = yaml.safe_load((ROOT / "conf" / "model" / f"{model}.yaml").read_text())
    layers = [{"Conv2d": {"out_channels": 4, "kernel_size": 3}}, "BatchNorm2d", "Flatten", {"Linear": 2}]
    if model == "unet":
        layers.insert(0, {"ConvTranspose2d": {"out_channels": 4, "kernel_size": 2}})
    prepare_layers(layers, {"shape": [3, 8, 8]}, init=read["init"])
