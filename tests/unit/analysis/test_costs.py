"""What a training step costs: multiply-adds and kept memory, for real and on the meta device, against formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn, optim
from torch.autograd.graph import saved_tensors_hooks

import dlspec as library
from dlspec.analysis.costs import LOSS_NAME, LayerCost, LayerCosts, measure_costs
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.network import build_mode as place
from dlspec.network.build_mode import META_MODE, RUN_MODE, SMALL_MODE, BuildMode, BuildModeError
from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.optimizer_memory import estimate_state_bytes
from helpers.command_line import CommandResult
from helpers.paths import ROOT
from helpers.prepared_runs import prepare_layers

ROW, STEPS, IMAGE = {"shape": [20]}, {"shape": [6, 8]}, {"shape": [4, 10, 12]}
TOKENS = {"vocab_size": 50, "length": 6}
PLACES = (SMALL_MODE, META_MODE)


def costs_of(layers: Any, data: Mapping[str, Any], where: BuildMode = SMALL_MODE, **config: Any) -> LayerCosts:
    found = prepare_layers(layers, data, where, **config)
    return measure_costs(found.network, found.criterion, found.data, where)


def total(costs: LayerCosts) -> LayerCost:
    return sum(costs.values(), LayerCost())


# ---- multiply-adds -------------------------------------------------------------------------------------------------

# Each layer's settings, its data, and its multiply-adds as one would count them on paper.
FORMULAS: dict[str, tuple[Any, Mapping[str, Any], int]] = {
    "Linear": ({"Linear": 16}, ROW, 20 * 16),
    "Linear over steps": ({"Linear": 16}, STEPS, 6 * 8 * 16),
    "Linear without bias": ({"Linear": {"out_features": 16, "bias": False}}, ROW, 20 * 16),
    "Conv2d": ({"Conv2d": {"out_channels": 5, "kernel_size": 3}}, IMAGE, 5 * 8 * 10 * 4 * 9),
    "Conv2d, strided": (
        {"Conv2d": {"out_channels": 5, "kernel_size": [3, 5], "stride": 2, "padding": 1, "dilation": [2, 1]}},
        IMAGE, 5 * 4 * 5 * 4 * 15,
    ),
    "Conv2d in groups": ({"Conv2d": {"out_channels": 6, "kernel_size": 3, "groups": 2}}, IMAGE, 6 * 8 * 10 * 2 * 9),
    "Conv2d by channel": ({"Conv2d": {"out_channels": 8, "kernel_size": 3, "groups": 4}}, IMAGE, 8 * 8 * 10 * 9),
    "Conv3d": ({"Conv3d": {"out_channels": 5, "kernel_size": 2}}, {"shape": [2, 4, 5, 6]}, 5 * 3 * 4 * 5 * 2 * 8),
    "ConvTranspose2d": (
        {"ConvTranspose2d": {"out_channels": 5, "kernel_size": 3, "stride": 2}}, IMAGE, 120 * 4 * 5 * 9,
    ),
    "ConvTranspose2d in groups": (
        {"ConvTranspose2d": {"out_channels": 6, "kernel_size": 2, "groups": 2}}, IMAGE, 120 * 4 * 3 * 4,
    ),
    "RNN": ({"RNN": 5}, STEPS, 6 * 5 * (8 + 5)),
    "GRU": ({"GRU": {"hidden_size": 5, "num_layers": 2}}, STEPS, 6 * 3 * 5 * (8 + 5 + 5 + 5)),
    "LSTM": ({"LSTM": 5}, STEPS, 6 * 4 * 5 * (8 + 5)),
    "LSTM both ways": ({"LSTM": {"hidden_size": 5, "bidirectional": True, "output": "last"}}, STEPS, 2 * 6 * 20 * 13),
    "LSTM, projected": ({"LSTM": {"hidden_size": 5, "proj_size": 3}}, STEPS, 6 * (4 * 5 * (8 + 3) + 5 * 3)),
    "Attention": ({"Attention": {"num_heads": 2}}, STEPS, 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8),
    "Attention, causal": ({"Attention": {"num_heads": 2, "is_causal": True}}, STEPS, 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8),
    "Attention, grouped": (
        {"Attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 3}},
        STEPS, 6 * 8 * (12 + 6 + 6 + 12) + 2 * 6 * 6 * 12,
    ),
    "Attention with dropout": ({"Attention": {"num_heads": 2, "dropout": 0.1}}, STEPS, 4 * 6 * 64 + 2 * 36 * 8),
    "MultiheadAttention": ({"MultiheadAttention": {"num_heads": 2}}, STEPS, 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8),
    "TransformerEncoderLayer": (
        {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 32}},
        STEPS, 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8 + 2 * 6 * 8 * 32,
    ),
    "Embedding": ({"Embedding": 16}, TOKENS, 0),
    "BatchNorm2d": ("BatchNorm2d", IMAGE, 0),
    "LayerNorm": ("LayerNorm", STEPS, 0),
    "GELU": ("GELU", STEPS, 0),
    "MaxPool2d": ({"MaxPool2d": 2}, IMAGE, 0),
    "PositionalEmbedding": ("PositionalEmbedding", STEPS, 0),
    "Formula": ({"Formula": "_ @ transpose(_, 1, 2)"}, STEPS, 6 * 6 * 8),
    "einsum": ({"Formula": "einsum('btc,bsc->bts', _, _)"}, STEPS, 6 * 6 * 8),
}  # fmt: skip


@pytest.mark.parametrize("where", PLACES, ids=["real", "meta"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_layers_multiply_adds(name: str, where: BuildMode) -> None:
    layer, data, wanted = FORMULAS[name]
    costs = costs_of([layer, "Flatten", {"Linear": 2}], data, where)
    assert costs.get("0", LayerCost()).multiply_adds == wanted


def test_a_convolution_of_a_sequence_and_two_inputs() -> None:
    layers = [{"Permute": [0, 2, 1]}, {"Conv1d": {"out_channels": 5, "kernel_size": 3, "padding": 1, "name": "one"}},
              "Flatten", {"Linear": {"out_features": 3, "name": "a"}},
              {"Bilinear": {"out_features": 4, "from": ["a", "a"], "name": "both"}}, {"Linear": 2}]  # fmt: skip
    for where in PLACES:
        costs = costs_of(layers, STEPS, where)
        assert costs["one"].multiply_adds == 5 * 6 * 8 * 3
        assert costs["both"].multiply_adds == 3 * 4 * 3 + 4 * 3


ZOO = ROOT / "conf/model"


@pytest.mark.parametrize(
    ("name", "published", "parameters"),
    [("resnet18", 1.81e9, 11_689_512), ("resnet50", 4.09e9, 25_557_032), ("vgg11", 7.61e9, 132_863_336)],
)
def test_published_networks(name: str, published: float, parameters: int) -> None:
    model = yaml.safe_load((ZOO / f"{name}.yaml").read_text(encoding="utf-8"))
    facts = {"shape": [3, 224, 224], "num_classes": 1000, "size": 5}
    found = prepare_layers(model, facts, META_MODE)
    costs = measure_costs(found.network, found.criterion, found.data, META_MODE)
    assert sum(each.numel() for each in found.network.module.parameters()) == parameters
    assert abs(total(costs).multiply_adds / published - 1) < 0.01


# ---- memory --------------------------------------------------------------------------------------------------------

NETWORKS: dict[str, tuple[Any, Mapping[str, Any]]] = {
    "stack": ([{"Linear": 16}, "ReLU", {"Linear": 2}], ROW),
    "convolutions": (
        [{"Residual": {"shortcut": "auto", "body": [
            {"Conv2d": {"out_channels": 6, "kernel_size": 3, "padding": 1}}, "BatchNorm2d", {"ReLU": {"inplace": True}},
            {"Conv2d": {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 2}}, "BatchNorm2d"]}},
         "ReLU", {"MaxPool2d": 2}, {"Dropout": 0.2}, "Flatten", {"Linear": 2}], IMAGE,
    ),
    "attention": (
        [{"Embedding": {"embedding_dim": 16, "name": "words"}}, "PositionalEmbedding",
         {"Residual": ["LayerNorm", {"Attention": {
             "num_heads": 4, "num_kv_heads": 2, "is_causal": True, "rotary": True}}]},
         {"Residual": ["RMSNorm", {"MultiheadAttention": {"num_heads": 2}}]},
         {"Residual": ["LayerNorm", {"Linear": 32}, "GELU", {"Linear": 16}]},
         {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 24, "is_causal": True, "dropout": 0.0}},
         {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 24}},
         "Mean", {"Linear": 2}], TOKENS,
    ),
    "a bias by distance": (
        {"inputs": ["input"], "layers": [
            {"RelativePositionBias": {"num_heads": 2, "name": "bias", "from": "input"}},
            {"Attention": {"num_heads": 2, "from": ["input", "input", "bias"]}}, "Mean", {"Linear": 2}]}, STEPS,
    ),
    "parametrized": ([{"Linear": {"out_features": 16, "parametrize": "weight_norm"}}, "Tanh", {"Linear": 2}], ROW),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_memory_is_what_a_training_step_saves(name: str) -> None:
    found = prepare_layers(*NETWORKS[name])
    whole = total(measure_costs(found.network, found.criterion, found.data, SMALL_MODE))
    for rows in (2, 5, 7):
        assert whole.saved_bytes_per_batch + rows * whole.saved_bytes == _saved(found, rows)


def _saved(found: PreparedRun, rows: int) -> int:
    """What PyTorch keeps of a real batch, counted by hand."""
    kept: dict[int, Tensor] = {}
    data, network = found.data.train, found.network
    weights = {each.data_ptr() for each in [*network.module.parameters(), *network.module.buffers()]}
    inputs = [data.input(name)[:rows].clone() for name in network.inputs]
    targets = tuple(data.get_loss_target(name)[:rows].clone() for name in found.criterion.target_names)

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        found.criterion(network.module.train()(*inputs), targets)
    return sum(each.untyped_storage().nbytes() for each in kept.values())


def test_kept_memory_by_hand() -> None:
    """A batch-wise loss keeps its log-probabilities, the target, and the weight of the mean."""
    costs = costs_of([{"Linear": 16}, "ReLU", {"Linear": 3}], {**ROW, "num_classes": 3})
    assert costs == {
        "0": LayerCost(20 * 16, 20 * 4),
        "1": LayerCost(0, 16 * 4),
        "2": LayerCost(16 * 3, 0),
        LOSS_NAME: LayerCost(0, 3 * 4 + 8, 4),
    }


RECURRENT = (
    [{"Embedding": 16}, {"GRU": 8}, {"LSTM": {"hidden_size": 8, "num_layers": 2, "output": "last"}}, {"Linear": 2}],
    TOKENS,
)


@pytest.mark.parametrize("name", [*NETWORKS, "recurrent"])
def test_on_meta_as_for_real(name: str) -> None:
    layers, data = {**NETWORKS, "recurrent": RECURRENT}[name]
    real, meta = (costs_of(layers, data, where) for where in PLACES)
    assert real == meta


def test_frozen_layers_keep_less() -> None:
    layers = [{"Linear": 16}, "ReLU", {"Linear": 2}]
    found = prepare_layers(layers, ROW)
    for each in found.network.layers[0].module.parameters():
        each.requires_grad_(False)
    assert "0" not in {
        name
        for name, each in measure_costs(found.network, found.criterion, found.data, SMALL_MODE).items()
        if each.saved_bytes
    }


def test_measuring_draws_nothing_and_leaves_attention_as_it_was() -> None:
    found, state = prepare_layers(*NETWORKS["convolutions"]), torch.get_rng_state()
    ours = nn.functional.scaled_dot_product_attention
    measure_costs(found.network, found.criterion, found.data, SMALL_MODE)
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.functional.scaled_dot_product_attention is ours


OPTIMIZERS: dict[str, tuple[dict[str, Any], float]] = {
    "SGD": ({"lr": 0.1}, 0), "Adam": ({}, 2), "AdamW": ({"amsgrad": True}, 3), "RMSprop": ({"centered": True}, 2),
    "Adagrad": ({}, 1), "Rprop": ({}, 2), "LBFGS": ({"history_size": 10}, 23),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_optimizer_keeps(name: str) -> None:
    settings, wanted = OPTIMIZERS[name]
    weights = [nn.Parameter(torch.ones(5, 7)), nn.Parameter(torch.ones(3))]
    assert estimate_state_bytes(make_optimizer(getattr(optim, name), weights, settings)) == wanted * 38 * 4


def test_each_group_keeps_its_own() -> None:
    one, other = nn.Parameter(torch.ones(5, 7)), nn.Parameter(torch.ones(3))
    groups = [{"params": [one], "momentum": 0.9}, {"params": [other], "momentum": 0.0}]
    assert estimate_state_bytes(make_optimizer(optim.SGD, groups, {"lr": 0.1})) == 35 * 4


# ---- places --------------------------------------------------------------------------------------------------------


def test_what_costs_much_does_not_fit_a_small_place(monkeypatch: pytest.MonkeyPatch) -> None:
    small = BuildMode(SMALL_MODE.device, SMALL_MODE.weights, 20 * 16, 100)
    found = prepare_layers([{"Linear": 16}, {"Linear": 2}], ROW)
    with pytest.raises(BuildModeError, match=r"too (much memory|many multiply-adds)"):
        measure_costs(found.network, found.criterion, found.data, small)
    monkeypatch.setattr(place, "MAX_SMALL_WEIGHT_BYTES", 1000)
    with pytest.raises(BuildModeError, match=r"weights of 1.28 kB"):
        prepare_layers([{"Linear": 16}, {"Linear": 2}], ROW)


def test_nothing_is_allocated_on_meta() -> None:
    found = prepare_layers([{"Linear": 10**6}, {"Linear": 10**6}, {"Linear": 2}], ROW, META_MODE)  # 4 TB
    assert all(each.is_meta for each in found.network.module.parameters())
    assert (
        total(measure_costs(found.network, found.criterion, found.data, META_MODE)).multiply_adds
        == 20 * 10**6 + 10**12 + 2 * 10**6
    )


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_parametrized_on_meta(name: str) -> None:
    layers = [{"Linear": {"out_features": 16, "parametrize": name}}, {"Linear": 2}]
    names = [
        {key: each.shape for key, each in prepare_layers(layers, ROW, where).network.module.state_dict().items()}
        for where in PLACES
    ]
    assert names[0] == names[1]


class Asking(nn.Module):
    """Asks for a number, which meta tensors have not."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.weight if float(input.detach().sum()) > 0 else input + self.weight


def test_a_layer_that_needs_numbers_does_not_fit_on_meta() -> None:
    library.layer(Asking)
    layers = ["Asking", {"Linear": 2}]
    with pytest.raises(BuildModeError, match="Asking needs real values"):
        prepare_layers(layers, ROW, META_MODE)
    with pytest.raises(BuildModeError, match="already orthogonal"):
        prepare_layers([{"Linear": {"out_features": 16, "parametrize": "orthogonal"}}, {"Linear": 2}], ROW, META_MODE)
    assert total(costs_of(layers, ROW, RUN_MODE)).multiply_adds == 40


def test_a_wrong_spec_is_refused_on_meta_as_for_real() -> None:
    layers = [
        {"Linear": {"out_features": 10**6, "name": "a"}},
        {"Linear": 10**6},
        {"Linear": 3},
        {"Add": {"from": ["_", "a"]}},
    ]
    with pytest.raises(library.SpecError, match=r"Add +shapes \(3\) and \(1000000\)"):
        prepare_layers(layers, ROW, META_MODE)


def test_an_output_that_is_not_saved_counts(
    dlspec: Callable[..., CommandResult], write: Callable[[str, str], Path]
) -> None:
    """PyTorch saves nothing of layers without trained weights below them, but a step needs the memory."""
    write(
        "conf/model/m.yaml",
        "layers: [{Upsample: {scale_factor: 40}}, ReLU, {AdaptiveAvgPool2d: 1}, Flatten, {Linear: 2}]",
    )
    out = dlspec("summary", "model=m", "data=random", "data.shape=[1,16,16]", "data.num_classes=2").out
    size = 32 * (40 * 16) ** 2 * 4 / 2**20
    assert f"the largest output {size:,.2f} MiB" in out
    assert "a training step of 32 samples: about 50.00 MiB" in out


def test_an_input_may_have_another_name_than_the_only_field() -> None:
    layers: list[Any] = ["Flatten", {"Linear": "${data.num_outputs}"}]
    named = prepare_layers({"inputs": ["pixels"], "layers": layers}, IMAGE)
    plain = prepare_layers(layers, IMAGE)
    costs = [measure_costs(each.network, each.criterion, each.data, SMALL_MODE) for each in (named, plain)]
    assert costs[0] == costs[1]
    assert total(costs[0]).multiply_adds == 4 * 10 * 12
