import pytest
import torch

from recon_fast.kernels import gather_features, interpolate_features, reference
from recon_fast.kernels.features import _match, _scatter, _sum

each_backend = pytest.mark.usefixtures("backend")


def problem(B, C, N, M, K, dtype=torch.float32, index=torch.int64):
    generator = torch.Generator().manual_seed(N)
    features = torch.randn(B, C, N, generator=generator).to(dtype)
    idx = torch.randint(-1, N, (B, M, K), generator=generator, dtype=index)
    return features, idx, torch.rand(B, M, K, generator=generator).to(dtype)


@each_backend
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
def test_gathers_and_groups(dtype, index):
    features, idx, _ = problem(2, 5, 40, 9, 7, dtype, index)
    features[1, 2, 3] = float("nan")
    got = gather_features(features, idx)
    assert got.dtype == dtype
    assert got.shape == (2, 5, 9, 7)
    for b in range(2):
        want = features[b, :, idx[b].long()].masked_fill(idx[b] < 0, 0)
        torch.testing.assert_close(got[b], want, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        gather_features(features, idx[:, :, 0]), got[..., 0], rtol=0, atol=0, equal_nan=True
    )


@each_backend
@pytest.mark.parametrize(("B", "C", "N", "M", "K"), [(1, 1, 1, 1, 1), (2, 17, 33, 130, 3), (1, 40, 70, 5, 8)])
def test_interpolates_and_its_gradients(B, C, N, M, K):
    features, idx, weights = problem(B, C, N, M, K)
    inputs = features.requires_grad_(), weights.requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in inputs]
    grad = torch.randn(B, C, M, generator=torch.Generator().manual_seed(0))
    out = interpolate_features(inputs[0], idx, inputs[1])
    want = reference.interpolate_features(exact[0], idx, exact[1])
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(out, inputs, grad)
    for a, b in zip(got, torch.autograd.grad(want, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@each_backend
def test_what_an_index_does_not_reach():
    features, idx, weights = problem(1, 2, 4, 3, 2)
    idx[0, 0], idx[0, 1] = torch.tensor([-1, 4]), torch.tensor([-1000, 1 << 20])
    weights[0, :2] = float("nan")
    features.requires_grad_()
    out = interpolate_features(features, idx, weights.requires_grad_())
    assert out[..., :2].eq(0).all()
    to_features, to_weights = torch.autograd.grad(out.sum(), (features, weights))
    assert to_features.isfinite().all()
    assert to_weights[0, :2].eq(0).all()


@each_backend
def test_any_strides_and_many_entries_of_one_point():
    features, idx, weights = problem(2, 6, 30, 400, 2)
    idx[0] = 7
    plain = _sum(features, idx, weights), _scatter(torch.ones(2, 6, 400), idx, weights, 30)
    spread = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (features, idx, weights)]
    values = torch.ones(1).expand(2, 6, 400)
    for got, want in zip((_sum(*spread), _scatter(values, *spread[1:], 30)), plain, strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(plain[1][0, 0, 7], weights[0].sum())


def test_derivatives_of_all_orders():
    features, idx, weights = problem(1, 2, 5, 3, 2, torch.float64)
    values = torch.randn(1, 2, 3, dtype=torch.float64).requires_grad_()
    features.requires_grad_(), weights.requires_grad_()
    for run, inputs in (
        (lambda f, w: _sum(f, idx, w), (features, weights)),
        (lambda v, w: _scatter(v, idx, w, 5), (values, weights)),
        (lambda v, f: _match(v, f, idx), (values, features)),
    ):
        assert torch.autograd.gradcheck(run, inputs)
        assert torch.autograd.gradgradcheck(run, inputs)


def test_errors():
    features, idx, weights = problem(2, 3, 5, 4, 2)
    for wrong, match in (
        (features[0], r"features must be a floating point \[B, C, N\]"),
        (features.long(), "features must be a floating point"),
        (features[..., :0], "features must not be empty"),
    ):
        with pytest.raises(ValueError, match=match):
            gather_features(wrong, idx)
    with pytest.raises(ValueError, match=r"idx must be int32 or int64, got torch.float32"):
        gather_features(features, weights)
    with pytest.raises(ValueError, match=r"idx must be \[2, ...\], got \(1, 4, 2\)"):
        gather_features(features, idx[:1])
    with pytest.raises(ValueError, match="idx must not be empty"):
        gather_features(features, idx[:, :0])
    with pytest.raises(ValueError, match=r"idx must be \[2, M, K\], got \(2, 4\)"):
        interpolate_features(features, idx[..., 0], weights)
    with pytest.raises(ValueError, match=r"weights must be a floating point \[2, 4, 2\]"):
        interpolate_features(features, idx, weights[..., :1])
