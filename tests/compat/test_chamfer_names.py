"""The Chamfer distances of other packages, and knn_cuda, against distance matrices."""

import pytest
import torch

from recon_fast.compat import chamfer
from recon_fast.compat.chamfer import chamfer_3DDist, chamfer_3DFunction
from recon_fast.compat.knn_cuda import KNN


def clouds(gradient=False):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, n, 3, generator=generator).requires_grad_(gradient) for n in (40, 55)]


def by_matrix(a, b):
    d2 = (a[:, :, None] - b[:, None]).square().sum(-1)
    return d2.amin(2), d2.amin(1), d2.argmin(2), d2.argmin(1)


def assert_same_with_gradients(got, want, inputs):
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (got, want))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_tuples():
    a, b = clouds()
    want = by_matrix(a, b)
    for got in (chamfer_3DDist()(a, b), chamfer_3DFunction.apply(a, b), chamfer.forward(a, b)):
        for one, other in zip(got[:2], want[:2], strict=True):
            torch.testing.assert_close(one, other)
        assert [t.dtype for t in got[2:]] == [torch.int32] * 2
        assert all(torch.equal(one.long(), other) for one, other in zip(got[2:], want[2:], strict=True))
    assert len(chamfer.ChamferDistancePair()(a, b)) == 2
    with_indices = chamfer.ChamferDistancePair(return_indices=True)(a, b)
    assert all(torch.equal(one, other) for one, other in zip(with_indices[2:], want[2:], strict=True))


def test_losses_with_gradients():
    a, b = inputs = clouds(gradient=True)
    forth, back, *_ = by_matrix(a, b)
    assert_same_with_gradients(chamfer.ChamferDistanceL2()(a, b), forth.mean() + back.mean(), inputs)
    halved = (forth.sqrt().mean() + back.sqrt().mean()) / 2
    assert_same_with_gradients(chamfer.ChamferDistanceL1()(a, b), halved, inputs)
    split = chamfer.ChamferDistanceL2_split()(a, b)
    for got, want in zip(split, (forth.mean(), back.mean()), strict=True):
        torch.testing.assert_close(got, want)
    for function in (chamfer.ChamferFunction.apply, chamfer.ChamferDistancePair(), chamfer_3DDist()):
        got = function(a, b)
        assert_same_with_gradients(got[0].sum() - 2 * got[1].sum(), forth.sum() - 2 * back.sum(), inputs)


def test_the_compiled_module_has_a_backward():
    a, b = inputs = clouds(gradient=True)
    forth, back, *_ = by_matrix(a, b)
    grads = torch.rand(forth.shape), torch.rand(back.shape)
    *_, idx1, idx2 = chamfer.forward(a, b)
    want = torch.autograd.grad((forth * grads[0]).sum() + (back * grads[1]).sum(), inputs)
    got = chamfer.backward(a, b, idx1, idx2, *grads)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)


def test_zeros_are_ignored_in_a_batch_of_one():
    a, b = (cloud[:1].clone() for cloud in clouds())
    padded = torch.cat([a, torch.zeros(1, 9, 3)], 1)
    loss = chamfer.ChamferDistanceL2(ignore_zeros=True)
    torch.testing.assert_close(loss(padded, b), loss(a, b))
    assert loss(padded, b) != chamfer.ChamferDistanceL2()(padded, b)


def test_chamferdist():
    a, b = clouds()
    forth, back, *_ = by_matrix(a, b)
    distance = chamfer.ChamferDistanceReduced()
    torch.testing.assert_close(distance(a, b), forth.sum(1).mean())
    torch.testing.assert_close(distance(a, b, reverse=True), back.sum(1).mean())
    both = distance(a, b, bidirectional=True, batch_reduction="sum", point_reduction="mean")
    torch.testing.assert_close(both, forth.mean(1).sum() + back.mean(1).sum())
    torch.testing.assert_close(distance(a, b, reduction="sum"), forth.sum())
    torch.testing.assert_close(distance(a, b, batch_reduction=None, point_reduction=None), forth)
    with pytest.raises(ValueError, match="same batchsize"):
        distance(a, b[:1])
    with pytest.raises(ValueError, match="Batch reduction must"):
        distance(a, b, batch_reduction="max")
    with pytest.raises(TypeError, match="Expected input type"):
        distance(a.numpy(), b)
    with pytest.warns(UserWarning, match="bidirectional behavior takes precedence"):
        distance(a, b, bidirectional=True, reverse=True)


@pytest.mark.parametrize("D", [2, 3, 5])
@pytest.mark.parametrize("transpose_mode", [False, True])
def test_knn(D, transpose_mode):
    torch.manual_seed(D)
    ref, query = torch.rand(2, 40, D), torch.rand(2, 9, D)
    want, want_idx = torch.cdist(query.double(), ref.double()).topk(4, largest=False)
    inputs = (ref, query) if transpose_mode else (ref.mT.contiguous(), query.mT.contiguous())
    dist, idx = KNN(4, transpose_mode=transpose_mode)(*inputs)
    if not transpose_mode:
        dist, idx = dist.mT, idx.mT
    assert torch.equal(idx, want_idx)
    torch.testing.assert_close(dist.double(), want, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError, match=r"ref\.shape="):
        KNN(4, transpose_mode)(inputs[0], inputs[1][:1])
    for k in (0, 41):  # an index of -1 would gather the last point
        with pytest.raises(ValueError, match=f"k must be between 1 and the 40 points of ref, got {k}"):
            KNN(k, transpose_mode)(*inputs)
    assert KNN(40, transpose_mode)(*inputs)[1].ge(0).all()
    with pytest.raises(ValueError, match=r"ref and query must be .* of one D, got ref"):
        KNN(4, transpose_mode)(ref if transpose_mode else ref.mT, query if not transpose_mode else query.mT)
    with pytest.raises(TypeError, match=r"query must be a torch\.Tensor, got numpy\.ndarray"):
        KNN(4, transpose_mode)(inputs[0], inputs[1].numpy())


def test_compile_into_one_graph():
    l1, l2 = chamfer.ChamferDistanceL1(), chamfer.ChamferDistanceL2()
    split, both = chamfer.ChamferDistanceL2_split(), chamfer.ChamferDistanceReduced()
    tuples, pair, knn = chamfer_3DDist(), chamfer.ChamferDistancePair(), KNN(3, True)

    def everything(a, b):
        loss = l1(a, b) + l2(a, b) + sum(split(a, b)) + both(a, b, bidirectional=True)
        loss = loss + tuples(a, b)[0].mean() + chamfer.ChamferFunction.apply(a, b)[1].mean()
        return loss + pair(a, b)[1].sum(), knn(a, b)

    inputs = clouds(gradient=True)
    want, near = everything(*inputs)
    got, got_near = torch.compile(everything, fullgraph=True, backend="aot_eager")(*inputs)
    assert_same_with_gradients(got, want, inputs)
    assert all(torch.equal(a, b) for a, b in zip(got_near, near, strict=True))
