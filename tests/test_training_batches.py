"""Batches, their trimming, and scores that are fed in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from training_parts import Accuracy, CrossEntropy, dataset, trainer

from dlspec.data.dataset import Dataset, Field, Split
from dlspec.training import scores
from dlspec.training.batches import Batches, batch_sizes, chosen_batch_size

CPU = torch.device("cpu")
LENGTHS = [3, 1, 7, 2, 0, 5, 4, 2, 6]


def texts() -> Split:
    """Sample i holds the token i + 1 in its first LENGTHS[i] places of eight."""
    lengths = torch.tensor(LENGTHS)
    tokens = torch.arange(1, 10)[:, None] * (torch.arange(8)[None] < lengths[:, None])
    return Split({"text": tokens, "text_lengths": lengths, "extra": torch.arange(9.0)[:, None]}, torch.arange(9) % 3)


def test_sizes() -> None:
    assert batch_sizes(70, 32) == [32, 32, 6]
    assert batch_sizes(64, 32) == [32, 32]
    assert batch_sizes(65, 32, smallest=2) == [32, 33]
    assert batch_sizes(1, 32, smallest=2) == [1]
    assert batch_sizes(0, 32) == []


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_end_at_their_longest_sample(shuffle: bool) -> None:
    split = texts()
    batches = Batches(split, ("text", "extra", "text_lengths"), 2, CPU)
    seen: list[int] = []
    for (text, extra, lengths), target in batches.shuffled(0, 1) if shuffle else batches.in_order():
        rows = extra[:, 0].long()
        longest = max(int(lengths.max()), 1)
        assert torch.equal(lengths, split.tensors["text_lengths"][rows])
        assert torch.equal(text, split.tensors["text"][rows, :longest])
        assert torch.equal(target, split.target[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(9))
    assert (seen == list(range(9))) is not shuffle


def test_batches_are_whole_where_the_network_does_not_take_lengths_or_trimming_is_off() -> None:
    for batches in (
        Batches(texts(), ("text",), 2, CPU),
        Batches(texts(), ("text", "text_lengths"), 2, CPU, trim=False),
    ):
        assert {inputs[0].shape[1] for inputs, _ in batches.shuffled(0, 1)} == {8}


def test_an_epoch_may_be_entered_in_its_middle() -> None:
    batches = Batches(texts(), ("text", "text_lengths"), 2, CPU)
    whole, part = list(batches.shuffled(4, 2)), list(batches.shuffled(4, 2, start=2, stop=4))
    assert len(part) == 2
    for (expected, _), (found, _) in zip(whole[2:4], part, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_limit_and_the_chosen_evaluation_batch() -> None:
    batches = Batches(texts(), ("text",), 2, CPU, limit=3)
    assert (len(batches), batches.samples, len(list(batches.in_order()))) == (3, 6, 3)
    assert len({row for _, target in batches.shuffled(0, 1) for row in target.tolist()}) > 1
    assert chosen_batch_size(texts(), ("text",), 32, CPU) == 256
    assert chosen_batch_size(texts(), ("text",), 512, CPU) == 512
    large = Split({"image": torch.zeros(1, 3, 512, 512)}, torch.zeros(1))
    assert chosen_batch_size(large, ("image",), 1, CPU) == 1


class MeanOfTokens(nn.Module):
    """Takes lengths, so it sees trimmed batches; it writes down how long they were."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 4, padding_idx=0), nn.Linear(4, 3)
        self.seen: list[int] = []

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        self.seen.append(text.shape[1])
        output: Tensor = self.linear(self.embedding(text).sum(1) / lengths.clamp(min=1)[:, None])
        return output


def test_trimming_changes_no_result() -> None:
    data = Dataset("texts", (Field("text", (8,), "tokens", 10, True),), dataset().target, texts(), texts(), texts())
    results, seen = [], []
    for trim in (True, False):
        torch.manual_seed(0)
        net = MeanOfTokens()
        settings = {"batch_size": 2, "eval_batch_size": 2}
        results.append(trainer(net, data, inputs=("text", "text_lengths"), trim=trim, settings=settings).run().test)
        seen.append(set(net.seen))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert seen[1] == {8}
    assert max(seen[0]) == 7 and len(seen[0]) > 1


def _scores(batches: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, float], int]:
    metric = Accuracy()
    gathered = scores.Scores(CrossEntropy(), {"accuracy": metric})
    for output, target in batches:
        gathered.add(output, nn.functional.cross_entropy(output, target), target)
    return gathered.results(), metric.updates


@pytest.mark.parametrize("limit", ["MOST_ROWS", "MOST_NUMBERS", "MOST_STEPS"])
def test_metrics_are_fed_in_pieces_and_come_out_the_same(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [5, 5, 5, 5, 5, 5, 2]
    batches = [(torch.randn(size, 3), torch.randint(0, 3, (size,))) for size in sizes]
    whole, once = _scores(batches)
    monkeypatch.setattr(scores, limit, {"MOST_ROWS": 10, "MOST_NUMBERS": 30, "MOST_STEPS": 2}[limit])
    pieces, often = _scores(batches)
    assert (once, often) == (1, 4)
    assert pieces == whole
    losses = [nn.functional.cross_entropy(*batch).item() * len(batch[1]) for batch in batches]
    assert whole["loss"] == pytest.approx(sum(losses) / 32)


def test_outputs_of_different_lengths_are_fed_one_by_one() -> None:
    batches = [(torch.randn(2, 3, length), torch.randint(0, 3, (2, length))) for length in (4, 4, 2)]
    assert _scores(batches)[1] == 3


def test_reading_the_running_loss_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MOST_STEPS", 2)
    gathered = scores.Scores(CrossEntropy(), {})
    assert gathered.running_loss() != gathered.running_loss(), "nan before the first step"
    read = []
    for loss in (1.0, 2.0, 6.0):
        gathered.add(torch.zeros(1, 3), torch.tensor(loss), torch.zeros(1))
        read.append(gathered.running_loss())
    assert read == [1.0, 1.5, 6.0]
    assert gathered.results() == {"loss": 3.0}
    assert gathered.first_bad_step() is None
