import numpy as np
import pytest
import torch
from tiny import tiny_shapes

from recon_fast.data.resident import ResidentShapes, standardize
from recon_fast.data.shapes import Shapes, stack_clouds
from recon_fast.data.transforms import random_rotation, unit_sphere

CPU = torch.device("cpu")


def numbered(sizes) -> Shapes:
    """Clouds whose every point tells its shape and its place: (shape, place, 0)."""
    clouds = [np.array([(s, i, 0) for i in range(n)], np.float32) for s, n in enumerate(sizes)]
    points, offsets = stack_clouds(clouds)
    return Shapes(
        "numbered", [str(s) for s in range(len(sizes))], points, offsets, np.zeros(len(sizes), bool)
    )


@pytest.mark.parametrize("sizes", [[9, 9, 9], [9, 5, 30]])
def test_draws_distinct_points_of_the_right_shape(sizes):
    resident = ResidentShapes(numbered(sizes), None, np.arange(3), CPU)
    index = torch.tensor([2, 0, 1, 2])
    points = resident.draw_points(index, 5)
    assert points.shape == (4, 5, 3)
    assert (points[..., 0] == index[:, None]).all()
    for cloud, shape in zip(points, index, strict=True):
        assert cloud[:, 1].unique().numel() == 5
        assert cloud[:, 1].max() < sizes[shape]


def test_draws_every_point_equally_often_and_in_random_order():
    resident = ResidentShapes(numbered([8, 4]), None, np.arange(2), CPU)
    drawn = resident.draw_points(torch.zeros(8000, dtype=torch.int64), 4)[..., 1].long()
    assert (drawn.flatten().bincount(minlength=8) / 4000 - 1).abs().max() < 0.1
    assert (drawn[:, 0].bincount(minlength=8) / 1000 - 1).abs().max() < 0.2


def test_rows_choose_shapes_with_their_labels_and_features():
    shapes = tiny_shapes()
    rows = np.array([5, 1, 7])
    resident = ResidentShapes(shapes, shapes.features, rows, CPU)
    batch = resident.batch(torch.tensor([2, 0]), 32)
    assert batch.label.tolist() == shapes.labels[[7, 5]].tolist()
    assert torch.equal(batch.text_feature, torch.from_numpy(shapes.features.text[shapes.labels[[7, 5]], 0]))
    views = torch.from_numpy(shapes.features.image[[7, 5]])
    assert ((views == batch.image_feature[:, None]).all(-1)).any(1).all()


def test_batches_are_centred_and_of_unit_radius():
    points = ResidentShapes(tiny_shapes(), None, np.arange(24), CPU).batch(torch.arange(24), 64, "y").points
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
    features = tiny_shapes().features
    scaled = standardize(features)
    assert np.abs(scaled.image.reshape(-1, 8).mean(0)).max() < 1e-5
    np.testing.assert_allclose(scaled.image.reshape(-1, 8).std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(scaled.class_text, scaled.text[:, 0], rtol=1e-5)
    assert scaled.teacher["standardized"]
