"""What kernels promise whatever computes them: results index for index equal to the reference."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_fast.kernels import (
    ball_query,
    chamfer_distance,
    farthest_point_sample,
    knn,
    masked_cross_attention,
    mutual_nearest,
    nearest_neighbor,
    reference,
    sample_and_group,
)

each_backend = pytest.mark.usefixtures("backend")
KINDS = ("normal", "grid", "equal", "line", "far", "outlier", "broken", "all broken", "huge")
# The interpreter computes in numpy, which has no bfloat16 and takes its time; float64 goes to the reference.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = (torch.float32, torch.float16, *(() if INTERPRETED else (torch.bfloat16, torch.float64)))
SIZES = (2, 90, 5) if INTERPRETED else (3, 90, 40)  # most clouds, points and queries
property_test = settings.get_profile("kernels")


def cloud(kind: str, B: int, N: int, seed: int) -> torch.Tensor:
    """Points [B, N, 3] of a kind that breaks careless kernels."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randn(B, N, 3, generator=generator)
    broken = torch.rand(B, N, generator=generator)
    if kind == "grid":  # many equal distances, many duplicates
        return torch.randint(0, 3, (B, N, 3), generator=generator).float()
    if kind == "equal":
        return torch.full((B, N, 3), 0.7)
    if kind == "line":
        return xyz * torch.tensor([1.0, 0.0, 0.0])
    if kind == "far":
        return xyz + 1e4
    if kind == "outlier":
        xyz[:, 0] = 1e4
    elif kind == "broken":
        xyz[broken < 0.3, 1] = float("nan")
        xyz[broken > 0.8, 2] = float("-inf")
    elif kind == "all broken":
        xyz.fill_(float("nan"))
    elif kind == "huge":
        return xyz * 1e30  # squared distances overflow
    return xyz


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        if a.is_floating_point():
            a, b = a.nan_to_num(-7.0), b.nan_to_num(-7.0)
        assert torch.equal(a, b)


@st.composite
def problems(draw):
    """(points [B, N, 3], queries [B, M, 3], lengths or None, a number between 1 and N)."""
    B, N, M = (draw(st.integers(1, most)) for most in SIZES)
    seed = draw(st.integers(0, 2**16))
    dtype = draw(st.sampled_from(DTYPES))
    points = cloud(draw(st.sampled_from(KINDS)), B, N, seed).to(dtype)
    queries = cloud(draw(st.sampled_from(KINDS)), B, M, seed + 1).to(dtype)
    lengths = draw(st.none() | st.lists(st.integers(0, N), min_size=B, max_size=B))
    count = draw(st.sampled_from(sorted({1, N})) | st.integers(1, N))
    return points, queries, None if lengths is None else torch.tensor(lengths), count


@each_backend
@property_test
@given(problems(), st.booleans(), st.integers(0, 89))
def test_farthest_point_sample(problem, skip, start):
    points, _, lengths, count = problem
    shortest = points.shape[1] if lengths is None else int(lengths.min())
    options = {
        "lengths": lengths,
        "start_index": start % shortest if shortest else 0,
        "skip_near_origin": skip,
    }
    got = farthest_point_sample(points, count, **options)
    assert torch.equal(got, reference.farthest_point_sample(points, count, **options))


@each_backend
@property_test
@given(problems())
def test_knn(problem):
    points, queries, lengths, count = problem
    got = knn(queries, points, count, lengths=lengths)
    assert_same(got, reference.knn(queries, points, count, lengths=lengths))


@each_backend
@property_test
@given(problems(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e30]), st.sampled_from(["none", "first"]))
def test_ball_query(problem, radius, padding):
    points, queries, lengths, count = problem
    options = {"lengths": lengths, "padding": padding}
    got = ball_query(queries, points, radius, count + 2, **options)
    assert_same(got, reference.ball_query(queries, points, radius, count + 2, **options))


@each_backend
@property_test
@given(problems())
def test_nearest_neighbor(problem):
    points, queries, lengths, _ = problem
    got = nearest_neighbor(queries, points, dst_lengths=lengths)
    want = reference.nearest_neighbor(queries, points, dst_lengths=lengths)
    assert_same(got, want)
    both = mutual_nearest(queries, points, dst_lengths=lengths)
    assert_same(both, reference.mutual_nearest(queries, points, dst_lengths=lengths))


@each_backend
@property_test
@given(problems())
def test_sample_and_group(problem):
    points, _, lengths, count = problem
    got = sample_and_group(points, count, min(count, 9), lengths=lengths)
    assert_same(got, reference.sample_and_group(points, count, min(count, 9), lengths=lengths))


@each_backend
@property_test
@given(problems(), st.sampled_from(["l1", "l2"]), st.sampled_from(["mean", "sum", "none"]))
def test_chamfer_distance(problem, norm, reduction):
    points, queries, lengths, _ = problem
    losses, grads = [], []
    for run in (chamfer_distance, reference.chamfer_distance):
        inputs = [t.clone().requires_grad_() for t in (queries, points)]
        losses.append(run(*inputs, target_lengths=lengths, norm=norm, reduction=reduction))
        grads.append(torch.autograd.grad(losses[-1].sum(), inputs))
    tolerance = {"equal_nan": True, "rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(*losses, **tolerance)
    if points.dtype in (torch.float16, torch.bfloat16):  # the sum may be rounded on either side of a step
        tolerance |= {"rtol": 0.02, "atol": 0.01}
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, **tolerance)


@each_backend
@property_test
@given(
    st.sampled_from([1, 3, 4, 5]),
    st.integers(1, 70),
    st.sampled_from([1, 8, 33, 64]),
    st.sampled_from(DTYPES),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_masked_cross_attention(Q, S, D, dtype, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    exact = [torch.randn(2, 3, n, D, generator=generator, dtype=torch.float64).to(dtype) for n in (Q, S, S)]
    mask = torch.rand(2, S, generator=generator) > 0.4 if masked else None
    grad = torch.randn(2, 3, Q, D, generator=generator, dtype=torch.float64).to(dtype)
    if masked:
        junk = ~mask[:, None, :, None]
        exact[1:] = [t.masked_fill(junk, float("nan")) for t in exact[1:]]

    def run(function, inputs):
        inputs = [t.clone().requires_grad_() for t in inputs]
        out = function(*inputs, mask)
        return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]

    want = run(reference.masked_cross_attention, [t.double() for t in exact])
    slack = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]
    for got, ideal in zip(run(masked_cross_attention, exact), want, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), ideal, rtol=slack, atol=slack)


@each_backend
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_large_clouds_take_the_pruned_paths(kind, monkeypatch):
    from recon_fast.kernels.cpu import ball as cpu_ball
    from recon_fast.kernels.cpu import fps as cpu_fps
    from recon_fast.kernels.cpu import knn as cpu_knn
    from recon_fast.kernels.cpu import nearest as cpu_nearest

    for module in (cpu_ball, cpu_fps, cpu_knn, cpu_nearest):
        monkeypatch.setattr(module, "_PRUNE_FROM", 1)
    monkeypatch.setattr(cpu_ball, "_QUERIES_FROM", 1)
    points, queries = cloud(kind, 2, 1100, 3), cloud(kind, 2, 150, 4)
    lengths = torch.tensor([1100, 700])
    for valid in (None, lengths):
        got = farthest_point_sample(points, 200, lengths=valid)
        assert torch.equal(got, reference.farthest_point_sample(points, 200, lengths=valid))
        assert_same(
            knn(queries, points, 17, lengths=valid), reference.knn(queries, points, 17, lengths=valid)
        )
        for radius, k in ((0.1, 5), (0.4, 9), (0.4, 1100)):
            want = reference.ball_query(queries, points, radius, k, lengths=valid)
            assert_same(ball_query(queries, points, radius, k, lengths=valid), want)
        want = reference.nearest_neighbor(queries, points, dst_lengths=valid)
        assert_same(nearest_neighbor(queries, points, dst_lengths=valid), want)
        loss = chamfer_distance(queries, points, target_lengths=valid)
        want = reference.chamfer_distance(queries, points, target_lengths=valid)
        torch.testing.assert_close(loss, want, equal_nan=True)


def strided(xyz: torch.Tensor) -> dict[str, torch.Tensor]:
    B, N, _ = xyz.shape
    wide = torch.full((B, 2 * N, 5), 9.0)
    wide[:, ::2, 1:4] = xyz
    return {
        "transposed": xyz.transpose(1, 2).contiguous().transpose(1, 2),
        "sliced": wide[:, ::2, 1:4],
        "expanded": xyz[:1].expand(B, N, 3),
        "batch innermost": xyz.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    }


@each_backend
@pytest.mark.parametrize("layout", strided(torch.zeros(1, 1, 3)))
def test_any_strides(layout):
    xyz = strided(cloud("normal", 3, 65, 0))[layout]
    plain = xyz.contiguous()
    assert torch.equal(farthest_point_sample(xyz, 9), farthest_point_sample(plain, 9))
    assert_same(knn(xyz[:, :9], xyz, 5), knn(plain[:, :9], plain, 5))
    assert_same(ball_query(xyz[:, :9], xyz, 0.9, 5), ball_query(plain[:, :9], plain, 0.9, 5))
    assert_same(nearest_neighbor(xyz, xyz), nearest_neighbor(plain, plain))
    assert torch.equal(chamfer_distance(xyz, xyz + 1), chamfer_distance(plain, plain + 1))


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_takes_any_strides(dtype):
    query, key = torch.randn(2, 3, 4, 8).to(dtype), torch.randn(2, 26, 4, 2, 8).to(dtype)
    views = [query.transpose(1, 2), *key.unbind(3)]
    views[1:] = [t.transpose(1, 2) for t in views[1:]]
    alike = [t[:1, :1].expand(2, 4, -1, -1) for t in views]
    across = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in views]
    for tensors in (views, alike, across):  # matrix products may sum in another order
        want = masked_cross_attention(*[t.clone(memory_format=torch.contiguous_format) for t in tensors])
        torch.testing.assert_close(masked_cross_attention(*tensors), want)


@each_backend
def test_grad_reaches_what_the_padding_does_not_hide():
    points = cloud("normal", 2, 12, 0).requires_grad_()
    queries = cloud("normal", 2, 5, 1).requires_grad_()
    dist, idx = knn(queries, points, 6, lengths=torch.tensor([12, 4]))
    dist[idx >= 0].sum().backward()
    assert points.grad[1, 4:].eq(0).all()
    assert points.grad.isfinite().all()
    assert queries.grad.ne(0).all()
