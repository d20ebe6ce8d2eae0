"""Batches, their trimming, and scores that are fed in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan, choose_evaluation_batch_size, compute_batch_sizes
from dlspec.data.batches.sequence_lengths import PaddingTrim
from dlspec.data.dataset import Dataset, Field, Split
from dlspec.layouts import LengthChange, Lengths
from dlspec.training.evaluation import scores
from helpers.toy_training import Accuracy, CrossEntropy, make_dataset, make_text_split, make_trainer

CPU = torch.device("cpu")


def test_sizes() -> None:
    assert compute_batch_sizes(70, 32) == [32, 32, 6]
    assert compute_batch_sizes(64, 32) == [32, 32]
    assert compute_batch_sizes(65, 32, min_batch_size=2) == [32, 33]
    assert compute_batch_sizes(1, 32, min_batch_size=2) == [1]
    assert compute_batch_sizes(0, 32) == []


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_end_at_their_longest_sample(shuffle: bool) -> None:
    split = make_text_split()
    batches = BatchLoader(split, ("text", "extra", "text_lengths"), ("label",), BatchPlan(2), CPU)
    seen: list[int] = []
    for (text, extra, lengths), (target,) in batches.iterate_shuffled(0, 1) if shuffle else batches.iterate_in_order():
        rows = extra[:, 0].long()
        longest = max(int(lengths.max()), 1)
        assert torch.equal(lengths, split.tensors["text_lengths"][rows])
        assert torch.equal(text, split.tensors["text"][rows, :longest])
        assert torch.equal(target, split.targets["label"][rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(9))
    assert (seen == list(range(9))) is not shuffle


WINDOW = LengthChange.from_window(2, stride=2)


@pytest.mark.parametrize("shuffle", [True, False])
def test_targets_end_where_the_output_does(shuffle: bool) -> None:
    split = make_text_split()
    pairs = {"tags": PaddingTrim(Lengths("text"), 1), "halves": PaddingTrim(Lengths("text", (WINDOW,)), 2)}
    halves = torch.arange(9 * 2 * 4).reshape(9, 2, 4)
    split = Split(split.tensors, {**split.targets, "halves": halves})
    batches = BatchLoader(
        split, ("text", "text_lengths"), ("tags", "halves", "text_lengths"), BatchPlan(3, trims=pairs), CPU
    )
    for (text, lengths), (tags, half, again) in (
        batches.iterate_shuffled(0, 1) if shuffle else batches.iterate_in_order()
    ):
        rows = text[:, 0] - 1  # the only empty text stands at row 4
        rows = torch.where(rows < 0, 4, rows)
        assert torch.equal(lengths, again)
        assert torch.equal(tags, split.targets["tags"][rows, : text.shape[1]])
        assert torch.equal(half, halves[rows][:, :, : (text.shape[1] - 2) // 2 + 1])


def test_targets_stay_whole_where_nothing_is_cut() -> None:
    trims = {"tags": PaddingTrim(Lengths("text"), 1)}
    for inputs, trim in ((("text",), True), (("text", "text_lengths"), False)):
        batches = BatchLoader(make_text_split(), inputs, ("tags",), BatchPlan(2, trim=trim, trims=trims), CPU)
        assert {tags.shape[1] for _, (tags,) in batches.iterate_shuffled(0, 1)} == {8}


def test_a_target_can_be_an_input_moved_by_one_and_a_field_a_target() -> None:
    split = make_text_split()
    batches = BatchLoader(split, ("tags", "text"), ("tags", "text"), BatchPlan(9), CPU)
    (((moved, text), (tags, same)),) = batches.iterate_in_order()
    assert torch.equal(moved[:, 1:], tags[:, :-1]) and not moved[:, 0].any()
    assert torch.equal(text, same)


def test_batches_keep_the_steps_that_a_window_needs() -> None:
    trims = {"tags": PaddingTrim(Lengths("text", (LengthChange.from_window(2),)), 1)}
    plan = BatchPlan(2, trims=trims, fewest_steps={"text": 5})
    batches = BatchLoader(make_text_split(), ("text", "text_lengths"), ("tags",), plan, CPU)
    shapes = [(inputs[0].shape[1], targets[0].shape[1]) for inputs, targets in batches.iterate_in_order()]
    lengths = [int(inputs[1].max()) for inputs, _ in batches.iterate_in_order()]
    assert min(lengths) < 5 and shapes == [(max(each, 5), max(each, 5) - 1) for each in lengths]


def test_batches_are_whole_where_the_network_does_not_take_lengths_or_trimming_is_off() -> None:
    for batches in (
        BatchLoader(make_text_split(), ("text",), ("label",), BatchPlan(2), CPU),
        BatchLoader(make_text_split(), ("text", "text_lengths"), ("label",), BatchPlan(2, trim=False), CPU),
    ):
        assert {inputs[0].shape[1] for inputs, _ in batches.iterate_shuffled(0, 1)} == {8}


def test_an_epoch_may_be_entered_in_its_middle() -> None:
    batches = BatchLoader(make_text_split(), ("text", "text_lengths"), ("label",), BatchPlan(2), CPU)
    whole, part = list(batches.iterate_shuffled(4, 2)), list(batches.iterate_shuffled(4, 2, start=2))
    for (expected, _), (found, _) in zip(whole[2:], part, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_limit_and_the_chosen_evaluation_batch() -> None:
    batches = BatchLoader(make_text_split(), ("text",), ("label",), BatchPlan(2, limit=3), CPU)
    assert (len(batches), batches.samples, len(list(batches.iterate_in_order()))) == (3, 6, 3)
    assert len({row for _, (target,) in batches.iterate_shuffled(0, 1) for row in target.tolist()}) > 1
    assert choose_evaluation_batch_size(make_text_split(), ("text",), 32, CPU) == 256
    assert choose_evaluation_batch_size(make_text_split(), ("text",), 512, CPU) == 512
    large = Split({"image": torch.zeros(1, 3, 512, 512)})
    assert choose_evaluation_batch_size(large, ("image",), 1, CPU) == 1
    vocabulary = 50_000 * 8  # numbers that a language model gives for a text
    assert choose_evaluation_batch_size(make_text_split(), ("text",), 32, CPU, vocabulary) == 167
    assert choose_evaluation_batch_size(make_text_split(), ("text",), 200, CPU, vocabulary) == 200


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
    data = Dataset(
        "texts",
        (Field("text", (8,), "tokens", 10, True),),
        make_dataset().targets,
        make_text_split(),
        make_text_split(),
        make_text_split(),
    )
    results, seen = [], []
    for trim in (True, False):
        torch.manual_seed(0)
        net = MeanOfTokens()
        settings = {"batch_size": 2, "eval_batch_size": 2}
        results.append(
            make_trainer(net, data, inputs=("text", "text_lengths"), trim=trim, settings=settings).run().test
        )
        seen.append(set(net.seen))
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert seen[1] == {8}
    assert max(seen[0]) == 7 and len(seen[0]) > 1


def _scores(batches: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, float], int]:
    metric = Accuracy()
    gathered = scores.Scores(CrossEntropy(), [{"accuracy": metric}])
    for output, target in batches:
        gathered.add(output, nn.functional.cross_entropy(output, target), (target,), len(target))
    return gathered.results(), metric.updates


@pytest.mark.parametrize("limit", ["MAX_BUFFERED_ROWS", "MAX_BUFFERED_NUMBERS", "MAX_BUFFERED_STEPS"])
def test_metrics_are_fed_in_pieces_and_come_out_the_same(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [5, 5, 5, 5, 5, 5, 2]
    batches = [(torch.randn(size, 3), torch.randint(0, 3, (size,))) for size in sizes]
    whole, once = _scores(batches)
    monkeypatch.setattr(
        scores, limit, {"MAX_BUFFERED_ROWS": 10, "MAX_BUFFERED_NUMBERS": 30, "MAX_BUFFERED_STEPS": 2}[limit]
    )
    pieces, often = _scores(batches)
    assert (once, often) == (1, 4)
    assert pieces == whole
    losses = [nn.functional.cross_entropy(*batch).item() * len(batch[1]) for batch in batches]
    assert whole["loss"] == pytest.approx(sum(losses) / 32)


class EachStep(CrossEntropy):
    """Of outputs (N, K, T) metrics see rows."""

    def make_metric_pairs(self, output: Tensor, targets: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        return [(output.softmax(1).movedim(1, 2).flatten(0, 1), targets[0].flatten())]


def test_outputs_of_different_lengths_are_fed_at_once_too() -> None:
    batches = [(torch.randn(2, 3, length), torch.randint(0, 3, (2, length))) for length in (4, 4, 2)]
    metric = Accuracy()
    gathered = scores.Scores(EachStep(), [{"accuracy": metric}])
    for output, target in batches:
        gathered.add(output, nn.functional.cross_entropy(output, target), (target,), 2)
    right = torch.cat([(output.argmax(1) == target).flatten() for output, target in batches])
    assert gathered.results()["accuracy"] == pytest.approx(right.float().mean().item())
    assert metric.updates == 1


def test_reading_the_running_loss_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "MAX_BUFFERED_STEPS", 2)
    gathered = scores.Scores(CrossEntropy(), [])
    assert gathered.running_loss() != gathered.running_loss(), "nan before the first step"
    read = []
    for loss in (1.0, 2.0, 6.0):
        gathered.add(torch.zeros(1, 3), torch.tensor(loss), (torch.zeros(1),), 1)
        read.append(gathered.running_loss())
    assert read == [1.0, 1.5, 6.0]
    assert gathered.results() == {"loss": 3.0}
    assert gathered.find_non_finite_step() is None


class TwoTerms(CrossEntropy):
    """Two terms, one of which is judged: [sum, class, size]."""

    target_names = ("label", "size")
    term_names = ("kind", "size")

    def forward(self, output: dict[str, Tensor], targets: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        kind = nn.functional.cross_entropy(output["kind"], targets[0])
        size = nn.functional.mse_loss(output["size"][:, 0], targets[1])
        return torch.stack([kind + 2 * size, kind.detach(), size.detach()])

    def make_metric_pairs(self, output: dict[str, Tensor], targets: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:  # type: ignore[override]
        return [(output["kind"].softmax(1), targets[0]), (output["kind"].softmax(1), 1 - targets[0])]


@pytest.mark.parametrize("lengths", [(4, 4, 4), (4, 4, 3)], ids=["joined", "apart"])
def test_each_term_and_each_targets_metrics_are_told(lengths: tuple[int, ...]) -> None:
    metrics = [{"kind_accuracy": Accuracy()}, {"other_accuracy": Accuracy()}]
    gathered = scores.Scores(TwoTerms(), metrics)
    assert gathered.names == ("loss", "loss_kind", "loss_size", "kind_accuracy", "other_accuracy")
    losses, rows, right = [], (3, 3, 2), []
    for size, length in zip(rows, lengths, strict=True):
        output = {"kind": torch.randn(size, 2), "size": torch.randn(size, 1), "text": torch.randn(size, length)}
        targets = (torch.randint(0, 2, (size,)), torch.randn(size))
        losses.append(TwoTerms()(output, targets))
        right.append(output["kind"].argmax(1) == targets[0])
        gathered.add(output, losses[-1], targets, size)
    assert gathered.running_loss() == pytest.approx(float(torch.stack(losses)[:, 0].mean()))
    results = gathered.results()
    wanted = (torch.stack(losses) * torch.tensor(rows)[:, None]).sum(0) / 8
    assert [results[name] for name in ("loss", "loss_kind", "loss_size")] == pytest.approx(wanted.tolist())
    accuracy = torch.cat(right).float().mean().item()
    assert (results["kind_accuracy"], results["other_accuracy"]) == pytest.approx((accuracy, 1 - accuracy))
    assert {each.updates for group in metrics for each in group.values()} == {1}


def test_the_first_bad_step_is_that_of_the_sum() -> None:
    gathered = scores.Scores(TwoTerms(), [])
    for loss in ([1.0, 1.0, 0.0], [float("nan"), 1.0, float("nan")]):
        gathered.add({}, torch.tensor(loss), (), 1)
    assert gathered.find_non_finite_step() == 1


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.size = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(image), "size": self.size(image)}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.LBFGS])
def test_several_terms_train_together(optimizer: type[torch.optim.Optimizer]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(64, 4, generator=generator)
    part = Split({"image": image}, {"label": (image[:, 0] > 0).long(), "size": image[:, 1] + image[:, 2]})
    data = Dataset("two", make_dataset().fields, make_dataset().targets, part, part, part)
    options = {"criterion": TwoTerms(), "metrics": (), "optimizer_class": optimizer, "lr": 0.1}
    history = make_trainer(TwoHeads(), data, settings={"epochs": 15, "batch_size": 64}, **options)
    result = history.run().results
    assert result["train/loss"] == pytest.approx(result["train/loss_kind"] + 2 * result["train/loss_size"])
    assert result["train/loss_size"] < 0.5 and result["train/loss_kind"] < 0.4
    assert set(result) == {
        f"{phase}/{name}" for phase in ("train", "val") for name in ("loss", "loss_kind", "loss_size")
    } | {"lr"}
