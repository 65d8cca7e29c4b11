import pytest
import torch
import torch.nn.functional as F

from recon_fast.kernels import masked_cross_attention

pytestmark = pytest.mark.usefixtures("backend")


def qkv(B=2, H=3, Q=3, S=26, D=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(S)
    return [torch.randn(B, H, n, D, generator=generator).to(dtype) for n in (Q, S, S)]


@pytest.mark.parametrize("S", [1, 26, 130])
@pytest.mark.parametrize("masked", [False, True])
def test_matches_sdpa(S, masked):
    query, key, value = qkv(S=S)
    mask = torch.rand(2, S) > 0.4 if masked else None
    if mask is not None:
        mask[:, 0] = True
    want = F.scaled_dot_product_attention(query, key, value, mask[:, None, None] if masked else None)
    torch.testing.assert_close(masked_cross_attention(query, key, value, mask), want)
    want = F.scaled_dot_product_attention(
        query, key, value, mask[:, None, None] if masked else None, scale=0.3
    )
    torch.testing.assert_close(masked_cross_attention(query, key, value, mask, scale=0.3), want)


def test_a_row_without_keys_is_zero_with_zero_gradients():
    tensors = [t.requires_grad_() for t in qkv(S=5)]
    mask = torch.tensor([[False] * 5, [True] * 5])
    out = masked_cross_attention(*tensors, mask)
    assert out[0].eq(0).all()
    out.sum().backward()
    for tensor in tensors:
        assert tensor.grad[0].eq(0).all()
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_what_stands_behind_the_mask_never_leaks(junk):
    query, key, value = qkv(S=6)
    mask = torch.tensor([[True, False, True, True, False, True]] * 2)
    want = masked_cross_attention(query, key, value, mask)
    key, value = (t.masked_fill(~mask[:, None, :, None], junk).requires_grad_() for t in (key, value))
    query.requires_grad_()
    out = masked_cross_attention(query, key, value, mask)
    assert torch.equal(out, want)
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in (query, key, value))


def test_gradients():
    tensors = [t.requires_grad_() for t in qkv(S=4, D=2, dtype=torch.float64)]
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    assert torch.autograd.gradcheck(lambda q, k, v: masked_cross_attention(q, k, v, mask), tensors)


def test_low_precision_is_no_worse_than_rounding_the_inputs():
    query, key, value = qkv(S=64, dtype=torch.bfloat16)
    out = masked_cross_attention(query, key, value)
    assert out.dtype == torch.bfloat16
    exact = masked_cross_attention(query.double(), key.double(), value.double())
    naive = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1) @ value
    assert (out - exact).abs().max() <= (naive - exact).abs().max() + 2**-8


def test_errors():
    query, key, value = qkv()
    with pytest.raises(ValueError, match=r"key must be \[2, 3, S, 8\] to match query, got \(1, 3, 26, 8\)"):
        masked_cross_attention(query, key[:1], value)
    with pytest.raises(ValueError, match="value must be"):
        masked_cross_attention(query, key, value[:, :, :3])
    with pytest.raises(ValueError, match="one floating point dtype"):
        masked_cross_attention(query, key.half(), value)
    with pytest.raises(ValueError, match=r"key_mask must be bool \[2, 26\], got torch.float32"):
        masked_cross_attention(query, key, value, torch.ones(2, 26))
    with pytest.raises(ValueError, match=r"query must be \[B, H, Q, D\]"):
        masked_cross_attention(query[0], key, value)


@pytest.mark.parametrize("Q", [3, 6])  # the CPU takes few queries and many on different paths
def test_scores_that_are_all_minus_infinity_are_a_row_without_keys(Q):
    query, key, value = (
        t.requires_grad_()
        for t in (torch.full((1, 2, Q, 8), 1e30), torch.full((1, 2, 9, 8), -1e30), qkv(1, 2, S=9)[2])
    )
    with torch.no_grad():
        query[:, :, 1] = 0  # this one attends to all alike
    out = masked_cross_attention(query, key, value)
    torch.testing.assert_close(out[:, :, 1], value.mean(2))
    dead = [q for q in range(Q) if q != 1]
    assert out[:, :, dead].eq(0).all()
    to_query, to_key, to_value = torch.autograd.grad(out.sum(), (query, key, value))
    assert to_query[:, :, dead].eq(0).all()
    assert to_key.eq(0).all()
    torch.testing.assert_close(to_value, torch.full_like(value, 1 / 9))


def against_float64(Q, D, dtype, **tolerance):
    """Output and gradients with masked keys, against SDPA of the same numbers in float64."""
    query, key, value = (t.requires_grad_() for t in qkv(Q=Q, S=11, D=D, dtype=dtype))
    mask = torch.arange(11) % 4 != torch.tensor([[1], [2]])
    exact = [t.detach().double().requires_grad_() for t in (query, key, value)]
    want = F.scaled_dot_product_attention(*exact, mask[:, None, None])
    got = masked_cross_attention(query, key, value, mask)
    grad = torch.randn(want.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    want.backward(grad.double())
    got.backward(grad)
    for a, b in zip((got, query.grad, key.grad, value.grad), (want, *(t.grad for t in exact)), strict=True):
        torch.testing.assert_close(a, b.to(dtype), **tolerance)


@pytest.mark.parametrize("D", [8, 32, 48, 64])
@pytest.mark.parametrize("Q", [1, 3, 4])
def test_widths_and_numbers_of_queries(Q, D):
    against_float64(Q, D, torch.float32, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("D", [8, 32, 48, 64])
@pytest.mark.parametrize("Q", [1, 3, 4])
def test_low_precision_at_widths_and_numbers_of_queries(Q, D):
    against_float64(Q, D, torch.bfloat16, rtol=2e-2, atol=2e-2)
