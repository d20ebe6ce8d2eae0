"""The order of training samples: balanced over classes, or in batches of similar length."""

from __future__ import annotations

import numpy as np
import torch

from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan, make_permutation
from dlspec.data.batches.sample_order import make_balanced_order, sort_into_buckets
from dlspec.data.dataset import Split

CPU = torch.device("cpu")
LENGTHS = torch.from_numpy(np.random.default_rng(0).integers(1, 40, 1000))


def make_split() -> Split:
    tokens = (torch.arange(40) < LENGTHS[:, None]).long()
    return Split({"text": tokens, "text_lengths": LENGTHS}, {"label": torch.arange(1000) % 2})


def make_loader(**options: object) -> BatchLoader:
    plan = BatchPlan(16, **options)  # type: ignore[arg-type]
    return BatchLoader(make_split(), ("text", "text_lengths"), ("label",), plan, CPU)


def test_classes_are_drawn_equally_often() -> None:
    classes = torch.tensor([0] * 90 + [1] * 7 + [2] * 3)
    order = make_balanced_order(classes, 0, 1)
    assert sorted(torch.bincount(classes[order]).tolist()) == [33, 33, 34]
    assert len(set(order[classes[order] == 0].tolist())) >= 33  # no sample twice before all others of its class
    assert torch.bincount(order, minlength=100)[90:97].min() >= 4


def test_an_order_depends_on_the_seed_and_the_epoch_alone() -> None:
    for options in ({"sampled_classes": make_split().target}, {"buckets": True}):
        orders = [
            make_loader(**options).shuffle_samples(seed, epoch) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
        ]
        assert torch.equal(orders[0], orders[1])
        assert not torch.equal(orders[0], orders[2]) and not torch.equal(orders[0], orders[3])


def test_buckets_have_every_sample_once_and_less_padding() -> None:
    loader = make_loader(buckets=True)
    assert sorted(loader.shuffle_samples(0, 1).tolist()) == list(range(1000))
    steps = [sum(inputs[0].shape[0] * inputs[0].shape[1] for inputs, _ in each.iterate_shuffled(0, 1))
             for each in (make_loader(), loader)]  # fmt: skip
    assert steps[1] < 0.7 * steps[0] and steps[1] >= int(LENGTHS.sum())
    sizes = [len(inputs[0]) for inputs, _ in loader.iterate_shuffled(0, 1)]
    assert sizes == [16] * 62 + [8]


def test_an_epoch_resumes_at_any_batch() -> None:
    loader = make_loader(buckets=True)
    whole = [inputs[0] for inputs, _ in loader.iterate_shuffled(0, 3)]
    rest = [inputs[0] for inputs, _ in loader.iterate_shuffled(0, 3, start=40)]
    assert len(rest) == 23 and all(torch.equal(one, two) for one, two in zip(whole[40:], rest, strict=True))


def test_the_last_smaller_batch_keeps_its_random_samples() -> None:
    order = make_permutation(1000, 0, 1)
    found = sort_into_buckets(order, LENGTHS, [16] * 62 + [8], 0, 1)
    assert torch.equal(found[-8:], order[-8:])
