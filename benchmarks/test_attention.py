"""Cross-attention of three queries: with and without a mask, with and without gradients of the keys."""

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import pytest
import torch

from benchmarks.checks import close
from recon_fast.kernels import reference

pytestmark = pytest.mark.operator("cross-attention")
B, H, Q, D = 128, 6, 3, 64
# Compiling every shape would take minutes.
_COMPILED = (64, torch.bfloat16)


def output_only(function, query, key, value, mask, grad):
    with torch.no_grad():
        return (function(query, key, value, mask),)


def query_gradient(function, query, key, value, mask, grad):
    out = function(query, key, value, mask)
    return out.detach(), *torch.autograd.grad(out, (query,), grad)


def all_gradients(function, query, key, value, mask, grad):
    out = function(query, key, value, mask)
    return out.detach(), *torch.autograd.grad(out, (query, key, value), grad)


STEPS: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "forward": output_only,
    "forward+backward of the query": query_gradient,
    "forward+backward": all_gradients,
}


@lru_cache(maxsize=1)
def case(S, dtype, masked, step, device):
    random = torch.Generator().manual_seed(S)

    def normal(n):
        return torch.randn(B, n, H, D, generator=random).to(device, dtype).transpose(1, 2)

    query, key, value = normal(Q), normal(S), normal(S)
    query.requires_grad_(step != "forward")
    for t in (key, value):
        t.requires_grad_(step == "forward+backward")
    grad = normal(Q).contiguous()
    mask = (torch.rand(B, S, generator=random) < 0.6).to(device) if masked else None
    if mask is not None:
        mask[:, 0] = True  # what a row without keys gives is ours to define
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in (query, key, value)]
    want = STEPS[step](reference.masked_cross_attention, *exact, mask, grad.double())
    return (query, key, value, mask, grad), want


@pytest.mark.parametrize("masked", [False, True], ids=["all-keys", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("S", "step"), [(64, "forward"), *product((26, 64, 512), list(STEPS)[1:])])
def test_cross_attention(bench, provider, S, dtype, masked, step):
    if provider.compiles and (S, dtype) != _COMPILED:
        pytest.skip("compiled at 64 keys in bf16 only")
    slack = 2e-2
    if dtype == torch.float32:
        slack = 1e-5 if provider.exact else 1e-3  # a peer may multiply in TF32
    inputs, want = case(S, dtype, masked, step, bench.kind)
    kind = "bf16" if dtype == torch.bfloat16 else "fp32"
    bench.measure(
        provider,
        inputs,
        lambda got: close(got, want, slack),
        wrap=STEPS[step],
        step=step,
        shape=f"B{B} H{H} Q{Q} D{D} S{S} {kind}",
        data="masked keys" if masked else "all keys",
    )
