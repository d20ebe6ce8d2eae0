"""Whole networks that dlspec builds equal the same networks written by hand, and are plain PyTorch to every tool."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace

import networks
import pytest
import torch
from pairs import PAIRS, PLAIN, Pair
from torch import Tensor, nn

RESNET, TOKENS = PAIRS["ResNet-18"], {"num_classes": None, "size": 2, "validation": 0, "test": 0}
TINY_GPT = Pair(
    ["model=gpt2", PLAIN, *(f"model.params.{each}" for each in ("width=16", "depth=2", "heads=2", "length=8"))],
    {"vocab_size": 11, "length": 8, **TOKENS},
    lambda: networks.GPT(vocab_size=11, length=8, width=16, depth=2, heads=2),
)
SMALL = {
    "ResNet-18": replace(RESNET, data={**RESNET.data, "shape": [3, 32, 32]}),
    "GPT": TINY_GPT,
    "text": replace(PAIRS["text model"], data={"vocab_size": 50, "length": 7, **TOKENS}, by_hand=lambda: _text(50)),
}


def _text(vocab_size: int) -> nn.Module:
    return networks.TextLSTM(vocab_size)


@pytest.fixture(scope="module", params=SMALL)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, Tensor]:
    """dlspec's network, the one by hand with the same weights, and a batch."""
    each = SMALL[request.param]
    ours, by_hand = each.both()
    return ours, by_hand, each.batch(3)


def test_equals_the_network_by_hand(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    ours, by_hand, batch = pair
    mine, theirs = ours.eval()(batch), by_hand.eval()(batch)
    assert torch.equal(mine, theirs)
    gradient = torch.randn_like(mine)
    for network, output in ((ours, mine), (by_hand, theirs)):
        network.zero_grad()
        output.backward(gradient)
    gradients = zip(ours.named_parameters(), by_hand.parameters(), strict=True)
    assert [name for (name, one), other in gradients if not torch.equal(one.grad, other.grad)] == []


def test_trains_like_the_network_by_hand(pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    """Batch statistics and the random numbers of dropout are the same, too."""
    ours, by_hand, batch = (copy.deepcopy(each) for each in pair)
    outputs = []
    for network in (ours, by_hand):
        torch.manual_seed(0)
        outputs.append(network.train()(batch))
    assert torch.equal(*outputs)
    assert all(torch.equal(*each) for each in zip(ours.buffers(), by_hand.buffers(), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_starts_from_the_weights_of_the_network_by_hand(name: str) -> None:
    ours = SMALL[name].build()
    torch.manual_seed(0)
    by_hand = SMALL[name].by_hand()
    named = zip(ours.named_parameters(), by_hand.parameters(), strict=True)
    assert [name for (name, one), other in named if not torch.equal(one, other)] == []


COUNTS = [
    ("ResNet-18", 11_689_512),
    pytest.param("ResNet-50", 25_557_032, marks=pytest.mark.soak),
    pytest.param("GPT-2", 124_439_808, marks=pytest.mark.soak),
    ("small GPT", 818_048),
    ("text model", 2_080_901),
]


@pytest.mark.parametrize(("name", "parameters"), COUNTS)
def test_parameters_are_those_of_the_paper(name: str, parameters: int) -> None:
    with torch.device("meta"):
        by_hand = PAIRS[name].by_hand()
    ours = PAIRS[name].build()
    assert [each.shape for each in ours.parameters()] == [each.shape for each in by_hand.parameters()]
    assert sum(each.numel() for each in ours.parameters()) == parameters
    assert [each.shape for each in ours.buffers()] == [each.shape for each in by_hand.buffers()]


# ---- plain PyTorch to every tool -----------------------------------------------------------------------------------


def _compiled(network: nn.Module, batch: Tensor) -> Tensor:
    """In one graph; PyTorch itself breaks one at a recurrent layer."""
    is_recurrent = any(isinstance(each, nn.RNNBase) for each in network.modules())
    return torch.compile(network, backend="eager", fullgraph=not is_recurrent)(batch)


def _exported(network: nn.Module, batch: Tensor) -> Tensor:
    return torch.export.export(network, (batch,)).module()(batch)


def _pickled(network: nn.Module, batch: Tensor) -> Tensor:
    return pickle.loads(pickle.dumps(network))(batch)


def _saved(network: nn.Module, batch: Tensor) -> Tensor:
    """The weights into a copy whose own are gone."""
    file, other = io.BytesIO(), copy.deepcopy(network)
    torch.save(network.state_dict(), file)
    for each in other.parameters():
        nn.init.zeros_(each)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other(batch)


TOOLS = {
    "compile": _compiled,
    "export": _exported,
    "deepcopy": lambda network, batch: copy.deepcopy(network)(batch),
    "pickle": _pickled,
    "state_dict": _saved,
}


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")  # PyTorch of its own LSTM
@pytest.mark.parametrize("tool", TOOLS)
@torch.no_grad()
def test_works_with(tool: str, pair: tuple[nn.Module, nn.Module, Tensor]) -> None:
    network, _, batch = pair
    wanted = network.eval()(batch)
    assert torch.equal(TOOLS[tool](network, batch), wanted)


@pytest.mark.soak
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_compiles(name: str) -> None:
    network, batch = SMALL[name].build().eval(), SMALL[name].batch(3)
    torch.testing.assert_close(torch.compile(network)(batch), network(batch), rtol=1e-4, atol=1e-4)
