"""Attention of transformer blocks in the formulas of a CPU, against torch's own and finite differences."""

import pytest
import torch
import torch.nn.functional as F

from recon_fast.kernels.attention import attention, attention_over_tokens, autocast_dtype, softmax


@pytest.mark.parametrize("size", [1, 26, 32, 33, 64])
def test_softmax_is_that_of_torch_to_the_bit(size):
    scores = (5 * torch.randn(7, 3, size)).bfloat16()
    assert torch.equal(softmax(scores), scores.softmax(-1))
    scores = scores.double()
    assert torch.equal(softmax(scores), scores.softmax(-1))


def test_attention_is_that_of_torch():
    query, key, value = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (5, 7, 7))
    for scale in (None, 0.3):
        want = F.scaled_dot_product_attention(query, key, value, scale=scale)
        torch.testing.assert_close(attention(query, key, value, scale), want)


def test_attention_over_tokens_forms_keys_and_values_in_effect():
    B, H, Q, S, D, C = 2, 3, 2, 5, 4, 12
    query, tokens, weight = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((B, H, Q, D), (B, S, C), (2 * H * D, C))
    )
    key, value = (t.view(B, S, H, D).transpose(1, 2) for t in (tokens @ weight.T).chunk(2, -1))
    want = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attention_over_tokens(query, tokens, weight), want)
    torch.autograd.gradcheck(attention_over_tokens, (query, tokens, weight), nondet_tol=1e-12)


def test_autocast_dtype():
    x = torch.ones(2)
    assert autocast_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(x) == torch.bfloat16
