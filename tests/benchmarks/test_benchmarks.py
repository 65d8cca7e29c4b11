"""The checks that come before a time, and who is measured without any peer."""

import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import checks, peers, providers
from benchmarks.clouds import SURFACES, WORST, cloud
from benchmarks.measure import peak_memory
from recon_fast.kernels import reference

EXACT = peers.Provider("exact", "fps", None, exact=True)
LOOSE = replace(EXACT, exact=False)


@pytest.mark.parametrize("kind", SURFACES + WORST)
def test_clouds_are_finite_and_seeded(kind):
    xyz = cloud(kind, 2, 100)
    assert xyz.shape == (2, 100, 3)
    assert xyz.isfinite().all()
    assert torch.equal(xyz, cloud(kind, 2, 100))


def test_unknown_cloud():
    with pytest.raises(ValueError, match="kind must be one of"):
        cloud("torus", 1, 1)


def test_samples_that_are_not_farthest_are_refused():
    xyz = cloud("cube", 2, 200)
    want = reference.farthest_point_sample(xyz, 20)
    elsewhere = reference.farthest_point_sample(xyz, 20, start_index=7)
    assert checks.greedy(EXACT, xyz, want, want) == "equal"
    assert checks.greedy(LOOSE, xyz, want, want) == "equal distances"
    assert "another start" in checks.greedy(LOOSE, xyz, elsewhere, want)
    swapped = want.clone()
    swapped[:, [3, 9]] = want[:, [9, 3]]
    moved = elsewhere.clone()
    moved[:, 4] = 3
    for wrong in (swapped, moved, want[:, :10]):
        with pytest.raises(AssertionError):
            checks.greedy(LOOSE, xyz, wrong, want)
    with pytest.raises(AssertionError, match="differs from the reference"):
        checks.greedy(EXACT, xyz, elsewhere, want)


def test_neighbors_that_are_not_nearest_are_refused():
    points = cloud("cube", 2, 100)
    queries = points[:, :9]
    dist, idx = want = reference.knn(queries, points, 5)
    assert checks.neighbors(EXACT, queries, points, want, want) == "equal"
    checks.neighbors(LOOSE, queries, points, (dist, idx.flip(-1)), want)  # any order of the indices
    twice = idx.clone()
    twice[..., 1] = twice[..., 0]
    for wrong in ((dist * 1.1, idx), (dist, (idx + 1) % 100), (dist, twice)):
        with pytest.raises(AssertionError):
            checks.neighbors(LOOSE, queries, points, wrong, want)


def test_neighbors_outside_of_a_ball_are_refused():
    points = cloud("cube", 2, 100)
    queries = points[:, :9]
    want = reference.ball_query(queries, points, 0.4, 5)
    assert checks.inside(EXACT, queries, points, 0.4, want, want) == "equal"
    row = torch.arange(18)[:, None].expand(-1, 5)
    idx = want[1].flatten(0, 1)
    edges = torch.stack([row[idx >= 0], (idx + row // 9 * 100)[idx >= 0]])
    for got in (want, edges, edges.flip(1)):
        checks.inside(LOOSE, queries, points, 0.4, got, want)
    far = edges.clone()
    far[1] = (far[1] + 37) % 100 + 100 * (far[1] >= 100)
    for wrong in (edges[:, 1:], far, torch.stack([edges[0], edges[1].roll(50)])):
        with pytest.raises(AssertionError):
            checks.inside(LOOSE, queries, points, 0.4, wrong, want)


def test_numbers_that_are_off_are_refused():
    want = (torch.ones(3), torch.zeros(2))
    checks.close(want, want, 1e-6)
    for wrong in ((torch.full((3,), 1.1), torch.zeros(2)), (torch.ones(3), torch.tensor([0.0, 1e-3]))):
        with pytest.raises(AssertionError, match=r"is .* off"):
            checks.close(wrong, want, 1e-2)
    with pytest.raises(AssertionError, match="not finite"):
        checks.close((torch.full((3,), torch.nan), torch.zeros(2)), want, 1.0)


@pytest.mark.parametrize("operator", providers.OPERATORS)
def test_without_a_peer(operator, monkeypatch):
    monkeypatch.setattr(providers, "modules_of", lambda p: "not installed" if p.modules else ())
    names = [p.name for p in providers.providers(operator, "cpu")]
    assert names[:3] == ["ours", "reference", "compiled reference"]
    assert set(names[3:]) <= {"cdist+topk", "matmul", "sdpa", "torch.gather", "torch.gather+sum"}
    found, missing = providers.roll_call("cpu")
    assert found == "peers found: none"
    assert "torch_quickfps (not installed)" in missing


def test_a_peer_that_does_not_import_says_why():
    broken = replace(LOOSE, modules=("recon_fast_no_such_package",))
    assert "ModuleNotFoundError" in peers.modules_of(broken)


def test_torch_forms_agree_with_the_reference():
    a, b = cloud("cube", 2, 40), cloud("cube", 2, 30, seed=1)
    found = {(p.operator, p.name): p for p in peers.PEERS}
    loss = providers.call(found["chamfer", "matmul"], a, b)
    torch.testing.assert_close(loss, reference.chamfer_distance(a, b), rtol=1e-4, atol=1e-6)
    cdist = found["knn", "cdist+topk"]
    checks.neighbors(cdist, a, b, providers.call(cdist, a, b, 4), reference.knn(a, b, 4))
    query, key = torch.rand(2, 3, 3, 8), torch.rand(2, 3, 5, 8)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    for name in ("matmul", "sdpa"):
        got = providers.call(found["cross-attention", name], query, key, key, mask)
        torch.testing.assert_close(got, reference.masked_cross_attention(query, key, key, mask))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_sees_what_a_call_needs():
    peak = peak_memory(lambda: torch.ones(32 << 18), "cpu")
    assert peak is None or 30 < peak < 40
