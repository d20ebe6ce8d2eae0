"""`generate`: tokens one after another, with kept steps and without, beside transformers and plain probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dlspec
from dlspec.errors import UserError
from dlspec.generation.sampling import GREEDY, GenerationOptions, TokenSampler
from dlspec.generation.token_context import ContextFactory
from dlspec.generation.token_loop import TokenLimits, search_beams
from dlspec.inference.text_generator import TextGenerator, cut_at_stops, make_token_network
from dlspec.network.random_state import preserve_random_state

TEXT = "the quick brown fox jumps over the lazy dog and runs away. " * 40
LENGTH = 24  # tokens in a sample
VOCABULARY = "${data.vocab_size}"
HEAD = [{"Linear": VOCABULARY}]
EMBEDDED = [{"Embedding": 16}]
CAUSAL_CONV = [{"ZeroPad1d": {"padding": [2, 0]}}, {"Conv1d": {"out_channels": 16, "kernel_size": 3}}]
# Networks whose layers keep what they need of the steps before.
KEPT: Mapping[str, list[Any]] = {
    "rotary, grouped": [
        *EMBEDDED,
        {"Attention": {"num_heads": 4, "num_kv_heads": 2, "is_causal": True, "rotary": True}},
        {"Residual": ["RMSNorm", {"Attention": {"num_heads": 4, "is_causal": True, "rotary": 100.0}}]},
        *HEAD,
    ],
    "learned positions": [
        *EMBEDDED,
        "PositionalEmbedding",
        {"Attention": {"num_heads": 2, "is_causal": True}},
        {"Attention": {"num_heads": 2, "is_causal": True}},
        *HEAD,
    ],
    "MultiheadAttention": [*EMBEDDED, {"MultiheadAttention": {"num_heads": 2, "is_causal": True}}, *HEAD],
    "encoder layers": [
        *EMBEDDED,
        {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 8, "is_causal": True}},
        {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 8, "is_causal": True, "norm_first": True}},
        *HEAD,
    ],
    "LSTM": [*EMBEDDED, {"LSTM": {"hidden_size": 8, "num_layers": 2}}, *HEAD],
    "GRU": [*EMBEDDED, {"GRU": 8}, *HEAD],
    "RNN": [*EMBEDDED, {"RNN": 8}, *HEAD],
    "causal convolutions": [*EMBEDDED, {"Permute": [0, 2, 1]}, *CAUSAL_CONV, "ReLU", *CAUSAL_CONV,
                            {"Permute": [0, 2, 1]}, *HEAD],
}  # fmt: skip
# Networks that have to compute the whole window again, with a part of the reason.
WHOLE: Mapping[str, tuple[list[Any], str]] = {
    "a running mean": ([{"Embedding": {"embedding_dim": 16, "name": "x"}},
                        {"Formula": "cumsum(x, 1) / 9"}, *HEAD], "differ"),
    "a mask": (
        [{"Embedding": {"embedding_dim": 16, "name": "x"}},
         {"RelativePositionBias": {"num_heads": 2, "bidirectional": False, "name": "bias"}},
         {"Attention": {"num_heads": 2, "is_causal": True, "from": ["x", "x", "bias"]}}, *HEAD],
        "layer",
    ),
}  # fmt: skip


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def train(model: Any, **sections: Any) -> dlspec.Predictor:
    """Train a step on the text, with large random weights, so that tokens differ."""
    data = sections.pop("data", {"type": "text", "path": "text.txt", "length": LENGTH})
    trainer = {"max_steps": 2, "progress": "none", "curves": False, "pictures": False}
    spec = {"model": model, "data": data, "trainer": trainer, "optimizer": {"type": "Adam", "lr": 0.05}, **sections}
    result = dlspec.train(spec, folder="run")
    assert result.folder is not None
    predictor = dlspec.predictor(result.folder)
    shake(predictor)
    return predictor


def shake(predictor: dlspec.Predictor) -> None:
    """Change the weights at random, so that the most probable tokens differ."""
    with preserve_random_state(torch.device("cpu")), torch.no_grad():
        torch.manual_seed(0)
        for each in predictor.run.network.parameters():
            each.add_(torch.randn_like(each) * 0.5)


def generate_ids(generator: TextGenerator, prompt: str, options: GenerationOptions) -> list[int]:
    return list(generator.iterate_ids(generator.encode_prompt(prompt), options, generator.limit_tokens(options)))


def without_kept_steps(generator: TextGenerator) -> TextGenerator:
    return TextGenerator(
        generator.run, generator.network.target, generator.encode_row,
        is_written=generator.is_written, keep_steps=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_kept_steps_give_the_same_text(work: Path, name: str) -> None:
    generator = train({"layers": KEPT[name]}).text_generator
    assert generator.problem == ""
    options = GenerationOptions(temperature=3, max_length=2 * LENGTH + 5)  # beyond the window twice
    kept = generate_ids(generator, "the quick", options)
    assert kept == generate_ids(without_kept_steps(generator), "the quick", options) and len(set(kept)) > 1


def test_a_gpt_writes_the_same_200_tokens_with_and_without_kept_keys(work: Path) -> None:
    """The most probable tokens, beyond the window of 96 twice."""
    data = ["data=text", "data.path=text.txt", "data.length=96"]
    shape = [
        f"model.params.{name}={size}" for name, size in {"width": 32, "depth": 2, "heads": 4, "length": 96}.items()
    ]
    quick = ["trainer.max_steps=1", "trainer.progress=none", "trainer.pictures=false", "trainer.device=cpu"]
    result = dlspec.train(["model=gpt_small", *shape, *data, *quick], folder="run")
    assert result.folder is not None
    predictor = dlspec.predictor(result.folder)
    shake(predictor)
    generator, options = predictor.text_generator, GenerationOptions(temperature=0, max_length=200)
    kept = generate_ids(generator, "the quick", options)
    assert generator.problem == "" and len(kept) == 200 and len(set(kept)) > 5
    assert kept == generate_ids(without_kept_steps(generator), "the quick", options)


@pytest.mark.parametrize("name", WHOLE)
def test_other_networks_compute_the_window_again(work: Path, name: str) -> None:
    layers, reason = WHOLE[name]
    generator = train({"layers": layers}).text_generator
    assert reason in generator.problem
    assert len(generate_ids(generator, "the quick", GenerationOptions(max_length=3))) == 3


def test_steps_go_on_from_any_prompt(work: Path) -> None:
    """The probabilities after a prompt in one piece, in pieces, and of the whole network are equal."""
    predictor = train({"layers": KEPT["rotary, grouped"]})
    network = make_token_network(predictor.run, predictor.run.data.target)
    tokens = torch.randint(0, 20, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = predictor.run.network(tokens).softmax(-1)
    contexts = ContextFactory(network)
    for sizes in ([LENGTH], [1] * LENGTH, [7, 1, 9, LENGTH - 17]):
        context, found = contexts.make_context({}), []
        for piece in tokens.split(sizes, 1):
            found.append(context.extend(piece))
        ends = np.cumsum(sizes) - 1
        assert torch.allclose(torch.stack(found, 1), wanted[:, ends], atol=1e-5)
    context = contexts.make_context({})
    context.extend(tokens[:, :5])
    context.select(torch.tensor([2, 0, 2]))
    assert torch.allclose(context.extend(tokens[[2, 0, 2], 5:6]), wanted[[2, 0, 2], 5], atol=1e-5)


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_tokens_equal_those_of_transformers(work: Path, beams: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 256}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    with torch.no_grad():
        for each in theirs.parameters():
            each.add_(torch.randn_like(each) * 0.1)
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = None, 0
    theirs.save_pretrained("theirs")
    data = ["data=text", "data.path=text.txt", "data.unit=bytes", "data.length=64"]
    shape = [
        f"model.params.{name}={size}" for name, size in {"width": 32, "depth": 2, "heads": 4, "length": 64}.items()
    ]
    quick = ["optimizer.lr=0", "trainer.max_steps=1", "trainer.progress=none", "trainer.pictures=false"]
    result = dlspec.train(["experiment=gpt2_huggingface", "weights.path=theirs", *shape, *data, *quick], folder="run")
    assert result.folder is not None
    generator = dlspec.predictor(result.folder).text_generator
    ids = torch.tensor([list(b"the quick")])
    wanted = theirs.generate(ids, max_new_tokens=30, num_beams=beams, do_sample=False)[0, 9:].tolist()
    options = GenerationOptions(temperature=0 if beams == 1 else 1, beams=beams, max_length=30)
    assert generate_ids(generator, "the quick", options) == wanted


# ---- choosing a token ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, None, None), (0.5, None, None), (2.0, 3, None), (1.0, None, 0.6),
                                        (0.7, 4, 0.5), (1.0, 100, 1.0), (1.0, None, 1e-9)],
)  # fmt: skip
def test_tokens_are_drawn_from_the_probabilities_of_transformers(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits_process = pytest.importorskip("transformers.generation.logits_process")
    scores = torch.randn(1, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    warpers = [logits_process.TemperatureLogitsWarper(temperature)]
    warpers += [logits_process.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [logits_process.TopPLogitsWarper(top_p)] if top_p else []
    wanted = scores
    for warper in warpers:
        wanted = warper(None, wanted)
    sampler = TokenSampler(GenerationOptions(temperature, top_k, top_p), range(4_000))
    drawn = sampler.choose(scores.softmax(1).expand(4_000, -1))
    shares = torch.bincount(drawn, minlength=12) / 4_000
    assert (shares - wanted.softmax(1)[0]).abs().max() < 0.03  # 3.8 standard deviations of a share of 0.5
    assert not shares[wanted[0].isinf()].any()


def test_what_is_drawn_depends_on_the_seed_and_the_row_alone() -> None:
    probabilities = torch.full((1, 1_000), 0.001).expand(8, -1)
    options = GenerationOptions(seed=5)
    whole = TokenSampler(options, range(8)).choose(probabilities)
    parts = [TokenSampler(options, [row]).choose(probabilities[:1]) for row in range(8)]
    assert torch.equal(whole, torch.cat(parts)) and len(set(whole.tolist())) > 4
    assert not torch.equal(whole, TokenSampler(GenerationOptions(seed=6), range(8)).choose(probabilities))
    assert TokenSampler(GREEDY, [0]).choose(torch.tensor([[0.2, 0.5, 0.3]])).tolist() == [1]


class _Chain:
    """A context whose next token depends only on the last one: a Markov chain."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def extend(self, new: Tensor) -> Tensor:
        return self.table[new[:, -1]].clone()

    def select(self, rows: Tensor) -> None: ...


def test_beam_search_finds_the_most_probable_text() -> None:
    """With as many beams as there are texts, it is the best of all texts by mean log probability."""
    table = torch.rand(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table /= table.sum(1, keepdim=True)
    end, length = 3, 4
    texts: list[tuple[list[int], float]] = [([], 0.0)]
    finished = []
    for _ in range(length):
        texts = [([*tokens, token], score + table[tokens[-1] if tokens else 0, token].log().item())
                 for tokens, score in texts for token in range(4)]  # fmt: skip
        finished += [each for each in texts if each[0][-1] == end]
        texts = [each for each in texts if each[0][-1] != end]
    best = max(finished, key=lambda each: each[1] / len(each[0]))[0]
    found = search_beams(_Chain(table), torch.tensor([[0]]), 200, TokenLimits(length, end))  # type: ignore[arg-type]
    assert found.tolist() == best


def test_a_text_ends_before_a_stop_that_lies_across_pieces() -> None:
    assert "".join(cut_at_stops(iter(["one t", "wo th", "ree"]), ["two three"])) == "one "
    assert "".join(cut_at_stops(iter(["one", " two"]), ["three"])) == "one two"
    assert "".join(cut_at_stops(iter(["a", "b", "c"]), ["c", "b"])) == "a"
    assert list(cut_at_stops(iter(["a", "b"]), [])) == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_k": True}, {"top_p": 0}, {"top_p": 1.5},
        {"max_length": 0}, {"beams": 0}, {"stop": [""]}, {"temperature": 0, "top_k": 3}, {"beams": 2, "top_p": 0.5},
        {"beams": 2, "temperature": 0.5},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="|".join(wrong)):
        GenerationOptions(**wrong)
