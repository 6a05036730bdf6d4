from __future__ import annotations

import numpy as np

from trainer.mixup import mixed
from trainer.records import AuxiliaryHead, Batch

HEADS = (AuxiliaryHead("invasive", ("0", "1")), AuxiliaryHead("density", ("A", "B", "C")))


def batch(size: int = 6) -> Batch:
    rng = np.random.default_rng(0)
    labels = np.stack([np.arange(size) % 2, np.arange(size) % 2, np.arange(size) % 3], axis=1)
    labels = labels.astype(np.float32)
    labels[1, 1] = np.nan
    weights = np.ones(size, np.float32)
    weights[-1] = 0
    return Batch(rng.random((size, 4, 3, 1), dtype=np.float32), labels, weights, np.arange(size))


def test_it_is_a_function_of_its_key() -> None:
    one, same = (mixed(batch(), 0.4, (1, 2, 3), HEADS) for _ in range(2))
    assert one.images.tobytes() == same.images.tobytes()
    assert one.labels.tobytes() == same.labels.tobytes()
    for key in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert (mixed(batch(), 0.4, key, HEADS).images != one.images).any()


def test_images_and_labels_are_blended_with_one_share() -> None:
    before = batch()
    after = mixed(before, 1.0, (0, 0, 0), ())
    pairs = [
        (share, partner)
        for partner in range(5)
        if partner != 0
        for share in [
            np.mean((after.images[0] - before.images[partner]) / (before.images[0] - before.images[partner]))
        ]
        if np.allclose(
            after.images[0], share * before.images[0] + (1 - share) * before.images[partner], atol=1e-5
        )
    ]
    share, partner = pairs[0] if pairs else (1.0, 0)
    wanted = share * before.labels[0, 0] + (1 - share) * before.labels[partner, 0]
    assert abs(after.labels[0, 0] - wanted) < 1e-4
    assert after.images.dtype == after.labels.dtype == np.float32


def test_fill_and_rows_of_no_weight_stay_out() -> None:
    before, after = batch(), mixed(batch(), 1.0, (0, 0, 0), HEADS)
    assert (after.images[-1] == before.images[-1]).all()
    assert (after.weights == before.weights).all()


def test_unknown_stays_unknown_and_classes_are_never_blended() -> None:
    after = mixed(batch(), 1.0, (0, 0, 1), HEADS)
    assert np.isnan(after.labels[1, 1])
    classes = after.labels[:5, 2]
    assert all(value in (0, 1, 2) for value in classes[~np.isnan(classes)])


def test_nothing_changes_without_it_or_with_one_row() -> None:
    same = batch()
    assert mixed(same, 0.0, (0, 0, 0), HEADS) is same
    alone = Batch(same.images, same.labels, np.eye(6, dtype=np.float32)[0], same.rows)
    assert mixed(alone, 1.0, (0, 0, 0), HEADS) is alone
