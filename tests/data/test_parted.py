"""Clouds with parts: resampled with replacement, a function of seed, step and shape; the procedural ones."""

import numpy as np
import torch
from tiny import tiny_parts

from recon_fast.config import DataConfig
from recon_fast.data.batches.counter import Stream, integers, keys
from recon_fast.data.batches.labelled import Augmentation, PartedShapes
from recon_fast.data.open import prepare_shapes
from recon_fast.procedural import FAMILIES, PARTED, procedural_shapes
from recon_fast.tasks.partseg import check_parts

CPU = torch.device("cpu")
SHAPES = tiny_parts()


def parted(rows, num_points=200, seed=0, normalize=False):
    return PartedShapes(SHAPES, np.array(rows), num_points, normalize, CPU, seed)


def test_points_come_with_their_parts_whatever_the_size_of_the_cloud():
    some = parted([1, 4, 9])
    points, parts = some.tested(torch.tensor([2, 0]))
    assert points.shape == (2, 200, 3)
    assert parts.dtype == torch.int64
    for row, cloud, part in zip((9, 1), points, parts, strict=True):
        known = SHAPES.cloud(row)
        own = SHAPES.parts[SHAPES.offsets[row] : SHAPES.offsets[row + 1]]
        place = (cloud.numpy()[:, None] == known).all(2).argmax(1)
        np.testing.assert_array_equal(known[place], cloud)
        np.testing.assert_array_equal(own[place], part)
        assert len(np.unique(place)) > 0.6 * len(known)  # of 200 draws, so with replacement
    assert np.linalg.norm(parted([1], normalize=True).points, axis=1).max() < 1 + 1e-6


def test_draws_depend_on_seed_step_and_shape_alone():
    some = parted(range(8))
    one, two = torch.tensor([3]), torch.tensor([5, 3])

    def drawn(index, seed, step):
        return some.draw(index, torch.full_like(index, step), Augmentation(seed=seed))

    batch, other = drawn(one, 7, 2), drawn(two, 7, 2)
    assert torch.equal(batch.points[0], other.points[1])
    assert torch.equal(batch.part[0], other.part[1])
    assert batch.inputs[1].tolist() == [1]
    for changed in (drawn(one, 8, 2), drawn(one, 7, 3)):
        assert not torch.equal(batch.points, changed.points)
    for a, b in zip(some.tested(one), some.tested(two), strict=True):
        assert torch.equal(a[0], b[1])
    assert not torch.equal(some.tested(one)[0], parted(range(8), seed=1).tested(one)[0])


def test_one_factor_for_all_axes_and_votes_of_the_tested_points():
    some, index = parted(range(8)), torch.tensor([3, 6])
    change = Augmentation(scales=(0.8, 1.25), one_factor=True)
    points, _ = some.tested(index)
    first, second = (some.voted(index, points, i, change) for i in range(2))
    for copy in (first, second):
        factor = copy.norm(dim=(1, 2)) / points.norm(dim=(1, 2))
        torch.testing.assert_close(copy, points * factor[:, None, None])
        assert ((factor >= 0.8) & (factor <= 1.25)).all()
    assert not torch.equal(first, second)


def test_integers_are_uniform_below_their_size():
    key = keys(0, torch.zeros(2, dtype=torch.int64), Stream.POINTS, torch.arange(2))
    drawn = integers(key, torch.tensor([3, 1000]), 30000)
    counts = torch.bincount(drawn[0])
    assert len(counts) == 3
    assert (counts - 10000).abs().max() < 500
    assert drawn[1].min() >= 0
    assert drawn[1].max() == 999


def test_procedural_points_know_their_part():
    count = 4 * len(PARTED)
    shapes = procedural_shapes(count, seed=3, num_points=400, pictures=False, parts=True)
    assert shapes.class_names == list(PARTED)
    assert 6 <= len(PARTED) < len(FAMILIES)
    assert [len(parts) for parts in shapes.class_parts] == [len(names) for names in PARTED.values()]
    assert check_parts(shapes) is shapes.class_parts
    assert shapes.parts.shape == (count * 400,)
    for i in range(count):
        own = shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]]
        assert set(own) == set(shapes.class_parts[shapes.labels[i]])  # these families build all their parts
    table = list(PARTED).index("table")
    for i in np.flatnonzero(shapes.labels == table):
        own, height = shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]], shapes.cloud(i)[:, 1]
        top, base = (height[own == part].mean() for part in shapes.class_parts[table])
        assert top > base
    again = procedural_shapes(count // 2, seed=3, num_points=400, pictures=False, parts=True)
    np.testing.assert_array_equal(again.parts, shapes.parts[: len(again.parts)])
    assert procedural_shapes(4, num_points=16, pictures=False).parts is None


def test_the_default_data_have_parts():
    from tiny import Lines

    made = prepare_shapes(DataConfig(shapes=12), 0, Lines(), parts=True)
    assert made.name == "procedural parts"
    assert made.parts is not None
