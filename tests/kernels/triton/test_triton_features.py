import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import match_features, scatter_features, sum_features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("B", "C", "N", "M", "K"), [(1, 1, 1, 1, 1), (2, 17, 33, 130, 3), (1, 40, 70, 5, 8)])
def test_equal_the_reference(device, dtype, B, C, N, M, K):
    torch.manual_seed(N)
    features, values = (torch.randn(B, C, n, device=device).to(dtype) for n in (N, M))
    idx = torch.randint(-1, N + 1, (B, M, K), device=device)
    weights = torch.randn(B, M, K, device=device).masked_fill((idx < 0) | (idx == N), float("nan"))
    slack = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-3, "atol": 2e-3}
    for w in (None, weights):
        want = reference.sum_features(features, idx, w)
        torch.testing.assert_close(sum_features(features, idx.int(), w), want, **slack)
        want = reference.scatter_features(values, idx, w, N)
        torch.testing.assert_close(scatter_features(values, idx, w, N), want, **slack)
    got = match_features(values, features, idx)
    torch.testing.assert_close(got, reference.match_features(values, features, idx), rtol=1e-4, atol=1e-4)


def test_any_strides(device):
    features = torch.randn(20, 3, 2, device=device).permute(2, 1, 0)
    idx = torch.randint(0, 20, (3, 2, 4), device=device).permute(1, 2, 0)
    values = torch.ones(1, device=device).expand(2, 3, 4)
    want = reference.sum_features(features, idx)
    torch.testing.assert_close(sum_features(features, idx), want)
    torch.testing.assert_close(
        scatter_features(values, idx, None, 20), reference.scatter_features(values, idx, None, 20)
    )
    torch.testing.assert_close(
        match_features(values, features, idx), reference.match_features(values, features, idx)
    )
