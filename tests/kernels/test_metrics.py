import pytest
import torch
from devices import here

from recon_fast.kernels import chamfer_distance, density_aware_chamfer, f_score, reference

pytestmark = pytest.mark.usefixtures("backend")
LENGTHS = {"pred_lengths": torch.tensor([30, 11]), "target_lengths": torch.tensor([25, 7])}


def clouds(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.rand(2, n, 3, generator=generator, dtype=torch.float64).to(dtype) for n in (30, 25))
    pred[1, 11:], target[1, 7:] = float("nan"), float("nan")
    return pred.requires_grad_(), target.requires_grad_()


def pairs(pred, target):
    """Distances of each pair of clouds, as a matrix."""
    for b in range(2):
        p, t = pred[b, : LENGTHS["pred_lengths"][b]], target[b, : LENGTHS["target_lengths"][b]]
        yield (p[:, None] - t[None]).square().sum(-1)


def test_f_score():
    pred, target = clouds()
    got = f_score(pred, target, 0.2, **here(LENGTHS))
    for b, d2 in enumerate(pairs(pred, target)):
        precision, recall = (d2.amin(a).lt(0.04).float().mean() for a in (1, 0))
        torch.testing.assert_close(got.precision[b], precision)
        torch.testing.assert_close(got.recall[b], recall)
        torch.testing.assert_close(got.f_score[b], 2 * precision * recall / (precision + recall))
    far = f_score(pred[:1], target[:1] + 9, 0.2)
    assert [t.item() for t in far] == [0, 0, 0]
    assert [t.item() for t in f_score(pred[:1], pred[:1], 1e-3)] == [1, 1, 1]
    with pytest.raises(ValueError, match="threshold must be above 0, got 0"):
        f_score(pred, target, 0)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_density_aware_chamfer(power):
    pred, target = clouds()
    got = density_aware_chamfer(pred, target, alpha=20, count_power=power, **here(LENGTHS))
    want = []
    for d2 in pairs(pred, target):
        ways = []
        for m in (d2, d2.T):
            dist, idx = m.min(1)
            count = torch.stack([(idx == i).sum() for i in idx])
            weight = m.shape[1] / m.shape[0] / count**power
            ways.append((1 - weight * (-20 * dist).exp()).mean())
        want.append(sum(ways) / 2)
    want = torch.stack(want)
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad(loss.sum(), (pred, target), retain_graph=True) for loss in (got, want))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    equal = density_aware_chamfer(pred[:1], pred[:1])
    torch.testing.assert_close(equal, torch.zeros(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("single", [False, True])
def test_weights_and_one_direction(single, norm, dtype):
    pred, target = clouds(dtype)
    each = []
    for d2 in pairs(pred, target):
        root = torch.sqrt if norm == "l1" else torch.Tensor.clone
        ways = [root(d2.amin(1)).mean(), root(d2.amin(0)).mean()]
        each.append(ways[0] if single else sum(ways) / (2 if norm == "l1" else 1))
    weights = torch.tensor([0.5, 2.0], dtype=dtype)
    each = torch.stack(each) * weights
    options = {**here(LENGTHS), "norm": norm, "single_directional": single, "weights": weights}
    for reduction, want in (("none", each), ("sum", each.sum()), ("mean", each.sum() / 2.5)):
        got = chamfer_distance(pred, target, reduction=reduction, **options)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            reference.chamfer_distance(pred, target, reduction=reduction, **options), want
        )
        got, want = (torch.autograd.grad(t.sum(), (pred, target), retain_graph=True) for t in (got, want))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_errors():
    pred, target = clouds()
    with pytest.raises(ValueError, match=r"weights must be a floating point \[2\], got torch.int64 \(2,\)"):
        chamfer_distance(pred, target, weights=torch.tensor([1, 2]))
