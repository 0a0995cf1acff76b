"""Whole batches: every row once an epoch, in an order that can be resumed."""

from __future__ import annotations

from itertools import islice

import torch

from models.feed import Batches


def feed(seed: int = 0, shuffle: bool = True) -> Batches:
    matrix = torch.arange(20.0).reshape(10, 2)
    return Batches(matrix, torch.arange(10.0), torch.ones(10), size=4, seed=seed, shuffle=shuffle)


def targets(batches: object) -> list[float]:
    return [value for _, target, _ in batches for value in target.tolist()]  # type: ignore[attr-defined]


def test_an_epoch_has_every_row_once_with_its_own_target() -> None:
    batches = feed()
    assert len(batches) == 3
    for matrix, target, _ in feed():
        assert matrix[:, 0].tolist() == (target * 2).tolist()
    assert sorted(targets(batches)) == list(range(10))


def test_each_epoch_has_another_order_and_the_same_seed_the_same() -> None:
    batches = feed(seed=5)
    first, second = targets(batches), targets(batches)
    assert first != second
    again = feed(seed=5)
    assert [targets(again), targets(again)] == [first, second]


def test_an_epoch_left_after_its_last_batch_is_over() -> None:
    batches = feed()
    list(islice(batches, 3))
    assert len(targets(batches)) == 10


def test_a_feed_goes_on_with_the_batches_it_would_have_had() -> None:
    whole, broken = feed(seed=2), feed(seed=2)
    expected = targets(whole) + targets(whole)
    begun = targets(islice(broken, 2))
    resumed = feed(seed=2)
    resumed.load_state_dict(broken.state_dict())
    assert begun + targets(resumed) + targets(resumed) == expected


def test_without_shuffling_rows_come_in_order() -> None:
    assert targets(feed(shuffle=False)) == list(range(10))
