import pytest
import torch

from recon_fast.kernels import chamfer_distance, nearest_neighbor

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize(("N", "M"), [(1, 1), (32, 32), (63, 100), (200, 65)])
def test_nearest_neighbor_matches_all_pairs(N, M):
    src, dst = torch.randn(2, N, 3), torch.randn(2, M, 3)
    dist, idx = nearest_neighbor(src, dst)
    want = (src[:, :, None].double() - dst[:, None].double()).square().sum(-1)
    assert torch.equal(idx, want.argmin(-1))
    torch.testing.assert_close(dist.double(), want.amin(-1), rtol=1e-6, atol=1e-7)


def test_ties_go_to_the_smallest_index():
    assert nearest_neighbor(torch.zeros(1, 4, 3), torch.zeros(1, 130, 3))[1].eq(0).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_matches_the_formula(norm):
    pred, target = torch.randn(3, 10, 3), torch.randn(3, 14, 3)
    dist = torch.cdist(pred.double(), target.double())
    forth, back = dist.amin(2), dist.amin(1)
    if norm == "l2":
        want = forth.square().mean(1) + back.square().mean(1)
    else:
        want = (forth.mean(1) + back.mean(1)) / 2
    each = chamfer_distance(pred, target, norm=norm, reduction="none").double()
    torch.testing.assert_close(each, want, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        chamfer_distance(pred, target, norm=norm).double(), want.mean(), rtol=1e-6, atol=0
    )
    total = chamfer_distance(pred, target, norm=norm, reduction="sum").double()
    torch.testing.assert_close(total, want.sum(), rtol=1e-6, atol=0)


def test_lengths_are_as_good_as_shorter_clouds():
    pred, target = torch.randn(2, 10, 3), torch.randn(2, 12, 3)
    lengths = {"pred_lengths": torch.tensor([10, 4]), "target_lengths": torch.tensor([5, 12])}
    ragged = chamfer_distance(pred, target, **lengths, reduction="none")
    assert torch.allclose(ragged[0], chamfer_distance(pred[:1], target[:1, :5]))
    assert torch.allclose(ragged[1], chamfer_distance(pred[1:, :4], target[1:]))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_gradients(norm):
    pred = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, t: chamfer_distance(p, t, norm=norm), (pred, target))


def test_l1_gradient_is_finite_where_points_coincide():
    pred = torch.zeros(1, 3, 3, requires_grad=True)
    loss = chamfer_distance(pred, torch.zeros(1, 3, 3), norm="l1")
    loss.backward()
    assert loss.item() == 0
    assert pred.grad.eq(0).all()


def test_nan_shows_in_the_loss():
    pred = torch.randn(1, 4, 3)
    pred[0, 1, 2] = float("nan")
    assert chamfer_distance(pred, torch.randn(1, 4, 3)).isnan()
    _, idx = nearest_neighbor(pred, torch.randn(1, 4, 3))
    assert idx.ge(0).all()
    assert idx.lt(4).all()


def test_errors():
    cloud = torch.zeros(1, 4, 3)
    with pytest.raises(ValueError, match=r"norm must be one of \('l2', 'l1'\), got 'l3'"):
        chamfer_distance(cloud, cloud, norm="l3")
    with pytest.raises(ValueError, match="reduction must be one of"):
        chamfer_distance(cloud, cloud, reduction="max")
    with pytest.raises(ValueError, match=r"target must be \[1, N, 3\], got \(1, 4, 2\)"):
        chamfer_distance(cloud, cloud[..., :2])
