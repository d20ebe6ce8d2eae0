"""Attention against PyTorch's own: masks, padding, causality, grouped queries, positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dlspec.parts.layers.attention import Attention, RotaryEmbedding
from dlspec.parts.layers.positions import PositionalEmbedding, RelativePositionBias
from dlspec.parts.layers.transformer import MultiheadAttention, TransformerDecoderLayer, TransformerEncoderLayer
from helpers.layer_table import build_layer, channels_first, get_rule_refusal, make_batch, parameter, sequence

LENGTHS = torch.tensor([6, 1, 4, 3])
INF = float("inf")


def texts(channels: int = 8, steps: int = 6, seed: int = 1) -> Tensor:
    return make_batch(sequence(steps, channels), len(LENGTHS), seed)


def padded(x: Tensor, lengths: Tensor = LENGTHS) -> Tensor:
    """Numbers behind each sample that must not be seen."""
    x = x.clone()
    x[torch.arange(x.shape[1]) >= lengths.unsqueeze(1)] = 99
    return x


def attention(**settings: Any) -> Attention:
    torch.manual_seed(0)
    return Attention(8, **{"num_heads": 2, **settings}).eval()


def heads(value: Tensor, count: int) -> Tensor:
    return value.unflatten(-1, (count, -1)).transpose(1, 2)  # type: ignore[no-untyped-call,no-any-return]


# ---- what it computes ----------------------------------------------------------------------------------------------


def test_is_pytorchs_multihead_attention_with_the_same_weights() -> None:
    ours, plain = attention(), nn.MultiheadAttention(8, 2, batch_first=True).eval()
    plain.in_proj_weight.data = torch.cat([each.weight for each in (ours.q_proj, ours.k_proj, ours.v_proj)])
    plain.in_proj_bias.data = torch.cat([each.bias for each in (ours.q_proj, ours.k_proj, ours.v_proj)])
    plain.out_proj.load_state_dict(ours.out_proj.state_dict())
    x, is_padding = texts(), torch.arange(6) >= LENGTHS.unsqueeze(1)
    torch.testing.assert_close(ours(x), plain(x, x, x)[0])
    torch.testing.assert_close(ours(x, lengths=LENGTHS), plain(x, x, x, key_padding_mask=is_padding)[0])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_queries_are_those_of_pytorch(groups: int) -> None:
    layer = attention(num_heads=4, num_kv_heads=groups, head_dim=3, is_causal=True, bias=False)
    assert layer.k_proj.weight.shape == layer.v_proj.weight.shape == (groups * 3, 8)
    x = texts()
    q, k, v = heads(layer.q_proj(x), 4), heads(layer.k_proj(x), groups), heads(layer.v_proj(x), groups)
    k, v = k.repeat_interleave(4 // groups, dim=1), v.repeat_interleave(4 // groups, dim=1)
    wanted = scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(layer(x), layer.out_proj(wanted.transpose(1, 2).flatten(2)))


def test_attends_to_a_memory_of_another_size() -> None:
    layer = build_layer("Attention", {"num_heads": 2}, sequence(6, 8), sequence(5, 3)).module.eval()
    x, memory = texts(), texts(3, 5, seed=2)
    lengths = torch.tensor([5, 2, 1, 4])
    together = layer(x, memory, memory_lengths=lengths)
    for at, length in enumerate(lengths.tolist()):
        alone = layer(x[at : at + 1], memory[at : at + 1, :length])
        torch.testing.assert_close(together[at : at + 1], alone)


def test_a_parameter_may_ask() -> None:
    layer = build_layer("Attention", {"num_heads": 2}, parameter(3, 8), sequence(6, 8))
    assert layer.output.shape == (3, 8)
    query, x = torch.randn(3, 8), texts()
    torch.testing.assert_close(layer(query, x), layer(query.expand(4, 3, 8), x))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("rotary", [False, True, 500.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_padding_changes_nothing(is_causal: bool, rotary: bool | float, with_bias: bool) -> None:
    layer, x = attention(is_causal=is_causal, rotary=rotary), texts()
    bias = torch.randn(2, 6, 6).expand(4, 2, 6, 6) if with_bias else None
    arguments = (None, bias) if bias is not None else ()
    together = layer(padded(x), *arguments, lengths=LENGTHS)
    for at, length in enumerate(LENGTHS.tolist()):
        own = (None, bias[at : at + 1, :, :length, :length]) if bias is not None else ()
        torch.testing.assert_close(together[at : at + 1, :length], layer(x[at : at + 1, :length], *own))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_causal_one_does_not_see_what_comes_later(with_bias: bool, lengths: Tensor | None) -> None:
    layer, x = attention(is_causal=True), texts()
    arguments = (None, torch.randn(2, 6, 6).expand(4, 2, 6, 6)) if with_bias else ()
    changed = x.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(
        layer(x, *arguments, lengths=lengths)[:, :3], layer(changed, *arguments, lengths=lengths)[:, :3]
    )
    assert not torch.allclose(layer(x, *arguments)[:, 3:], layer(changed, *arguments)[:, 3:])


MASKS: list[tuple[Any, Tensor]] = [
    (channels_first(6, 6), torch.rand(4, 6, 6) > 0.3),
    (channels_first(2, 6, 6), torch.rand(4, 2, 6, 6) > 0.3),
    (channels_first(1, 6, 6), torch.randn(4, 1, 6, 6)),
    (parameter(6, 6), torch.randn(6, 6)),
    (parameter(2, 6, 6), torch.randn(2, 6, 6)),
]


@pytest.mark.parametrize(("value", "mask"), MASKS, ids=[str(each[0]) for each in MASKS])
def test_a_mask_is_added_or_hides(value: Any, mask: Tensor) -> None:
    if mask.dtype == torch.bool:
        mask = mask | torch.eye(6, dtype=torch.bool)  # something must be seen
    layer = build_layer("Attention", {"num_heads": 2}, sequence(6, 8), sequence(6, 8), value).module.eval()
    assert isinstance(layer, Attention)
    x = texts()
    q, k, v = (heads(each(x), 2) for each in (layer.q_proj, layer.k_proj, layer.v_proj))
    added = mask if mask.dtype != torch.bool else torch.zeros(mask.shape).masked_fill(~mask, -INF)
    added = added.unsqueeze(1) if added.dim() == 3 and len(added) == 4 else added
    wanted = ((q @ k.transpose(2, 3)) / 2 + added).softmax(-1) @ v
    torch.testing.assert_close(layer(x, x, mask), layer.out_proj(wanted.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_of_one_row_meets_causality_and_padding(dtype: torch.dtype) -> None:
    layer, x = attention(is_causal=True).to(dtype), texts().to(dtype)
    row = torch.zeros(4, 1, 1, 6)
    row[:, :, :, 2] = -INF
    seen = torch.ones(6, 6, dtype=torch.bool).tril() & (torch.arange(6) != 2)
    wanted = layer(x, x, seen.expand(4, 1, 6, 6))
    torch.testing.assert_close(layer(x, x, row, memory_lengths=torch.full((4,), 6)), wanted)


def test_drops_in_training_alone() -> None:
    layer, x = attention(dropout=0.5), texts()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.allclose(layer(x), layer(x))


# ---- positions -----------------------------------------------------------------------------------------------------


def test_rotary_scores_depend_on_distances_alone() -> None:
    rotary = RotaryEmbedding(8)
    q, k = torch.randn(8), torch.randn(8)
    scores = rotary(q.expand(10, 8)) @ rotary(k.expand(10, 8)).T
    for distance in range(-9, 10):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert scores[0].unique().numel() == 10


def test_rotary_halves_are_the_same_turns_of_other_pairs() -> None:
    x, order = torch.randn(5, 8), [0, 2, 4, 6, 1, 3, 5, 7]
    torch.testing.assert_close(RotaryEmbedding(8, halves=True)(x[:, order]), RotaryEmbedding(8)(x)[:, order])


def test_rotary_turns_by_the_papers_angles() -> None:
    """The first pair by one radian a step, the second by 1/100 with a base of 10000."""
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).expand(3, 4)
    step = torch.arange(3.0)
    slow = step / 100
    wanted = torch.stack([step.cos(), step.sin(), -slow.sin(), slow.cos()], dim=1)
    torch.testing.assert_close(RotaryEmbedding(4)(x), wanted)


def test_sines_are_those_of_the_paper() -> None:
    layer = PositionalEmbedding(50, 6, "sinusoidal")
    assert not layer.state_dict()
    given = layer(torch.zeros(1, 40, 6))[0]
    torch.testing.assert_close(given[7, 0], torch.tensor(7.0).sin())
    torch.testing.assert_close(given[7, 5], torch.tensor(7 / 10000 ** (4 / 6)).cos())
    assert PositionalEmbedding(5, 3, "sinusoidal").weight.shape == (5, 3)


def test_more_steps_than_positions_are_an_error() -> None:
    layer = PositionalEmbedding(5, 4)
    assert layer(torch.zeros(2, 3, 4)).shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"^the input has 6 steps, but there are only 5 positions$"):
        layer(torch.zeros(2, 6, 4))


def t5_bucket(distance: int, bidirectional: bool, count: int = 32, furthest: int = 128) -> int:
    """As T5's own code has it, for one distance (key minus query)."""
    import math

    bucket = 0
    if bidirectional:
        count //= 2
        bucket = count if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = -min(distance, 0)
    near = count // 2
    if distance < near:
        return bucket + distance
    far = near + int(math.log(distance / near) / math.log(furthest / near) * (count - near))
    return bucket + min(far, count - 1)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_distances_share_the_buckets_of_t5(bidirectional: bool) -> None:
    layer = RelativePositionBias(3, bidirectional=bidirectional)
    given = layer(torch.zeros(2, 150, 1))
    assert given.shape == (2, 3, 150, 150)
    for query, key in [(0, 0), (0, 1), (1, 0), (9, 2), (2, 20), (149, 0), (0, 149), (100, 73), (60, 90)]:
        wanted = layer.weight[t5_bucket(key - query, bidirectional)]
        assert torch.equal(given[0, :, query, key], wanted) and torch.equal(given[1, :, query, key], wanted)


def test_a_bias_feeds_attention() -> None:
    bias = build_layer("RelativePositionBias", {"num_heads": 2}, sequence(6, 8))
    layer = build_layer("Attention", {"num_heads": 2, "is_causal": True}, sequence(6, 8), sequence(6, 8), bias.output)
    x = texts()
    layer(x, x, bias(x), lengths=LENGTHS, memory_lengths=LENGTHS).sum().backward()
    weight = next(bias.module.parameters())
    assert weight.grad is not None and weight.grad.abs().sum() > 0


# ---- PyTorch's own layers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_pytorchs_attention_sees_no_padding(is_causal: bool, training: bool) -> None:
    torch.manual_seed(0)
    layer, x = MultiheadAttention(8, 2, is_causal=is_causal).train(training), texts()
    with torch.set_grad_enabled(training):  # without gradients PyTorch takes a fused kernel
        together = layer(padded(x), lengths=LENGTHS)
        for at, length in enumerate(LENGTHS.tolist()):
            torch.testing.assert_close(together[at : at + 1, :length], layer(x[at : at + 1, :length]))


def test_pytorchs_attention_to_a_key_takes_it_for_the_value_and_gives_weights() -> None:
    torch.manual_seed(0)
    layer = MultiheadAttention(8, 2, kdim=3, vdim=3, need_weights=True).eval()
    x, memory, lengths = texts(), texts(3, 5), torch.tensor([5, 2, 1, 4])
    output, weights = layer(x, padded(memory, lengths), key_lengths=lengths)
    wanted = layer(x, memory, memory, key_lengths=lengths)[0]
    torch.testing.assert_close(output, wanted)
    assert weights.shape == (4, 6, 5)
    assert (weights[1, :, 2:] == 0).all() and torch.allclose(weights.sum(-1), torch.ones(4, 6))


@pytest.mark.parametrize("training", [False, True])
def test_a_causal_encoder_layer_sees_neither_the_future_nor_padding(training: bool) -> None:
    torch.manual_seed(0)
    layer = TransformerEncoderLayer(8, 2, 16, dropout=0.0, is_causal=True).train(training)
    plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    plain.load_state_dict(layer.state_dict())
    x = texts()
    with torch.set_grad_enabled(training):
        wanted = plain(x, nn.Transformer.generate_square_subsequent_mask(6), is_causal=True)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)
        inside = torch.arange(6) < LENGTHS.unsqueeze(1)
        torch.testing.assert_close(layer(padded(x), LENGTHS)[inside], wanted[inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tgt_is_causal", [False, True])
def test_a_decoder_layer_sees_padding_of_neither_input(tgt_is_causal: bool) -> None:
    torch.manual_seed(0)
    layer = TransformerDecoderLayer(8, 2, 16, dropout=0.0, tgt_is_causal=tgt_is_causal)
    x, memory, others = texts(), texts(steps=5, seed=2), torch.tensor([5, 2, 1, 4])
    together = layer(padded(x), padded(memory, others), lengths=LENGTHS, memory_lengths=others)
    for at, (length, other) in enumerate(zip(LENGTHS.tolist(), others.tolist(), strict=True)):
        alone = layer(x[at : at + 1, :length], memory[at : at + 1, :other])
        torch.testing.assert_close(together[at : at + 1, :length], alone, rtol=1e-4, atol=1e-5)


# ---- what is refused -----------------------------------------------------------------------------------------------

STEPS = "attention expects a sequence (T, C), got "
REFUSED: list[tuple[str, dict[str, Any], tuple[Any, ...], str, str]] = [
    ("Attention", {"num_heads": 3}, (sequence(6, 8),), "8 channels are not divisible by 3 heads",
     "use another num_heads, or set head_dim"),
    ("Attention", {"num_heads": 4, "num_kv_heads": 3}, (sequence(6, 8),),
     "num_heads (4) is not divisible by num_kv_heads (3)",
     "use a num_kv_heads that divides num_heads"),
    ("Attention", {"num_heads": 8, "rotary": True}, (sequence(6, 8),),
     "rotary requires an even head_dim, got 1", "set an even head_dim"),
    ("Attention", {"num_heads": 2}, (sequence(6, 8), channels_first(8, 6)), f"{STEPS}(8, 6) channels-first",
     "use a sequence of shape (T, C)"),
    ("Attention", {"num_heads": 2}, (sequence(6, 2, 4),), f"{STEPS}(6, 2, 4) sequence",
     "reshape it to (T, C)"),
    ("Attention", {"num_heads": 2}, (parameter(6, 8),),
     "the memory must be computed from the data, got a Parameter", "use the Parameter as the query"),
    ("Attention", {"num_heads": 2, "is_causal": True}, (sequence(6, 8), sequence(5, 8)),
     "is_causal needs as many queries as keys, got 6 and 5", "remove is_causal: it is for self-attention"),
    ("Attention", {"num_heads": 2}, (sequence(6, 8), sequence(5, 8), channels_first(3, 6, 5)),
     "the mask is (3, 6, 5) channels-first, but the scores of 2 heads are (2, 6, 5)",
     "use a mask of shape (6, 5) or (2, 6, 5), such as RelativePositionBias"),
    ("MultiheadAttention", {"num_heads": 3}, (sequence(6, 8),), "8 channels are not divisible by 3 heads",
     "use another num_heads"),
    ("MultiheadAttention", {"num_heads": 2}, (sequence(6, 8), sequence(5, 8), sequence(4, 8)),
     "got 5 keys and 4 values",
     "use as many values as keys"),
    ("MultiheadAttention", {"num_heads": 2, "is_causal": True}, (sequence(6, 8), sequence(5, 8)),
     "is_causal needs as many queries as keys, got 6 and 5", "remove is_causal: it is for self-attention"),
    ("TransformerEncoderLayer", {"nhead": 3}, (sequence(6, 8),), "8 channels are not divisible by 3 heads",
     "use another nhead"),
    ("TransformerDecoderLayer", {"nhead": 2}, (sequence(6, 8), sequence(6, 4)),
     "(6, 8) sequence and (6, 4) sequence have different numbers of channels", "put a 'Linear: 8' after the second"),
    ("TransformerDecoderLayer", {"nhead": 2}, (sequence(6, 8), parameter(6, 8)),
     "the last input must be computed from the data, got a Parameter", "use the Parameter as the query"),
    ("PositionalEmbedding", {"num_embeddings": 4}, (sequence(6, 8),), "num_embeddings is 4, but the input has 6 steps",
     "leave it out: it is inferred (6)"),
    ("RelativePositionBias", {"num_heads": 2, "num_buckets": 2}, (sequence(6, 8),),
     "num_buckets is 2, which is too few",
     "use 4 or more: near and far distances need a bucket each"),
    ("RelativePositionBias", {"num_heads": 2, "max_distance": 8}, (sequence(6, 8),),
     "max_distance is 8, but the first 8 distances already have a bucket each", "use 9 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "given", "found", "fix"), REFUSED, ids=[each[3][:40] for each in REFUSED])
def test_what_does_not_fit_is_refused(
    name: str, settings: dict[str, Any], given: tuple[Any, ...], found: str, fix: str
) -> None:
    assert get_rule_refusal(name, settings, *given) == (found, fix)
