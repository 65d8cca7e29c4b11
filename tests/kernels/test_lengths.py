"""Lengths: nothing behind them is seen, an empty cloud has a result, impossible ones are refused."""

import os

import pytest
import torch
from devices import device_type, here

from recon_fast import kernels

pytestmark = pytest.mark.usefixtures("backend")
A, B = torch.tensor([0, 9, 4, 6, 0]), torch.tensor([11, 0, 11, 3, 0])  # of clouds of 9 and of 11 points
FILLINGS = {"NaN": float("nan"), "inf": float("-inf"), "huge": 1e30, "far": 100.0}
if os.environ.get("TRITON_INTERPRET") == "1":  # which takes its time
    FILLINGS = {"NaN": float("nan")}


def clouds(filling=0.0, scale=1.0):
    """Batches of 5 clouds of 9 and of 11 points; what is behind the lengths A and B is `filling`."""
    generator = torch.Generator().manual_seed(0)
    pair = []
    for lengths, size in ((A, 9), (B, 11)):
        cloud = torch.randn(5, size, 3, generator=generator) * scale
        cloud[torch.arange(size) >= lengths[:, None]] = filling
        pair.append(cloud)
    return [cloud.to(torch.empty(0).device) for cloud in pair]


def lengths(dtype=torch.int64):
    return here(A).to(dtype), here(B).to(dtype)


def chamfer(a, b, of_a, of_b, **options):
    options = {"pred_lengths": of_a, "target_lengths": of_b, "reduction": "none", **options}
    return kernels.chamfer_distance(a, b, **options)


# Of two batches of clouds and their lengths; those that take one batch, of the first.
OPERATORS = {
    "farthest_point_sample": lambda a, b, of_a, of_b: kernels.farthest_point_sample(a, 5, lengths=of_a),
    "knn": lambda a, b, of_a, of_b: kernels.knn(b[:, :3].nan_to_num(), a, 5, lengths=of_a),
    "ball_query": lambda a, b, of_a, of_b: kernels.ball_query(b[:, :3].nan_to_num(), a, 1.2, 5, lengths=of_a),
    "ball_query-first": lambda a, b, of_a, of_b: kernels.ball_query(
        b[:, :3].nan_to_num(), a, 1.2, 5, lengths=of_a, padding="first"
    ),
    "sample_and_group": lambda a, b, of_a, of_b: kernels.sample_and_group(a, 6, 5, lengths=of_a),
    "nearest_neighbor": lambda a, b, of_a, of_b: kernels.nearest_neighbor(
        b[:, :3].nan_to_num(), a, dst_lengths=of_a
    ),
    "mutual_nearest": lambda a, b, of_a, of_b: kernels.mutual_nearest(
        a, b, src_lengths=of_a, dst_lengths=of_b
    ),
    "chamfer_distance": chamfer,
    "chamfer_distance-l1": lambda *clouds: chamfer(*clouds, norm="l1", reduction="mean"),
    "chamfer_distance-single": lambda *clouds: chamfer(*clouds, single_directional=True),
    "f_score": lambda a, b, of_a, of_b: kernels.f_score(a, b, 0.7, pred_lengths=of_a, target_lengths=of_b),
    "density_aware_chamfer": lambda a, b, of_a, of_b: kernels.density_aware_chamfer(
        a, b, alpha=0.5, pred_lengths=of_a, target_lengths=of_b
    ),
}
# The first three points of each of b are queries there, so they have to be the same whatever is behind.
FILLED_QUERIES = {"knn", "ball_query", "ball_query-first", "nearest_neighbor"}


def results_and_gradients(name, filling, dtype=torch.float32, enlarged=0):
    a, b = (cloud.to(dtype) for cloud in clouds(filling))
    if name in FILLED_QUERIES:
        b = clouds()[1].to(dtype)
    if enlarged:  # more padding: sizes at which kernels take other ways
        a, b = (
            torch.cat([c, torch.full((5, enlarged, 3), filling, dtype=dtype).to(c.device)], 1) for c in (a, b)
        )
    a, b = a.requires_grad_(), b.requires_grad_()
    out = OPERATORS[name](a, b, *lengths())
    out = (out,) if isinstance(out, torch.Tensor) else tuple(out)
    total = sum(t[t.isfinite()].sum() for t in out if t.requires_grad)
    if not isinstance(total, torch.Tensor):
        return out, ()
    return out, torch.autograd.grad(total, (a, b), allow_unused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("enlarged", [0, 70])
@pytest.mark.parametrize("name", OPERATORS)
def test_nothing_behind_the_lengths_is_seen(name, enlarged, dtype):
    want, want_gradients = results_and_gradients(name, 0.0, dtype, enlarged)
    for kind, filling in FILLINGS.items():
        got, gradients = results_and_gradients(name, filling, dtype, enlarged)
        for a, b in zip(got, want, strict=True):
            assert torch.equal(a, b), kind
            assert not a.isnan().any(), kind
        for gradient, wanted in zip(gradients, want_gradients, strict=True):
            assert (gradient is None) == (wanted is None)
            if gradient is not None:
                assert torch.equal(gradient, wanted), kind


def test_short_clouds_are_as_good_as_cut_ones():
    a, b = clouds()
    loss, score = (
        chamfer(a, b, *lengths()),
        kernels.f_score(a, b, 0.7, pred_lengths=lengths()[0], target_lengths=lengths()[1]),
    )
    for i, (n, m) in enumerate(zip(A.tolist(), B.tolist(), strict=True)):
        if n and m:
            torch.testing.assert_close(loss[i], kernels.chamfer_distance(a[i : i + 1, :n], b[i : i + 1, :m]))
            alone = kernels.f_score(a[i : i + 1, :n], b[i : i + 1, :m], 0.7)
            torch.testing.assert_close(score.f_score[i : i + 1], alone.f_score)


def test_what_an_empty_cloud_gives():
    a, b = clouds(float("nan"))
    of_a, of_b = lengths()
    empty, alone = here(A == 0), here((A == 0) | (B == 0))
    assert kernels.farthest_point_sample(a, 5, lengths=of_a)[empty].eq(-1).all()
    queries = torch.zeros(5, 4, 3)
    for dist, idx in (
        kernels.knn(queries, a, 5, lengths=of_a),
        kernels.ball_query(queries, a, 9.0, 5, lengths=of_a),
        kernels.ball_query(queries, a, 9.0, 5, lengths=of_a, padding="first"),
        kernels.nearest_neighbor(queries, a, dst_lengths=of_a),
    ):
        assert idx[empty].eq(-1).all()
        assert dist[empty].eq(float("inf")).all()
        assert idx[~empty].ge(0).any()
    groups = kernels.sample_and_group(a, 6, 5, lengths=of_a)
    assert groups.center_idx[empty].eq(-1).all()
    assert groups.neighbor_idx[empty].eq(-1).all()
    assert groups.centers[empty].eq(0).all()
    assert groups.neighborhoods[empty].eq(0).all()
    dist, idx, back, back_idx = kernels.mutual_nearest(a, b, src_lengths=of_a, dst_lengths=of_b)
    for found, far, own in ((idx, dist, of_a), (back_idx, back, of_b)):
        there = (torch.arange(found.shape[1]) < own[:, None]) & ~alone[:, None]
        assert torch.equal(found >= 0, there)
        assert torch.equal(far.isinf(), ~there)
    for options in ({}, {"norm": "l1"}, {"single_directional": True}):
        loss = chamfer(a, b, of_a, of_b, **options)
        assert torch.equal(loss == 0, alone)
    assert torch.equal(
        kernels.density_aware_chamfer(a, b, alpha=0.5, pred_lengths=of_a, target_lengths=of_b) == 0, alone
    )
    for values in kernels.f_score(a, b, 9.0, pred_lengths=of_a, target_lengths=of_b):
        assert torch.equal(values == 0, alone)


def test_one_sided_lengths():
    """Clouds without lengths have none to spare them an empty partner."""
    a, b = clouds()
    for options in ({"pred_lengths": lengths()[0]}, {"target_lengths": lengths()[1]}):
        none = next(iter(options.values())) == 0
        for norm in ("l1", "l2"):
            a.requires_grad_()
            loss = kernels.chamfer_distance(a, b + 1, norm=norm, reduction="none", **options)
            assert torch.equal(loss == 0, none)
            (gradient,) = torch.autograd.grad(loss.sum(), a)
            assert torch.equal(gradient.eq(0).all(2).all(1), none)


@pytest.mark.parametrize("name", OPERATORS)
def test_any_layout_and_integer(name):
    a, b = clouds()
    want = OPERATORS[name](a, b, *lengths())
    apart = [torch.stack([t, t * 0 + 1], 1)[:, 0] for t in lengths()]
    for others in (lengths(torch.int32), apart):
        got = OPERATORS[name](a, b, *others)
        for x, y in zip(*((t,) if isinstance(t, torch.Tensor) else t for t in (got, want)), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("wrong", [-1, 10])
def test_impossible_lengths(name, wrong):
    a, b = clouds()
    of_a, of_b = lengths()
    of_a[2] = wrong
    if device_type() != "cpu":  # not looked at, but no more than the cloud is read
        possible = of_a.clamp(0, 9)
        results = OPERATORS[name](a, b, of_a, of_b), OPERATORS[name](a, b, possible, of_b)
        for x, y in zip(*((t,) if isinstance(t, torch.Tensor) else t for t in results), strict=True):
            assert torch.equal(x, y)
        return
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match=f"must be between 0 and 9, .* got {wrong} for cloud 2"):
            OPERATORS[name](a.to(dtype), b.to(dtype), of_a, of_b)
    for other, error, message in (
        (of_a.float(), ValueError, r"lengths must be an int32 or int64 \[5\], got torch.float32 \(5,\)"),
        (of_a[:4], ValueError, r"lengths must be an int32 or int64 \[5\], got torch.int64 \(4,\)"),
        (of_a.to("meta"), ValueError, "all tensors must be on one device, got .* on meta"),
        (of_a.tolist(), TypeError, "lengths must be a torch.Tensor, got list"),
    ):
        with pytest.raises(error, match=message):
            OPERATORS[name](a, b, other, of_b)


def test_the_first_sample_lies_within_the_lengths():
    a, _ = clouds()
    of_a, _ = lengths()
    assert kernels.farthest_point_sample(a, 2, lengths=of_a, start_index=3)[:, 0].tolist() == [
        -1,
        3,
        3,
        3,
        -1,
    ]
    if device_type() == "cpu":
        with pytest.raises(
            ValueError, match="start_index must be below every length, got 4 for the 4 points"
        ):
            kernels.farthest_point_sample(a, 2, lengths=of_a, start_index=4)
    else:  # a shorter cloud begins with its last point
        first = kernels.farthest_point_sample(a, 2, lengths=of_a, start_index=5)[:, 0]
        assert first.tolist() == [-1, 5, 3, 5, -1]


def test_a_compiled_graph_refuses_impossible_lengths():
    compiled = torch.compile(chamfer, fullgraph=True, backend="aot_eager")
    a, b = clouds()
    of_a, of_b = lengths()
    assert torch.equal(compiled(a, b, of_a, of_b), chamfer(a, b, of_a, of_b))
    of_a[0] = 10
    if device_type() == "cpu":
        with pytest.raises(ValueError, match="got 10 for cloud 0"):
            compiled(a, b, of_a, of_b)
