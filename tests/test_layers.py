"""Every layer of the registry, by the table: read, built, traced, trained, and compared with PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tables import LAYER_ROWS, Row, batch, network_of, nodes_of
from torch import Tensor, nn

from dlspec.registry.torch_parts import BATCH_FIRST, LAYERS
from dlspec.spec.mistakes import Mistakes
from dlspec.spec.parts import parse_part

ROWS = sorted(LAYER_ROWS.items())
each_layer = pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])


def eager(name: str, row: Row) -> nn.Module:
    """What the same PyTorch code makes."""
    fixed = {"batch_first": True} if name in BATCH_FIRST else {}
    module: nn.Module = getattr(nn, name)(**row.inferred, **_tuples(row.settings), **fixed)
    return module


def _tuples(settings: Any) -> dict[str, Any]:
    return {key: tuple(each) if isinstance(each, list) else each for key, each in settings.items()}


def given_by(module: nn.Module, x: Tensor) -> Tensor:
    """The first output; PyTorch's recurrent layers give their states beside it."""
    output = module(x)
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def test_every_layer_of_the_registry_has_a_row() -> None:
    own = {name for name in LAYERS if LAYERS[name].build.__module__.startswith(("torch.", "dlspec."))}
    installed = {name for name in LAYER_ROWS if hasattr(nn, name)}  # an older torch lacks some
    assert own == installed


@each_layer
def test_one_spelling_reads_as_the_others(name: str, row: Row) -> None:
    settings = dict(row.settings)
    spellings: list[Any] = [{name: settings}, {"type": name, **settings}]
    spellings += [name, {name: None}] if not settings else []
    if len(settings) == 1 and LAYERS[name].value_setting in settings:
        spellings.append({name: next(iter(settings.values()))})
    read, mistakes = [], Mistakes()
    for spelling in spellings:
        part = parse_part(spelling, ("model", "layers", 0), mistakes, kind="layer", is_entry=True)
        assert part is not None
        read.append(LAYERS.read(part, mistakes))
    assert not mistakes.found
    assert all(each == read[0] for each in read)
    assert read[0] is not None
    assert read[0][1] == _tuples(settings) | {key: each for key, each in settings.items() if key in _AS_LISTS}


_AS_LISTS = ("unflattened_size",)


@each_layer
def test_is_pytorchs_own_under_one_seed(name: str, row: Row) -> None:
    """Same weights under the same names, same output, and the generator as it is behind eager code."""
    torch.manual_seed(3)
    plain = eager(name, row)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    network = network_of([{name: dict(row.settings)}], row.given)
    assert torch.equal(torch.get_rng_state(), state)
    ours = network.module.state_dict()
    assert {f"0.{key}" for key in plain.state_dict()} == set(ours)
    assert all(torch.equal(ours[f"0.{key}"], value) for key, value in plain.state_dict().items())
    assert network.module.training
    x = batch(row.given, 3)
    torch.manual_seed(4)
    wanted = given_by(plain.eval(), x.clone())
    torch.manual_seed(4)
    assert torch.equal(network.module.eval()(x), wanted)


@each_layer
def test_the_traced_output_is_the_real_one(name: str, row: Row) -> None:
    network = network_of([{name: dict(row.settings)}], row.given)
    assert (network.output.shape, network.output.layout) == (row.gives.shape, row.gives.layout)
    assert network.module.eval()(batch(row.given, 5)).shape == (5, *row.gives.shape)


@each_layer
def test_gradients_reach_every_parameter(name: str, row: Row) -> None:
    network = network_of([{name: dict(row.settings)}], row.given)
    x = batch(row.given, 4)
    x = x.requires_grad_() if x.is_floating_point() else x
    output = network.module(x)
    (output * torch.linspace(-1, 2, output.numel()).reshape(output.shape)).sum().backward()
    for key, parameter in network.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    if x.is_floating_point():
        assert x.grad is not None


@each_layer
def test_a_row_in_a_batch_is_that_row_alone(name: str, row: Row) -> None:
    if row.random:
        pytest.skip("draws in eval mode, too: PyTorch's own")
    module = network_of([{name: dict(row.settings)}], row.given).module.eval()
    x = batch(row.given, 3)
    together = module(x.clone())
    for index in range(3):
        torch.testing.assert_close(module(x[index : index + 1].clone())[0], together[index])


@each_layer
def test_tracing_leaves_no_trace(name: str, row: Row) -> None:
    """A layer in a stack's middle may work in place; no running mean has seen the trace."""
    inplace = {"inplace": True} if "inplace" in LAYERS[name].settings else {}
    before = {"Identity": None} if row.given.layout == "tokens" else {"Tanh": None}
    network = network_of([before, {name: {**row.settings, **inplace}}], row.given)
    for key, value in network.module.named_buffers():
        fresh = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
        assert (value == fresh[key.split(".")[-1]]).all()


NOT_YET = {
    "Transformer": "stack TransformerEncoderLayer",
    "SyncBatchNorm": "take BatchNorm1d, BatchNorm2d or BatchNorm3d",
    "Sequential": "write its layers in the list itself",
    **{f"{name}Cell": f"it takes the state before as a second input; take {name}" for name in ("RNN", "LSTM", "GRU")},
    **dict.fromkeys(
        "Bilinear CosineSimilarity PairwiseDistance TransformerDecoder TransformerDecoderLayer MultiheadAttention "
        "MaxUnpool1d MaxUnpool2d MaxUnpool3d".split(),
        "it takes several inputs, and 'from' is not there yet",
    ),
    **dict.fromkeys(
        "Residual Parallel Add Multiply Concat Reshape Permute Select Attention".split(),
        "this version builds plain stacks of PyTorch's layers",
    ),
}


@pytest.mark.parametrize(("name", "reason"), NOT_YET.items(), ids=list(NOT_YET))
def test_what_is_not_there_yet_is_refused_by_name(name: str, reason: str) -> None:
    mistakes = Mistakes()
    (node,) = nodes_of([name], mistakes)
    assert LAYERS.read(node.part, mistakes) is None
    assert [(each.found, each.fix) for each in mistakes.found] == [(f"{name} is not there yet", reason)]
