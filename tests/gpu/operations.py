"""Every public operator as a call, at sizes that take its different launches."""

import torch

from recon_fast import kernels


def random(*shape, seed=0, device="cpu", dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def operations(device, dtype=torch.float32):
    """Calls by name; each gives a tuple of results that depends on nothing but its tensors."""
    xyz, queries = random(4, 1024, 3, device=device, dtype=dtype), random(4, 60, 3, seed=1, device=device)
    large = random(2, 20_000, 3, seed=2, device=device, dtype=dtype)
    features = random(4, 40, 1024, seed=3, device=device, dtype=dtype)
    idx = (torch.arange(4 * 60 * 3).view(4, 60, 3) * 37 % 1024).to(device)
    weights = random(4, 60, 3, seed=4, device=device, dtype=dtype)
    query, key = (
        random(4, 6, 3, 64, device=device, dtype=dtype),
        random(4, 6, 26, 64, device=device, dtype=dtype),
    )
    mask = (torch.arange(4 * 26).view(4, 26) % 3 > 0).to(device)
    pairs = (
        random(300, 32, 3, device=device, dtype=dtype),
        random(300, 32, 3, seed=1, device=device, dtype=dtype),
    )
    queries = queries.to(dtype)

    def with_gradient(function, *leaves):
        def call():
            given = [leaf.detach().requires_grad_() for leaf in leaves]
            out = function(*given)
            return out.detach(), *torch.autograd.grad(out.float().square().sum(), given)

        return call

    def group(points):
        return kernels.sample_and_group(points, 64, 32).neighborhoods

    return {
        "farthest_point_sample": lambda: (kernels.farthest_point_sample(xyz, 64),),
        "farthest_point_sample, shared": lambda: (kernels.farthest_point_sample(large, 100),),
        "knn": with_gradient(lambda q, p: kernels.knn(q, p, 16)[0], queries, xyz),
        "knn, streamed": with_gradient(lambda q, p: kernels.knn(q, p, 16)[0], queries[:2], large),
        "sample_and_group": with_gradient(group, xyz),
        "ball_query": lambda: kernels.ball_query(queries, xyz, 0.5, 16),
        "gather_features": with_gradient(lambda f: kernels.gather_features(f, idx), features),
        "interpolate_features": with_gradient(
            lambda f, w: kernels.interpolate_features(f, idx, w), features, weights
        ),
        "nearest_neighbor": with_gradient(lambda q, p: kernels.nearest_neighbor(q, p)[0], queries[:2], large),
        "chamfer_distance, pairs": with_gradient(kernels.chamfer_distance, *pairs),
        "chamfer_distance, large": with_gradient(kernels.chamfer_distance, xyz[:2], large),
        "masked_cross_attention": with_gradient(
            lambda q, k: kernels.masked_cross_attention(q, k, k, mask), query, key
        ),
    }


NAMES = list(operations("cpu"))
