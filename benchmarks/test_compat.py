"""The drop-in names of `recon_fast.compat.torch_cluster` against torch_cluster itself, call for call."""

from functools import partial

import pytest
import torch

from benchmarks.clouds import cloud
from benchmarks.peers import Provider, modules_of
from benchmarks.providers import OURS
from recon_fast.compat import torch_cluster as shim

K, RADIUS = 16, 0.1
CALLS = {
    "fps": lambda module, x, batch: module.fps(x, batch, 0.25, random_start=False),
    "knn": lambda module, x, batch: module.knn(x, x, K, batch, batch),
    "knn_graph": lambda module, x, batch: module.knn_graph(x, K, batch),
    "nearest": lambda module, x, batch: module.nearest(x, x[::4], batch, batch[::4]),
    "radius": lambda module, x, batch: module.radius(x, x, RADIUS, batch, batch, 64),
    "radius_graph": lambda module, x, batch: module.radius_graph(x, RADIUS, batch, max_num_neighbors=64),
}
SIZES = {
    "32 of 1024": [1024] * 32,
    "8 of 4096": [4096] * 8,
    "16 of 100 to 3000": torch.randint(100, 3000, (16,), generator=torch.Generator().manual_seed(0)).tolist(),
    "128 of 10 to 29": torch.randint(10, 30, (128,), generator=torch.Generator().manual_seed(0)).tolist(),
    "4 of 16": [16] * 4,
}


def contenders(operator, kind):
    """Ours and, where it is installed, the original."""
    call = CALLS[operator.removeprefix("torch_cluster.")]
    both = [
        Provider(OURS, operator, partial(call, shim)),
        Provider("torch_cluster", operator, call, modules=("torch_cluster",)),
    ]
    return [p for p in both if not isinstance(modules_of(p), str)]


def as_set(operator, found):
    """Edges may come in any order, samples may not."""
    if found.ndim == 1:
        return found
    return (found[0] << 32 | found[1]).sort().values


def check(operator, x, batch, got):
    want = CALLS[operator](shim, x, batch)
    assert torch.equal(as_set(operator, got), as_set(operator, want)), "other results"
    return "equal"


def _test(operator):
    @pytest.mark.operator(f"torch_cluster.{operator}")
    @pytest.mark.parametrize("sizes", SIZES)
    def test(bench, provider, sizes):
        lengths = torch.tensor(SIZES[sizes])
        x = cloud("cube", 1, int(lengths.sum()), device=bench.kind)[0]
        batch = torch.arange(len(lengths)).repeat_interleave(lengths).to(bench.kind)
        bench.measure(provider, (x, batch), partial(check, operator, x, batch), shape=sizes, data="cube")

    return test


test_fps, test_knn, test_knn_graph = _test("fps"), _test("knn"), _test("knn_graph")
test_nearest, test_radius, test_radius_graph = _test("nearest"), _test("radius"), _test("radius_graph")
