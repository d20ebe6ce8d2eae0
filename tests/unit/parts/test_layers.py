"""Every layer of the registry, by the table: read, built, traced, trained, and compared with PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.language.parse.part import parse_part
from dlspec.language.problems import Problems
from dlspec.parts.torch.torch_parts import BATCH_FIRST_LAYERS, LAYERS
from helpers.layer_table import (
    LAYER_ROWS,
    LayerRow,
    LayerUnderTest,
    build_layer,
    build_valid_layers,
    make_batches,
    make_graph,
)

ROWS = [(name, row) for name, row in sorted(LAYER_ROWS.items()) if row.inputs]
each_layer = pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])


def eager(name: str, row: LayerRow) -> nn.Module:
    """What the same PyTorch code makes."""
    fixed = {"batch_first": True} if name in BATCH_FIRST_LAYERS else {}
    build = getattr(nn, name, LAYERS[name].build)
    module: nn.Module = build(**row.inferred, **_tuples(row.settings), **fixed)
    return module


def _tuples(settings: Any) -> dict[str, Any]:
    return {key: tuple(each) if isinstance(each, list) else each for key, each in settings.items()}


def built(name: str, row: LayerRow) -> LayerUnderTest:
    return build_layer(name, row.settings, *row.inputs, many=row.many)


def given_by(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """The first output; PyTorch's recurrent layers give their states beside it."""
    output = module(*(each.clone() for each in inputs), **_SAID.get(type(module), {}))
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


# What the table's settings are to PyTorch's own `forward`.
_SAID: dict[type, dict[str, Any]] = {
    nn.MultiheadAttention: {"need_weights": False},
    nn.TransformerDecoderLayer: {
        "tgt_mask": torch.ones(5, 5, dtype=torch.bool).triu(1),
        "tgt_is_causal": True,
    },
}
_OF_FORWARD = ("tgt_is_causal",)


def test_every_layer_of_the_registry_has_a_row() -> None:
    own = {name for name in LAYERS if LAYERS[name].build.__module__.startswith(("torch.", "dlspec."))}
    installed = {name for name in LAYER_ROWS if name in LAYERS}  # an older torch lacks some
    assert own == installed
    assert {name for name in LAYER_ROWS if name not in LAYERS} <= {"RMSNorm"}


@each_layer
def test_one_spelling_reads_as_the_others(name: str, row: LayerRow) -> None:
    settings = dict(row.settings)
    spellings: list[Any] = [{name: settings}, {"type": name, **settings}]
    spellings += [name, {name: None}] if not settings else []
    if len(settings) == 1 and LAYERS[name].value_setting in settings:
        spellings.append({name: next(iter(settings.values()))})
    read, problems = [], Problems()
    for spelling in spellings:
        part = parse_part(spelling, ("model", "layers", 0), problems, kind="layer", is_entry=True)
        assert part is not None
        read.append(LAYERS.read(part, problems))
    assert not problems.found
    assert all(each == read[0] for each in read)
    assert read[0] is not None
    assert read[0][1] == _tuples(settings) | {key: each for key, each in settings.items() if key in _AS_LISTS}


_AS_LISTS = ("unflattened_size", "shape", "dims")


@each_layer
def test_is_pytorchs_own_under_one_seed(name: str, row: LayerRow) -> None:
    """Same weights under the same names, same output, and the generator as it is behind eager code."""
    torch.manual_seed(3)
    plain = eager(name, LayerRow({key: row.settings[key] for key in row.settings if key not in _OF_FORWARD}, row.given,
                            row.gives, row.inferred))  # fmt: skip
    state = torch.get_rng_state()
    torch.manual_seed(3)
    layer = built(name, row)
    assert torch.equal(torch.get_rng_state(), state)
    ours = layer.module.state_dict()
    assert list(plain.state_dict()) == list(ours)
    assert all(torch.equal(ours[key], value) for key, value in plain.state_dict().items())
    assert layer.module.training
    inputs = make_batches(row, 3)
    torch.manual_seed(4)
    wanted = given_by(plain.eval(), inputs)
    torch.manual_seed(4)
    layer.module.eval()
    assert torch.equal(layer(*inputs), wanted)


@each_layer
def test_the_traced_output_is_the_real_one(name: str, row: LayerRow) -> None:
    layer = built(name, row)
    assert (layer.output.shape, layer.output.layout) == (row.gives.shape, row.gives.layout)
    layer.module.eval()
    assert layer(*make_batches(row, 5)).shape == (5 * row.many[1], *row.gives.shape)


@each_layer
def test_gradients_reach_every_parameter(name: str, row: LayerRow) -> None:
    layer = built(name, row)
    inputs = [each.requires_grad_() if each.is_floating_point() else each for each in make_batches(row, 4)]
    output = layer(*inputs)
    (output * torch.linspace(-1, 2, output.numel()).reshape(output.shape)).sum().backward()
    for key, parameter in layer.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    for at, each in enumerate(inputs):
        if each.is_floating_point() and (name, at) not in _UNREAD:
            assert each.grad is not None and each.grad.abs().sum() > 0


# Of these inputs the sizes alone count.
_UNREAD = {("RelativePositionBias", 0), ("FoldTimeLike", 1), ("UnfoldTime", 1)}


@each_layer
def test_a_row_in_a_batch_is_that_row_alone(name: str, row: LayerRow) -> None:
    if row.random:
        pytest.skip("draws in eval mode, too: PyTorch's own")
    layer = built(name, row)
    layer.module.eval()
    inputs, many = make_batches(row, 3), (row.many[0], *[1] * len(row.inputs))
    together = layer(*(each.clone() for each in inputs))
    for index in range(3):
        alone = [
            each[index * many[at] : (index + 1) * many[at]].clone() if row.inputs[at].has_batch else each.clone()
            for at, each in enumerate(inputs)
        ]
        torch.testing.assert_close(layer(*alone), together[index * row.many[1] : (index + 1) * row.many[1]])


@each_layer
def test_tracing_leaves_no_trace(name: str, row: LayerRow) -> None:
    """A layer in a stack's middle may work in place; no running mean has seen the trace."""
    if isinstance(row.given, tuple) or row.many != (1, 1):
        pytest.skip("it stands in no plain stack")
    inplace = "inplace" in LAYERS[name].settings
    before = [{"Tanh": None}] if inplace else []
    network = build_valid_layers(
        [*before, {name: {**row.settings, **({"inplace": True} if inplace else {})}}], row.given
    )
    for key, value in network.module.named_buffers():
        fresh = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
        assert (value == fresh[key.split(".")[-1]]).all()


NOT_YET = {
    "Transformer": "use its layers: TransformerEncoderLayer and TransformerDecoderLayer, each with repeat",
    "TransformerEncoder": "write TransformerEncoderLayer: {nhead: ..., repeat: 6}",
    "TransformerDecoder": "write TransformerDecoderLayer: {nhead: ..., from: [_, memory], repeat: 6}",
    "SyncBatchNorm": "use BatchNorm1d, BatchNorm2d or BatchNorm3d",
    "ParameterList": "write a Parameter for each, with a name",
    **{f"{name}Cell": f"it needs a loop over time; use {name}" for name in ("RNN", "LSTM", "GRU")},
    "Scan": "use RNN, LSTM or GRU",
}


@pytest.mark.parametrize(("name", "reason"), NOT_YET.items(), ids=list(NOT_YET))
def test_what_is_not_there_yet_is_refused_by_name(name: str, reason: str) -> None:
    problems = Problems()
    (node,) = make_graph([name], problems).nodes
    assert LAYERS.read(node.part, problems) is None
    assert [(each.found, each.fix) for each in problems.found] == [(f"{name} is not supported", reason)]
