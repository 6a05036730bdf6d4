"""An epoch's order is a pure function, shows every image, and never lacks a positive."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import UsageError
from tests.trainer.test_targets import row
from trainer.config import BagPooling, DataConfig
from trainer.sampler import Sampler, cycled, sampler
from trainer.targets import labels_of


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    size = draw(st.integers(2, 60))
    positive = np.zeros(size, np.bool_)
    positive[: draw(st.integers(1, size - 1))] = True
    config = DataConfig(
        batch_size=draw(st.integers(2, 17)),
        balance=draw(st.booleans()),
        positive_share=draw(st.floats(0, 1)),
        positive_share_end=draw(st.none() | st.floats(0, 1)),
    )
    examples = tuple(np.array([100 + index]) for index in draw(st.permutations(range(size))))
    return Sampler(examples, positive, config, draw(st.integers(0, 2**63)), draw(st.integers(1, 9)))


@given(samplers(), st.integers(0, 8))
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(order: Sampler, epoch: int) -> None:
    again = Sampler(order.examples, order.positive, order.config, order.seed, order.epochs)
    again.plan(epoch + 1)  # nothing is remembered
    np.testing.assert_array_equal(order.plan(epoch), again.plan(epoch))


@given(samplers(), st.integers(0, 8))
def test_balanced_batches_have_both_classes_and_the_share(order: Sampler, epoch: int) -> None:
    plan = order.plan(epoch)
    batch = order.config.batch_size
    assert plan.shape == (order.steps_per_epoch, batch)
    assert order.steps_per_epoch == -(-len(order.examples) // batch)
    if not order.config.balance:
        return
    ill = {int(order.examples[i][0]) for i in np.flatnonzero(order.positive)}
    counts = np.array([[int(one) in ill for one in step] for step in plan]).sum(axis=1)
    assert counts.min() >= 1
    assert counts.max() <= batch - 1
    wanted = order.share(epoch) * batch
    assert np.all(np.abs(counts - np.clip(wanted, 1, batch - 1)) < 1 + 1e-6)
    if 1 <= wanted <= batch - 1:
        assert abs(counts.sum() - wanted * len(counts)) < 1 + 1e-6


@given(samplers(), st.integers(0, 8))
def test_each_class_is_gone_through_evenly(order: Sampler, epoch: int) -> None:
    seen = Counter(order.plan(epoch).ravel().tolist())
    groups = [order.positive, ~order.positive] if order.config.balance else [order.positive | True]
    for group in groups:
        times = [seen[int(order.examples[index][0])] for index in np.flatnonzero(group)]
        assert max(times) - min(times) <= 1
    if not order.config.balance:
        assert min(seen.values()) >= 1
        assert len(seen) == len(order.examples)


def test_the_share_goes_from_first_to_last_epoch() -> None:
    config = DataConfig(batch_size=10, positive_share=0.5, positive_share_end=0.1)
    order = Sampler(tuple(np.arange(200).reshape(-1, 1)), np.arange(200) < 50, config, 0, epochs=5)
    assert [order.share(epoch) for epoch in range(6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    positives = [int((order.plan(epoch) < 50).sum()) for epoch in range(5)]
    assert positives == [100, 80, 60, 40, 20]


def test_epochs_and_seeds_have_other_orders() -> None:
    examples = tuple(np.arange(64).reshape(-1, 1))
    positive = np.arange(64) < 8
    plans = [
        Sampler(examples, positive, DataConfig(), seed, 3).plan(epoch) for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len({plan.tobytes() for plan in plans}) == 4


def test_chance_is_philox_as_published() -> None:
    """Random123's known answer for Philox4x64-10, counter and key 0; NumPy's counter starts at 1."""
    bits = np.random.Philox(counter=2**256 - 1, key=0)
    assert [hex(number) for number in bits.random_raw(4)] == [
        "0x16554d9eca36314c", "0xdb20fe9d672d0fdc", "0xd7e772cee186176b", "0x7e68b68aec7ba23b",
    ]  # fmt: skip


def test_orders_of_chance_are_even() -> None:
    """Each of four examples comes first in a quarter of 4,000 epochs, five standard deviations either way."""
    firsts = Counter(int(cycled(np.arange(4), 4, np.random.Philox(key=[3, n]))[0]) for n in range(4000))
    assert all(abs(firsts[n] - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75) for n in range(4))


def breasts() -> list[object]:
    return [
        row(f"p{patient}", side, view=view, cancer=int(patient < 2 and side == "L"))
        for patient in range(5)
        for side in "LR"
        for view in ("MLO", "CC", "LM", "AT")
    ]


def test_bags_take_as_many_views_as_they_hold_and_change_them() -> None:
    rows = breasts()
    config = DataConfig(batch_size=4, bags=BagPooling.MAX, bag_views=3)
    order = sampler(rows, labels_of(rows, config), np.arange(len(rows)), config, seed=1, epochs=2)  # type: ignore[arg-type]
    assert len(order.examples) == 10
    assert order.positive.sum() == 2
    plans = [order.plan(epoch) for epoch in range(6)]
    chosen: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for plan in plans:
        assert plan.shape == (3, 4, 3)
        for bag in plan.reshape(-1, 3):
            whole = next(one for one in order.examples if bag[0] in one)
            assert set(bag) <= set(whole)
            assert len(set(bag)) == 3
            chosen.setdefault(tuple(whole), set()).add(tuple(bag))
    assert all(len(sets) > 1 for sets in chosen.values())


def test_small_bags_are_filled_up_and_unknown_sides_stay_alone() -> None:
    rows = [row("p", "L", cancer=1), row("p", "R", cancer=0), row("p", "", cancer=0), row("q", "", cancer=0)]
    config = DataConfig(batch_size=2, bags=BagPooling.MAX, bag_views=2)
    order = sampler(rows, labels_of(rows, config), np.arange(4), config, seed=1, epochs=2)
    assert sorted(one.tolist() for one in order.examples) == [[0], [1], [2], [3]]
    assert (order.plan(0)[..., 1] == -1).all()


def test_balance_needs_two_of_both() -> None:
    rows = [row(cancer=1), row(cancer=0)]
    one = DataConfig(batch_size=1)
    with pytest.raises(UsageError, match="at least 2"):
        sampler(rows, labels_of(rows, one), np.arange(2), one, seed=0, epochs=1)
    with pytest.raises(UsageError, match="one class only"):
        sampler(rows, labels_of(rows, DataConfig()), np.arange(1), DataConfig(), seed=0, epochs=1)
