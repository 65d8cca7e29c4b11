"""Against float64 the kernels may not err more than the reference in the inputs' dtype, plus rounding."""

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import masked_cross_attention_backward, masked_cross_attention_forward

SHAPES = [
    (2, 2, 3, 26, 64),
    (1, 1, 1, 1, 8),
    (2, 1, 3, 130, 64),
    (1, 2, 65, 63, 24),
    (1, 1, 5, 65, 128),
    (1, 1, 70, 65, 96),
]


def make(device, B, H, Q, S, D, dtype):
    torch.manual_seed(S)
    query, key, value, grad = (torch.randn(B, H, size, D, device=device).to(dtype) for size in (Q, S, S, Q))
    return query, key, value, grad


def gradients(query, key, value, grad, mask, scale=None):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    out = reference.masked_cross_attention(*leaves, mask, scale=scale)
    return [x.detach() for x in (out, *torch.autograd.grad(out, leaves, grad))]


def run(query, key, value, grad, mask, scale=None, need_key_grad=True):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out, lse = masked_cross_attention_forward(query, key, value, mask, scale)
    return out, *masked_cross_attention_backward(
        grad, query, key, value, mask, scale, out, lse, need_key_grad=need_key_grad
    )


def check(query, key, value, grad, mask, scale=None):
    wide = [x.double() for x in (query, key, value, grad)]
    exact = gradients(*wide, mask, scale)
    eager = gradients(query, key, value, grad, mask, scale)
    rounding = torch.finfo(query.dtype).eps
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    # dq and dk are differences of terms of this size, and exactly 0 where a row looks at one key only.
    terms = (wide[3].abs() @ wide[2].abs().mT).max() * scale
    sizes = [0, terms * wide[1].abs().max(), terms * wide[0].abs().max(), 0]
    # A score's rounding in float32 is a relative error of its weight.
    of_weights = torch.finfo(torch.float32).eps * scale * (wide[0].abs() @ wide[1].abs().mT).max()
    mine = run(query, key, value, grad, mask, scale)
    for out, plain, truth, size in zip(mine, eager, exact, sizes, strict=True):
        assert out.dtype == query.dtype
        allowed = (plain.double() - truth).abs().max() + rounding * (4 * truth.abs().max() + size)
        allowed += of_weights * (truth.abs().max() + size)
        assert (out.double() - truth).abs().max() <= allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("B", "H", "Q", "S", "D"), SHAPES)
def test_as_exact_as_the_reference(device, B, H, Q, S, D, dtype):
    tensors = make(device, B, H, Q, S, D, dtype)
    mask = torch.rand(B, S, device=device) < 0.6
    mask[:, 0] = True
    check(*tensors, mask)
    check(*tensors, None, scale=0.3)


@pytest.mark.parametrize(("Q", "S", "D"), [(3, 26, 64), (70, 65, 16)], ids=str)
def test_nothing_behind_the_mask_leaks(device, Q, S, D):
    query, key, value, grad = make(device, 2, 2, Q, S, D, torch.float32)
    mask = torch.rand(2, S, device=device) < 0.6
    mask[0] = False  # a row without any key
    clean = run(query, key, value, grad, mask)
    assert all(not x[0].any() for x in clean), "exactly 0, and zero gradients"
    hidden = ~mask[:, None, :, None]
    poisoned = run(
        query, key.masked_fill(hidden, float("nan")), value.masked_fill(hidden, float("inf")), grad, mask
    )
    assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))


@pytest.mark.parametrize(("Q", "S", "D"), [(3, 26, 64), (70, 65, 16)], ids=str)
def test_a_query_that_is_not_finite_gives_masked_keys_nothing(device, Q, S, D):
    query, key, value, grad = make(device, 2, 2, Q, S, D, torch.float32)
    query[1, 1, 2] = grad[0, 0, 1] = float("nan")
    mask = torch.rand(2, S, device=device) < 0.6
    *_, to_key, to_value = run(query, key, value, grad, mask)
    hidden = ~mask[:, None, :, None].expand_as(to_key)
    assert to_key.isnan().any()
    assert not to_key[hidden].any()
    assert not to_value[hidden].any()


def test_large_scores(device):
    query, key, value, grad = make(device, 1, 1, 3, 40, 16, torch.float32)
    check(query * 30, key * 30, value, grad, None)


def test_any_strides(device):
    query, key, value, grad = make(device, 2, 3, 5, 26, 32, torch.float32)
    mask = (torch.rand(26, 2, device=device) < 0.6).T
    plain = run(query, key, value, grad, mask)
    strided = run(
        query.transpose(1, 2).contiguous().transpose(1, 2),
        key.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack([value, value], 3)[:, :, :, 1],
        grad.transpose(0, 1).contiguous().transpose(0, 1),
        mask.contiguous(),
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, strided, strict=True))
    run(query[:1].expand(2, -1, -1, -1), key, value, grad[:, :, :1, :1].expand_as(grad), mask)


@pytest.mark.parametrize("Q", [3, 70])
def test_keys_without_gradient(device, Q):
    tensors = make(device, 1, 2, Q, 26, 64, torch.float32)
    _, dq, dk, dv = run(*tensors, None)
    _, only, *rest = run(*tensors, None, need_key_grad=False)
    assert torch.equal(only, dq)
    assert rest == [None, None]
    assert dk.isfinite().all()
    assert dv.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
def test_scores_that_are_all_minus_infinity_are_a_row_without_keys(device, masked):
    query, key, value, grad = make(device, 1, 2, 3, 20, 16, torch.float32)
    query, key = torch.full_like(query, 1e30), torch.full_like(key, -1e30)
    query[:, :, 1] = 0  # this one attends
    mask = torch.rand(1, 20, device=device) < 0.6 if masked else None
    mine, want = (f(query, key, value, grad, mask) for f in (run, gradients))
    for out, dq, dk, dv in (mine, want):
        assert out[:, :, [0, 2]].eq(0).all()
        assert out[:, :, 1].ne(0).all()
        assert dq[:, :, [0, 2]].eq(0).all()
        assert dk.eq(0).all()
        torch.testing.assert_close(dv, want[3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("Q", "S"), [(3, 26), (3, 64), (3, 512), (64, 300), (200, 300)])
def test_shapes_of_the_model_on_a_gpu(Q, S, dtype):
    tensors = make("cuda", 16, 6, Q, S, 64, dtype)
    check(*tensors, torch.rand(16, S, device="cuda") < 0.6)
