from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_shapes

from recon_fast.data.batches.resident import ResidentShapes, Sampling
from recon_fast.data.batches.transforms import (
    changed,
    random_rotation,
    standardize,
    unit_sphere,
    whitening,
)
from recon_fast.data.shapes import Shapes, stack_clouds

CPU = torch.device("cpu")


def numbered(sizes) -> Shapes:
    """Clouds whose every point tells its shape and its place: (shape, place, 0)."""
    clouds = [np.array([(s, i, 0) for i in range(n)], np.float32) for s, n in enumerate(sizes)]
    points, offsets = stack_clouds(clouds)
    return Shapes(
        "numbered", [str(s) for s in range(len(sizes))], points, offsets, np.zeros(len(sizes), bool)
    )


@pytest.mark.parametrize("placement", ["device", "mmap"])
@pytest.mark.parametrize("sizes", [[9, 9, 9], [9, 5, 30]])
def test_draws_distinct_points_of_the_right_shape(sizes, placement):
    resident = ResidentShapes(numbered(sizes), None, np.arange(3), CPU, placement)
    index = torch.tensor([2, 0, 1, 2])
    points = resident.draw(index, torch.zeros(4, dtype=torch.int64), Sampling(5)).points
    assert points.shape == (4, 5, 3)
    assert (points[..., 0] == index[:, None]).all()
    for cloud, shape in zip(points, index, strict=True):
        assert cloud[:, 1].unique().numel() == 5
        assert cloud[:, 1].max() < sizes[shape]


def test_draws_every_point_equally_often_and_in_random_order():
    resident = ResidentShapes(numbered([8] * 50), None, np.arange(50), CPU)
    index, step = torch.arange(8000) % 50, torch.arange(8000) // 50
    drawn = resident.draw(index, step, Sampling(4)).points[..., 1].long()
    assert (drawn.flatten().bincount(minlength=8) / 4000 - 1).abs().max() < 0.1
    assert (drawn[:, 0].bincount(minlength=8) / 1000 - 1).abs().max() < 0.2


def test_rows_choose_shapes_with_their_labels_and_features():
    shapes = tiny_shapes()
    rows = np.array([5, 1, 7])
    resident = ResidentShapes(shapes, shapes.features, rows, CPU)
    batch = resident.batch(torch.tensor([2, 0]), 0, Sampling(32))
    assert batch.label.tolist() == shapes.labels[[7, 5]].tolist()
    assert torch.equal(batch.text_feature, torch.from_numpy(shapes.features.text[shapes.labels[[7, 5]], 0]))
    views = torch.from_numpy(shapes.features.image[[7, 5]])
    assert ((views == batch.image_feature[:, None]).all(-1)).any(1).all()


@pytest.mark.parametrize("placement", ["device", "mmap"])
def test_a_shape_gets_the_same_draws_in_any_batch(placement):
    shapes = tiny_shapes()
    how = Sampling(64, "y", num_group=8, seed=3)
    resident = ResidentShapes(shapes, standardize(shapes.features), np.arange(24), CPU, placement)
    whole = resident.batch(torch.arange(24), 7, how)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for index in order.split(5):
        part = resident.batch(index, 7, how)
        for name in ("points", "image_feature", "text_feature", "label", "mask_noise"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[index]), name
    for other in (
        resident.batch(torch.arange(24), 8, how),
        resident.batch(torch.arange(24), 7, replace(how, seed=4)),
    ):
        assert not torch.isclose(other.points, whole.points).all(-1).any()
        assert not torch.isclose(other.mask_noise, whole.mask_noise).all(-1).any()


def test_batches_are_centred_and_of_unit_radius():
    resident = ResidentShapes(tiny_shapes(), None, np.arange(24), CPU)
    points = resident.batch(torch.arange(24), 0, Sampling(64, "y")).points
    assert points.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(points.norm(dim=-1).amax(1), torch.ones(24))
    assert unit_sphere(torch.ones(1, 4, 3)).eq(0).all()


@pytest.mark.parametrize("axis", "xyz")
def test_rotation_keeps_its_axis_and_all_lengths(axis):
    points = torch.randn(50, 10, 3)
    turned = random_rotation(points, axis)
    i = "xyz".index(axis)
    assert torch.equal(turned[..., i], points[..., i])
    torch.testing.assert_close(turned.norm(dim=-1), points.norm(dim=-1))
    assert torch.linalg.det(torch.linalg.lstsq(points, turned).solution).sub(1).abs().max() < 1e-3
    assert (turned - points).abs().amax((1, 2)).min() > 0


def test_standardized_features_have_no_mean_and_unit_variance():
    shapes = tiny_shapes()
    scaled = standardize(shapes.features)
    mean, scale = scaled.text_map
    np.testing.assert_allclose(scaled.class_text, (scaled.text[:, 0] - mean[0]) * scale[0], rtol=1e-5)
    assert scaled.teacher["standardized"]
    batch = ResidentShapes(shapes, scaled, np.arange(24), CPU).batch(torch.arange(24), 0, Sampling(32))
    mean, matrix = scaled.image_map
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    views = torch.from_numpy((scaled.image - mean) @ matrix)
    assert ((views - batch.image_feature[:, None]).abs().amax(-1) < 1e-5).any(1).all()
    assert torch.equal(batch.text_feature, torch.from_numpy(scaled.class_text[shapes.labels]))


def test_whitening_lets_few_directions_not_hide_the_others():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((500, 2, 5)) * [100, 10, 1, 0.5, 0.5]
    features = (hidden @ np.linalg.qr(rng.standard_normal((8, 8)))[0][:5]).astype(np.float32)
    features += rng.standard_normal((2, 8)) * 50  # each view has a mean of its own
    mean, matrix = whitening(features)
    white = ((features - mean) @ matrix).astype(np.float64)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    assert white.var() == pytest.approx(1, rel=1e-3)
    variance = np.linalg.eigvalsh(np.cov(white.reshape(-1, 8).T, bias=True))
    np.testing.assert_allclose(variance, [0, 0, 0, *[8 / 5] * 5], atol=1e-3)
    _, first = whitening(features, components=2)
    variance = np.linalg.eigvalsh(np.cov(((features - mean) @ first).reshape(-1, 8).T, bias=True))
    np.testing.assert_allclose(variance, [*[0] * 6, 4, 4], atol=1e-3)
    _, nothing = whitening(np.ones((4, 1, 3), np.float32))
    assert np.isfinite(nothing).all()


def test_changes_scale_axes_and_shift_points_by_their_key_alone():
    points = unit_sphere(torch.randn(40, 200, 3))
    key = torch.arange(40) * 7919
    scaled = changed(points, key, 1.5, 0.0)
    factor = (scaled / points).mean(1)
    torch.testing.assert_close(scaled, points * factor[:, None])
    assert factor.min() >= 1 / 1.5
    assert factor.max() <= 1.5
    assert factor.std() > 0.15
    shift = changed(points, key, 1.5, 0.1) - scaled
    assert shift.abs().max() <= 0.1
    largest = shift.abs().amax((1, 2))
    assert largest.min() < 0.02
    assert largest.max() > 0.08
    torch.testing.assert_close(changed(points[3:5], key[3:5], 1.5, 0.1), (scaled + shift)[3:5])


def test_changed_clouds_do_not_depend_on_the_batch():
    shapes = tiny_shapes()
    resident = ResidentShapes(shapes, None, np.arange(24), CPU)
    how = Sampling(64, "y", scale=1.3, jitter=0.05, seed=2)
    whole, half = resident.batch(torch.arange(24), 5, how), resident.batch(torch.arange(12, 24), 5, how)
    torch.testing.assert_close(whole.points[12:], half.points)
    torch.testing.assert_close(half.points.norm(dim=-1).amax(1), torch.ones(12))
    assert not torch.equal(resident.batch(torch.arange(24), 6, how).points, whole.points)
