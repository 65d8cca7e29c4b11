"""Cross-attention of three queries, forward and backward, against matrix products and SDPA."""

import pytest
import torch
import torch.nn.functional as F

from recon_fast.kernels import masked_cross_attention, reference

RUNS = {
    "ours": masked_cross_attention,
    "matmul": reference.masked_cross_attention,
    "sdpa": F.scaled_dot_product_attention,
}


def with_gradients(function, query, key, value, grad):
    out = function(query, key, value)
    return out, *torch.autograd.grad(out, (query, key, value), grad)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("S", [26, 64, 512])
def test_cross_attention(benchmark, S, dtype, run):
    benchmark.group = f"cross-attention-B128-H6-Q3-D64-S{S}-{dtype}"
    benchmark.extra_info["threads"] = torch.get_num_threads()
    generator = torch.Generator().manual_seed(S)
    query, key, value = (
        torch.randn(128, n, 6, 64, generator=generator).to(dtype).transpose(1, 2).requires_grad_()
        for n in (3, S, S)
    )
    grad = torch.randn(128, 6, 3, 64, generator=generator).to(dtype)
    exact = [t.detach().double().requires_grad_() for t in (query, key, value)]
    want = with_gradients(reference.masked_cross_attention, *exact, grad.double())
    slack = 1e-5 if dtype == torch.float32 else 0.05
    for a, b in zip(with_gradients(RUNS[run], query, key, value, grad), want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=slack, atol=slack)
    del exact, want
    benchmark(with_gradients, RUNS[run], query, key, value, grad)
