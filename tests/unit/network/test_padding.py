"""Padding never counts: texts of up to 10 words, padded to 10, 20 and 40 steps, give equal outputs and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlspec
from dlspec.data.batches.sequence_lengths import change_lengths
from dlspec.errors import Code
from dlspec.language.expressions.formula_functions import REDUCING_FUNCTIONS
from dlspec.language.problems import Problems
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.layouts import Lengths, TensorInfo
from dlspec.network.builder import Network
from dlspec.parts.layers.normalization import BatchNorm1d, GroupNorm, InstanceNorm1d
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.pooling import AdaptiveAvgPool1d, AdaptiveMaxPool1d
from dlspec.parts.torch.torch_parts import LAYERS
from helpers.layer_table import LAYER_ROWS, build_layers, build_valid_layers
from helpers.paths import ROOT

LENGTHS = torch.tensor([10, 7, 4])
PADDED = (10, 20, 40)
VOCABULARY = 30


def text(steps: int) -> TensorInfo:
    return TensorInfo((steps,), "tokens", Lengths("x"), vocab_size=VOCABULARY)


def make_padded(steps: int) -> Tensor:
    """Texts of `LENGTHS` words and 0 behind them."""
    words = torch.randint(1, VOCABULARY, (3, PADDED[0]), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.pad(words, (0, steps - PADDED[0])) * make_step_mask(LENGTHS, steps)


def run(network: Network, batch: Tensor, *, training: bool) -> Tensor:
    network.module.train(training)
    lengths = [LENGTHS] if len(network.inputs) > 1 else []
    found: Tensor = network.module(batch, *lengths)
    return found


def build_twins(layers: Any, sizes: Sequence[int] = PADDED) -> list[Network] | None:
    """Build a network for each padded size, all with the same weights.

    Returns None if the network is refused, and [] if the number of steps is a size of its weights.
    """
    networks = []
    for steps in sizes:
        problems = Problems()
        network = build_layers(layers, text(steps), problems)
        if network is None:
            assert {each.code for each in problems.found} & {Code.COUNTS_PADDING, Code.LENGTHS_LOST}, problems.found
            return None
        networks.append(network)
    states = [each.module.state_dict() for each in networks]
    if any(state[key].shape != each.shape for state in states for key, each in states[0].items()):
        return []
    for each in networks:
        each.module.load_state_dict(states[0])
    return networks


def list_outputs(networks: list[Network], *, training: bool, sizes: Sequence[int] = PADDED) -> list[Tensor]:
    """Compute the outputs of each network, without padding; [] if their size depends on the number of steps."""
    found = [run(each, make_padded(steps), training=training) for steps, each in zip(sizes, networks, strict=True)]
    real = [cut_padding(each, network.output) for each, network in zip(found, networks, strict=True)]
    return real if len({each.shape for each in real}) == 1 else []  # the output has a number for each padded step


def cut_padding(output: Tensor, value: TensorInfo) -> Tensor:
    """The real steps of all samples one behind the other, (M, ...); the output itself where all its steps are real."""
    if value.lengths is None or value.time_dim is None:
        return output
    lengths = change_lengths(LENGTHS, value.lengths.changes)
    by_step = output.movedim(value.time_dim, 1)
    return by_step[make_step_mask(lengths, by_step.shape[1])]


def assert_padding_does_not_count(layers: Any, *, training: bool = False) -> None:
    networks = build_twins(layers)
    found = networks and list_outputs(networks, training=training)
    assert found, "refused, or the weights depend on the number of steps"
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-5, atol=1e-5)


EMBED: list[Any] = [{"Embedding": {"embedding_dim": 4, "name": "words"}}]
FIRST: list[Any] = [*EMBED, {"Permute": [0, 2, 1]}]
CONV = {"Conv1d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
NETWORKS: dict[str, list[Any]] = {
    "average pooling": [*FIRST, CONV, {"AdaptiveAvgPool1d": 1}],
    "average pooling to five": [*FIRST, CONV, {"AdaptiveAvgPool1d": 5}],
    "maximum pooling": [*FIRST, CONV, {"AdaptiveMaxPool1d": 1}],
    "maximum pooling to three": [*FIRST, CONV, {"AdaptiveMaxPool1d": 3}],
    "batch norm": [*FIRST, CONV, "BatchNorm1d", "ReLU", CONV, "Mean"],
    "instance norm": [*FIRST, CONV, {"InstanceNorm1d": {"affine": True}}, CONV, "Max"],
    "group norm": [*FIRST, CONV, {"GroupNorm": 2}, CONV, "Sum"],
    "residual convolutions": [*FIRST, {"Residual": [CONV, "ReLU", CONV], "repeat": 3}, "Mean"],
    "strided residual": [
        *FIRST,
        {"Residual": {"body": [{"Conv1d": {"out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}}],
                      "shortcut": [{"Conv1d": {"out_channels": 8, "kernel_size": 1, "stride": 2}}]}},
        CONV, "Mean",
    ],
    "causal convolutions": [
        *FIRST,
        {"Residual": [{"ZeroPad1d": [4, 0]}, {"Conv1d": {"out_channels": 4, "kernel_size": 3, "dilation": 2}}],
         "repeat": 2},
        "Mean",
    ],
    "parallel kernels": [
        *FIRST,
        {"Parallel": [[CONV], [{"Conv1d": {"out_channels": 3, "kernel_size": 5, "padding": 2}}]]},
        CONV, {"AdaptiveMaxPool1d": 1},
    ],
    "down and up": [
        *FIRST,
        {"Conv1d": {"out_channels": 4, "kernel_size": 2, "stride": 2}},
        {"ConvTranspose1d": {"out_channels": 4, "kernel_size": 4, "stride": 2, "padding": 1}},
        CONV, "Mean",
    ],
    "repeated steps": [*FIRST, {"Upsample": {"scale_factor": 2}}, CONV, "Mean"],
    "pooling at the border": [
        *FIRST, {"MaxPool1d": {"kernel_size": 3, "stride": 2, "padding": 1}}, CONV,
        {"MaxPool1d": {"kernel_size": 2, "ceil_mode": True}}, "Mean",
    ],
    "softmax over time": [*EMBED, {"Softmax": 1}, {"Formula": "sum(_ * words, dim=1)"}],
    "two decoder layers": [
        *EMBED, {"Linear": {"out_features": 4, "name": "memory"}}, {"Parameter": {"shape": [3, 4], "name": "queries"}},
        {"Attention": {"num_heads": 2, "from": ["queries", "memory"], "name": "first"}},
        {"Attention": {"num_heads": 2, "from": ["first", "memory"]}},
        {"TransformerDecoderLayer": {"nhead": 2, "dim_feedforward": 8, "dropout": 0.0, "from": ["_", "memory"]}},
        "Mean",
    ],
    "attention in a formula": [
        *EMBED,
        {"Formula": "softmax(where(unsqueeze(is_step(_), 1), _ @ transpose(_, 1, 2), -1e9), dim=-1) @ _"},
        "Mean",
    ],
    "mean in a formula": [
        *EMBED, {"Formula": "sum(_ * unsqueeze(is_step(_), -1), dim=1) / sum(is_step(_), dim=1, keepdim=True)"},
    ],
    "lengths of another output": [
        *FIRST, {"Conv1d": {"out_channels": 4, "kernel_size": 3}},
        {"ZeroPad1d": {"padding": [0, 2], "lengths_of": "words"}}, CONV, "Mean",
    ],
}  # fmt: skip


REFUSED = "CircularPad1d ReflectionPad1d ReplicationPad1d".split()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_gives_the_same_however_far_it_is_padded(name: str, training: bool) -> None:
    assert_padding_does_not_count(NETWORKS[name], training=training)


# ---- every layer ---------------------------------------------------------------------------------------------------

# Settings that differ in what they do with padding; other layers are tried with the settings of the table of layers.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "AvgPool1d": [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1},
                  {"kernel_size": 3, "padding": 1, "count_include_pad": False}, {"kernel_size": 3, "ceil_mode": True}],
    "Conv1d": [{"out_channels": 3, "kernel_size": 3, "padding": mode} for mode in ("same", "valid", 1)]
    + [{"out_channels": 3, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"}],
    "MaxPool1d": [{"kernel_size": 2}, {"kernel_size": 3, "padding": 1},
                  {"kernel_size": 3, "stride": 2, "ceil_mode": True}],
    "Upsample": [{"scale_factor": 2}, {"size": 12}, {"scale_factor": 2, "mode": "linear"}],
    "ConstantPad1d": [{"padding": [1, 2], "value": 0}, {"padding": [1, 2], "value": 3}],
    "Softmax": [{}, {"dim": 1}, {"dim": 2}],
    "LSTM": [{"hidden_size": 3, "output": output, "bidirectional": True} for output in ("sequence", "last", "mean")],
    "GRU": [{"hidden_size": 3, "bidirectional": True}],
    "PositionalEmbedding": [{"num_embeddings": 40}],
    "Attention": [{"num_heads": 2}, {"num_heads": 2, "is_causal": True}],
    "MultiheadAttention": [{"num_heads": 2}, {"num_heads": 2, "is_causal": True}],
    "TransformerEncoderLayer": [{"nhead": 2, "dim_feedforward": 6, "dropout": 0.0}],
    "Formula": [{"formula": "_ * 2"}],
    "GroupNorm": [{"num_groups": 2}],
    "Flatten": [{}, {"start_dim": 2}],
}  # fmt: skip
DOES_NOT_FIT = {
    Code.WRONG_LAYOUT, Code.INPUT_COUNT, Code.SHAPE_MISMATCH, Code.LAYER_REFUSED, Code.WRONG_DIMENSION,
    Code.WRONG_VALUE, Code.UNKNOWN_LAYER, Code.CONFLICT, Code.MISSING_VALUE, Code.SAMPLES_MIXED,
}  # fmt: skip


def list_cases() -> list[Any]:
    names = sorted(
        set(LAYER_ROWS) - {"FoldTime", "FoldTimeLike", "UnfoldTime", "Parameter", "RelativePositionBias"}
    )  # not of a sample's steps
    cases = [(name, each) for name in names for each in SETTINGS.get(name, [dict(LAYER_ROWS[name].settings)])]
    return [pytest.param(name, each, id=f"{name}-{each}") for name, each in cases]


def find_what_happens(layers: list[Any], *modes: bool) -> str:
    """Whether padding is left out, refused, or whether the layer does not fit a sequence or the number of steps.

    The outputs are compared in each mode: `True` for training.
    """
    problems = Problems()
    if build_layers(layers, text(PADDED[1]), problems) is None:
        codes = {each.code for each in problems.found}
        assert codes <= DOES_NOT_FIT | {Code.COUNTS_PADDING, Code.LENGTHS_LOST}, problems.found
        return "does not fit" if codes <= DOES_NOT_FIT else "refused"
    torch.manual_seed(0)
    sizes = (PADDED[0], PADDED[-1])
    networks = build_twins(layers, sizes)
    assert networks is not None
    found = [list_outputs(networks, training=training, sizes=sizes) if networks else [] for training in modes]
    for outputs in found:
        for each in outputs[1:]:
            torch.testing.assert_close(each, outputs[0], rtol=1e-5, atol=1e-5)
    return "left out" if all(found) else "fixed"


@pytest.mark.parametrize(("name", "settings"), list_cases())
def test_every_layer_leaves_padding_out_or_is_refused(name: str, settings: dict[str, Any]) -> None:
    layer = {name: settings} if settings else name
    modes = (False,) if "Dropout" in name or name in ("RReLU", "StochasticDepth") else (False, True)
    seen = [
        find_what_happens([*first, layer, *last], *modes) for first in (EMBED, FIRST, []) for last in ([], ["Mean"])
    ]
    assert name not in REFUSED or "refused" in seen


# ---- formulas ------------------------------------------------------------------------------------------------------

OVER_TIME = {
    **{name: f"{name}(_, dim=1)" for name in REDUCING_FUNCTIONS},
    "var": "var(_, dim=1)",
    "std": "std(_, dim=1)",
    "norm": "norm(_, dim=1)",
    "normalize": "normalize(_, dim=1)",
    "softmax": "softmax(_, dim=1)",
    "log_softmax": "log_softmax(_, dim=1)",
    "centered": "_ - mean(_, dim=1, keepdim=True)",
    "gram": "transpose(_, 1, 2) @ _",
    "reversed": "flip(_, dims=[1])",
}
MASKED = {
    "sum": "sum(_ * unsqueeze(is_step(_), -1), dim=1)",
    "mean": "sum(_ * unsqueeze(is_step(_), -1), dim=1) / sum(is_step(_), dim=1, keepdim=True)",
    "amax": "amax(where(unsqueeze(is_step(_), -1), _, -1e9), dim=1)",
    "amin": "amin(where(unsqueeze(is_step(_), -1), _, 1e9), dim=1)",
    "logsumexp": "logsumexp(where(unsqueeze(is_step(_), -1), _, -1e9), dim=1)",
    "prod": "prod(where(unsqueeze(is_step(_), -1), _, 1), dim=1)",
    "norm": "norm(_ * unsqueeze(is_step(_), -1), dim=1)",
    "softmax": "softmax(where(unsqueeze(is_step(_), -1), _, -1e9), dim=1)",
    "gram": "transpose(_ * unsqueeze(is_step(_), -1), 1, 2) @ _",
    "count": "sum(is_step(_), dim=1, keepdim=True) * sum(words[:, :1], dim=1)",
    "cumsum": "cumsum(_, dim=1)",
    "one later": "roll(_, 0, 1) + mean(_, dim=-1, keepdim=True)",
}
# A Linear moves the padding away from zero, which some reductions would not see.
MOVED: list[Any] = [*EMBED, {"Linear": 4}]


@pytest.mark.parametrize("name", OVER_TIME)
def test_a_formula_over_time_is_refused_and_says_how_to_mask(name: str) -> None:
    torch.manual_seed(0)  # a product of 20 numbers that happen to be small is 0 with padding and without
    problems = Problems()
    tail = [] if name in (*REDUCING_FUNCTIONS, "var", "std", "norm", "gram") else [{"Formula": "amax(_, dim=1)"}]
    assert build_layers([*MOVED, {"Formula": OVER_TIME[name]}, *tail], text(20), problems) is None
    (problem,) = problems.found
    assert (problem.code, "is_step" in problem.fix) == (Code.COUNTS_PADDING, True)


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_formula_leaves_padding_out(name: str) -> None:
    assert_padding_does_not_count([*MOVED, {"Formula": MASKED[name]}])
    assert_padding_does_not_count([*MOVED, {"Formula": MASKED[name]}], training=True)


def test_is_step_is_the_mask_of_the_real_steps() -> None:
    network = build_valid_layers([*EMBED, {"Formula": "is_step(_) * 1.0"}], text(20))
    batch = make_padded(20)
    assert torch.equal(network.module(batch, LENGTHS), make_step_mask(LENGTHS, 20).float())
    assert network.module(batch).all()  # without lengths every step is real
    signal = build_valid_layers([*FIRST, {"Formula": "_ * unsqueeze(is_step(_), 1)"}], text(20)).module(batch, LENGTHS)
    assert (signal.transpose(1, 2)[~make_step_mask(LENGTHS, 20)] == 0).all()


@pytest.mark.parametrize(
    ("formula", "code"),
    [
        ("is_step(_ * 2)", Code.FORMULA_REFUSED),
        ("is_step(1)", Code.FORMULA_REFUSED),
        ("is_step()", Code.MISSING_VALUE),
        ("is_step(bias)", Code.WRONG_LAYOUT),
    ],
)
def test_is_step_takes_the_name_of_an_output_with_steps(formula: str, code: Code) -> None:
    problems = Problems()
    layers = [{"Parameter": {"shape": [1, 4], "name": "bias"}}, *EMBED, {"Formula": f"_ + {formula}"}]
    assert build_layers(layers, text(20), problems) is None
    assert code in {each.code for each in problems.found}


# ---- padding that the rules do not see -----------------------------------------------------------------------------

BIAS: dict[str, Any] = {"RelativePositionBias": {"num_heads": 2, "num_buckets": 4, "name": "bias"}}
WEIGHTS: dict[str, Any] = {"MultiheadAttention": {"num_heads": 2, "need_weights": True, "name": "attention"}}
NORM_OF_FOLDED: list[Any] = [{"TimeDistributed": [{"Linear": 4}, "BatchNorm1d"]}, "Mean"]
HIDDEN: dict[str, tuple[list[Any], int]] = {
    "steps as height": ([{"Formula": "unsqueeze(_, 1)"}, {"Conv2d": {"out_channels": 3, "kernel_size": [3, 4]}},
                         {"Formula": "amax(_, dim=2)"}, "Flatten"], 20),
    "a bias of distances": ([BIAS, "Mean"], 20),
    "attention weights": ([WEIGHTS, {"Mean": {"dim": [1, 2], "from": "attention.1"}}], 20),
    "groups of four steps": ([{"Reshape": [-1, 16]}, {"Formula": "mean(_, dim=1)"}], 40),
    "a norm of folded steps": (NORM_OF_FOLDED, 20),
    "a norm of images": ([{"Formula": "unsqueeze(_, 1)"}, "BatchNorm2d", {"Formula": "_[:, :, 0, 0]"}], 20),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_padding_that_counts_is_found_wherever_the_steps_are(name: str) -> None:
    layers, steps = HIDDEN[name]
    problems = Problems()
    assert build_layers([*EMBED, *layers], text(steps), problems) is None
    assert [each.code for each in problems.found] == [Code.COUNTS_PADDING]


def test_the_message_names_the_norm_of_folded_steps_and_leaves_its_statistics() -> None:
    problems = Problems()
    assert build_layers([*EMBED, *NORM_OF_FOLDED], text(20), problems) is None
    assert "BatchNorm1d" in problems.found[0].found
    norm = build_valid_layers([*FIRST, "BatchNorm1d", "Mean"], text(20)).module.get_submodule("2")
    assert torch.equal(norm.running_mean, torch.zeros(4)) and norm.training


@pytest.mark.parametrize("mask", [[BIAS], [BIAS, {"Formula": {"formula": "bias * 2", "name": "bias2"}}]], ids=str)
def test_a_mask_of_distances_still_allows_shorter_batches(mask: list[Any]) -> None:
    name = "bias2" if len(mask) > 1 else "bias"
    layers = [*EMBED, *mask, {"Attention": {"num_heads": 2, "from": ["words", "words", name]}}, "Mean"]
    assert build_valid_layers(layers, text(20)).allows_trimming
    assert_padding_does_not_count(layers)


@pytest.mark.parametrize(
    "layers",
    [
        [{"EmbeddingBag": {"embedding_dim": 4, "padding_idx": 3}}],
        [{"Formula": "_ + 1"}, {"EmbeddingBag": {"embedding_dim": 4, "num_embeddings": VOCABULARY + 1}}],
    ],
    ids=["another token is excluded", "padding is another token"],
)
def test_a_bag_of_padding_is_refused_and_the_fix_works(layers: list[Any]) -> None:
    problems = Problems()
    assert build_layers(layers, text(20), problems) is None
    assert [(each.code, each.fix) for each in problems.found] == [
        (Code.COUNTS_PADDING, "use Embedding and Mean instead")
    ]
    assert_padding_does_not_count([*layers[:-1], {"Embedding": layers[-1]["EmbeddingBag"]}, "Mean"])


# ---- losses of steps -----------------------------------------------------------------------------------------------


def train_on_steps(layers: list[Any], steps: int) -> Any:
    words = torch.zeros(3, steps, dtype=torch.int64)
    words[:, : PADDED[0]] = make_padded(PADDED[0])
    target = torch.zeros(3, steps)
    target[:, : PADDED[0]] = torch.randn(3, PADDED[0], generator=torch.Generator().manual_seed(1))
    arrays = {"text": words, "text_lengths": LENGTHS, "target": target}
    spec = {"model": {"layers": [*EMBED, *layers]}, "data": {"validation": 0, "test": 0}, "trainer": {"epochs": 2}}
    return dlspec.train({**spec, "seed": 0}, data=arrays).results


def test_a_number_for_each_step_needs_no_dimension_of_channels() -> None:
    wanted = train_on_steps([{"Linear": 1}], 10)
    for layers, steps in (
        ({"Formula": "squeeze(_, -1)"}, 40),
        ({"Mean": {"dim": 2}}, 20),
        ({"Select": {"index": 0, "dim": 2}}, 20),
    ):
        found = train_on_steps([{"Linear": 1}, layers], steps)
        for name in ("train/loss", "train/mean_absolute_error"):
            assert found[name] == pytest.approx(wanted[name], abs=1e-5)


@pytest.mark.parametrize("layer", [{"Mean": {"dim": 2}}, {"Formula": "unsqueeze(_, 1)"}], ids=str)
def test_a_mean_over_hidden_steps_is_refused(layer: dict[str, Any]) -> None:
    ((name, setting),) = layer.items()
    hidden = {name: {**(setting if isinstance(setting, dict) else {"formula": setting}), "name": "hidden"}}
    layers = [*EMBED, hidden, {"Mean": {"from": "words"}}, {"Linear": {"out_features": 2, "name": "y"}}]
    arrays = {"text": make_padded(20), "text_lengths": LENGTHS, "target": torch.randn(3, 2)}
    spec = {
        "model": {"layers": layers, "outputs": ["y", "hidden"]},
        "loss": {"fit": {"type": "MSELoss", "output": "y"}, "small": {"type": "Mean", "output": "hidden"}},
        "data": {"validation": 0, "test": 0},
    }
    with pytest.raises(dlspec.SpecError) as refused:
        dlspec.train(spec, data=arrays)
    assert [each.code for each in refused.value.problems] == [Code.LENGTHS_LOST]


# ---- the values of plain PyTorch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_learns_from_the_real_steps(momentum: float | None) -> None:
    """As PyTorch's on the real steps of all samples, one behind the other."""
    ours, plain = BatchNorm1d(4, momentum=momentum), nn.BatchNorm1d(4, momentum=momentum)
    for seed in range(3):
        torch.manual_seed(seed)
        batch = (torch.randn(3, 4, 20) * 3 + 1).requires_grad_()
        is_real = make_step_mask(LENGTHS, 20)
        found = ours(batch, LENGTHS).transpose(1, 2)[is_real]
        wanted = plain(batch.transpose(1, 2)[is_real])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        gradients = [torch.autograd.grad(each.square().mul(2).sigmoid().sum(), batch)[0] for each in (found, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.equal(ours.eval()(batch, LENGTHS), ours(batch))


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (GroupNorm(2, 4), nn.GroupNorm(2, 4)),
        (InstanceNorm1d(4, affine=True), nn.InstanceNorm1d(4, affine=True)),
        (InstanceNorm1d(4, track_running_stats=True), nn.InstanceNorm1d(4, track_running_stats=True)),
    ],
    ids=str,
)
def test_a_norm_of_each_sample_is_that_of_its_real_steps(ours: nn.Module, plain: nn.Module) -> None:
    batch = torch.randn(3, 4, 20, generator=torch.Generator().manual_seed(0)) + 2
    found = ours(batch, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(found[row : row + 1, :, :length], plain(batch[row : row + 1, :, :length]))


def test_adaptive_pooling_divides_the_real_steps_as_pytorch() -> None:
    batch = torch.randn(3, 4, 20, generator=torch.Generator().manual_seed(0))
    for ours, plain in (
        (AdaptiveAvgPool1d(6), nn.AdaptiveAvgPool1d(6)),
        (AdaptiveMaxPool1d(6, return_indices=True), nn.AdaptiveMaxPool1d(6, return_indices=True)),
    ):
        found = ours(batch, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            wanted = plain(batch[row : row + 1, :, :length])
            pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
            for mine, theirs in pairs:
                torch.testing.assert_close(mine[row : row + 1], theirs)


# ---- models, losses and lengths of other outputs -------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", ["text_cnn", "text_gru", "text_lstm", "text_transformer", "bert_base"])
def test_the_text_models_leave_padding_out(name: str, training: bool) -> None:
    spec = load_yaml_file(ROOT / "conf" / "model" / f"{name}.yaml").tree
    small = {"d": 8, "heads": 2, "depth": 2, "width": 8, "channels": 8, "hidden": 8, "feedforward": 16, "dropout": 0.0}
    spec["params"] = {key: small.get(key, each) for key, each in spec.get("params", {}).items()}
    outputs: list[Tensor] = []
    weights: dict[str, Tensor] = {}
    for steps in PADDED:
        words = torch.zeros(3, steps, dtype=torch.int64)
        words[:, : PADDED[0]] = make_padded(PADDED[0])
        arrays = {"text": words, "text_lengths": LENGTHS, "target": torch.tensor([0, 1, 1])}
        network = dlspec.build({"model": spec, "data": {"validation": 0, "test": 0}}, data=arrays)
        for key, each in network.state_dict().items():  # a table of positions has a row for each padded step
            first = weights.setdefault(key, each.clone())
            each[tuple(slice(size) for size in first.shape)] = first
        outputs.append(network.train(training)(words, LENGTHS))
    for each in outputs[1:]:
        torch.testing.assert_close(each, outputs[0], rtol=1e-5, atol=1e-5)


OWN_LENGTHS: list[tuple[list[Any], str, str, str]] = [
    (["Mean", {"Linear": {"out_features": 2, "lengths_of": "words"}}], "shape-mismatch",
     "Linear returns (2) features, which has no steps", "leave it out, or name an output with the same steps"),
    ([{"Conv1d": {"out_channels": 4, "kernel_size": 3, "lengths_of": "words"}}], "shape-mismatch",
     "Conv1d returns 18 steps, but 'words' has 20", "leave it out, or name an output with the same steps"),
    ([{"ReflectionPad1d": {"padding": [0, 1], "name": "mixed"}}, {"ZeroPad1d": {"padding": 0, "lengths_of": "mixed"}}],
     "lengths-lost", "the lengths of 'mixed' are unknown after ReflectionPad1d ('mixed')", "name an output above it"),
    ([{"Dropout": {"lengths_of": "word"}}], "unknown-output", "no output named 'word' above", "did you mean 'words'?"),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "code", "found", "fix"), OWN_LENGTHS, ids=[each[2] for each in OWN_LENGTHS])
def test_lengths_of_names_an_output_with_the_same_steps(layers: list[Any], code: str, found: str, fix: str) -> None:
    problems = Problems()
    assert build_layers([*FIRST, *layers], text(20), problems) is None
    assert [(each.code.value, each.found, each.fix) for each in problems.found] == [(code, found, fix)]


def test_naming_an_output_in_lengths_of_does_not_use_it() -> None:
    plain = build_valid_layers([*FIRST, CONV, "Mean"], text(20))
    named = build_valid_layers([*FIRST, {"Conv1d": {**CONV["Conv1d"], "lengths_of": "words"}}, "Mean"], text(20))
    assert (named.inputs, named.allows_trimming) == (plain.inputs, plain.allows_trimming)
    words = make_padded(20)
    named.module.load_state_dict(plain.module.state_dict())
    assert torch.equal(named.module(words, LENGTHS), plain.module(words, LENGTHS))


def test_padded_numbers_that_count_are_refused_too() -> None:
    series = TensorInfo((20, 4), "sequence", Lengths("x"))
    problems = Problems()
    assert build_layers([{"Formula": "mean(_, dim=1)"}], series, problems) is None
    assert [each.code for each in problems.found] == [Code.COUNTS_PADDING]


def test_the_zeros_of_an_embedding_may_be_added() -> None:
    zeros = {"Embedding": {"embedding_dim": 4, "padding_idx": 0}}
    assert build_valid_layers([zeros, {"Formula": "sum(_, dim=1)"}], text(20))
    problems = Problems()
    assert build_layers([zeros, {"Formula": "mean(_, dim=1)"}], text(20), problems) is None


@pytest.mark.parametrize("written", [{"nope": 0}, ["lengths"], {"lengths": "x"}, {"lengths": -1}])
def test_a_wrong_lengths_of_in_a_layer_of_ones_own_is_refused(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        lengths_of = written

        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
            return x

    monkeypatch.setitem(LAYERS._classes, "Own", Own)
    monkeypatch.setattr(LAYERS, "_described", dict(LAYERS._described))
    problems = Problems()
    assert build_layers([*EMBED, "Own"], text(20), problems) is None
    (problem,) = problems.found
    assert problem.code is Code.WRONG_VALUE and "lengths_of" in problem.found
