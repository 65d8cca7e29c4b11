"""Points of any width: as three coordinates, index for index and bit for bit what the reference gives."""

import pytest
import torch
from devices import device_type, here
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_fast import kernels
from recon_fast.kernels import reference, wide

pytestmark = pytest.mark.usefixtures("backend")
WIDTHS = (1, 2, 4, 5, 16, 64, 256)
KINDS = ("normal", "grid", "copies", "equal", "far", "outlier", "broken", "all broken", "huge", "tiny")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def cloud(kind: str, B: int, N: int, D: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(B, N, D, generator=generator)
    if kind == "grid":  # many equal distances
        return torch.randint(0, 2, (B, N, D), generator=generator).float()
    if kind == "copies":
        return points[:, torch.randint(0, N // 5 + 1, (N,), generator=generator)]
    if kind == "equal":
        return torch.full((B, N, D), 0.7)
    if kind == "far":
        return points + 1e4
    if kind == "outlier":
        points[:, 0] = 1e4
    elif kind == "broken":
        points[torch.rand(B, N, generator=generator) < 0.2, -1] = float("nan")
        points[torch.rand(B, N, generator=generator) < 0.2, 0] = float("-inf")
    elif kind == "all broken":
        points.fill_(float("nan"))
    return points * {"huge": 1e30, "tiny": 1e-22}.get(kind, 1)


def assert_same(got, want):
    got, want = (t if isinstance(t, tuple) else (t,) for t in (got, want))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(*((t.nan_to_num(-7.0) if t.is_floating_point() else t) for t in (a, b)))


@settings(settings.get_profile("kernels"), max_examples=40)
@given(st.data())
def test_what_the_reference_gives(data):
    draw = data.draw
    B, M, D = draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(st.sampled_from(WIDTHS))
    N = draw(st.integers(1, 60) | st.sampled_from([160, 200]))
    seed, dtype = draw(st.integers(0, 2**16)), draw(st.sampled_from(DTYPES))
    points = cloud(draw(st.sampled_from(KINDS)), B, N, D, seed).to(dtype)
    queries = cloud(draw(st.sampled_from(KINDS)), B, M, D, seed + 1).to(dtype)
    lengths = draw(st.none() | st.lists(st.integers(0, N), min_size=B, max_size=B).map(torch.tensor))
    k = draw(st.sampled_from(sorted({1, N})) | st.integers(1, N))
    got = kernels.knn(queries, points, k, lengths=lengths)
    assert_same(got, reference.knn(queries, points, k, lengths=lengths))
    got = kernels.mutual_nearest(queries, points, dst_lengths=lengths)
    assert_same(got, reference.mutual_nearest(queries, points, dst_lengths=lengths))
    got = kernels.mutual_nearest(points, queries, src_lengths=lengths)
    assert_same(got, reference.mutual_nearest(points, queries, src_lengths=lengths))
    radius = draw(st.sampled_from([0.0, 1.0, (1.5 * D) ** 0.5, 1e30]))
    options = {"lengths": lengths, "padding": draw(st.sampled_from(["none", "first"]))}
    got = kernels.ball_query(queries, points, radius, k + 2, **options)
    assert_same(got, reference.ball_query(queries, points, radius, k + 2, **options))
    options = {"lengths": lengths, "skip_near_origin": draw(st.booleans())}
    got = kernels.farthest_point_sample(points, k, **options)
    assert_same(got, reference.farthest_point_sample(points, k, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_sorts_sums_of_squares(dtype):
    for D in (4, 5, 64):
        queries, points = (torch.randn(2, n, D, dtype=dtype) for n in (7, 30))
        exact = (queries[:, :, None].double() - points[:, None].double()).square().sum(-1)
        dist, idx = reference.knn(queries, points, 30)
        torch.testing.assert_close(dist, exact.gather(2, idx).to(dtype))
        assert (dist.diff() >= 0).all()
        assert torch.equal(idx.sort().values, torch.arange(30).expand(2, 7, 30))


def test_products_leave_little_to_the_reference(monkeypatch):
    if kernels.backend.backend_in_use("knn") == ("reference", "chosen by use_backend"):
        pytest.skip("it is the reference")
    normal, copies = torch.randn(2, 400, 64), torch.randn(2, 50, 64).repeat(1, 8, 1)
    problems = [normal, normal + 1e4, copies, torch.randn(2, 399, 4)]
    want = [reference.knn(x, x, 16) for x in problems]
    monkeypatch.setattr(reference, "knn", None)
    for x, near in zip(problems, want, strict=True):
        assert_same(kernels.knn(x, x, 16), near)


def test_many_points_go_through_in_blocks(monkeypatch):
    x, lengths = torch.randn(3, 70, 5, requires_grad=True), here(torch.tensor([70, 3, 0]))
    results = []
    for room in (wide._ROOM, 4000, 1):
        monkeypatch.setattr(wide, "_ROOM", room)
        dist, idx = kernels.knn(x, x, 9, lengths=lengths)
        ball = kernels.ball_query(x, x, 2.0, 9, lengths=lengths)
        (gradient,) = torch.autograd.grad(dist[idx >= 0].sum(), x)
        results.append((dist.detach(), idx, ball[0].detach(), ball[1], gradient))
    for blocks in results[1:]:
        torch.testing.assert_close(blocks, results[0])
        assert torch.equal(blocks[1], results[0][1])


def test_a_captured_graph_takes_the_reference(monkeypatch):
    x = torch.randn(2, 40, 5)
    want = kernels.knn(x, x, 3), kernels.ball_query(x, x, 1.0, 3)
    monkeypatch.setattr(wide, "_is_captured", lambda tensor: True)
    for got, before in zip((kernels.knn(x, x, 3), kernels.ball_query(x, x, 1.0, 3)), want, strict=True):
        assert_same(got, before)


def test_low_precision_of_products_changes_nothing():
    x = torch.randn(2, 200, 64) + 10
    want = kernels.knn(x, x, 5), kernels.ball_query(x, x, 10.0, 5)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast(device_type(), torch.bfloat16):
            got = kernels.knn(x, x, 5), kernels.ball_query(x, x, 10.0, 5)
    finally:
        torch.set_float32_matmul_precision(before)
    for a, b in zip(got, want, strict=True):
        assert_same(a, b)


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated")
@pytest.mark.parametrize("D", [2, 5])
def test_gradients(D):
    queries, points = (torch.randn(2, n, D, requires_grad=True) for n in (6, 20))
    for search in (
        lambda q, p: kernels.knn(q, p, 4, lengths=here(torch.tensor([20, 3]))),
        lambda q, p: kernels.ball_query(q, p, 2.0, 4),
        lambda q, p: kernels.nearest_neighbor(q, p),
        lambda q, p: kernels.mutual_nearest(q, p)[2:],
    ):
        dist, idx = search(queries, points)
        src, dst = (points, queries) if idx.shape[1] == 20 else (queries, points)
        flat = idx.clamp_min(0).view(*idx.shape[:2], -1)
        rows = dst[torch.arange(2)[:, None, None], flat] - src[:, :, None]
        want = rows.square().sum(-1).view_as(dist)[idx >= 0]
        got = dist[idx >= 0]
        torch.testing.assert_close(got, want)
        grads = (torch.autograd.grad(d.square().sum(), (queries, points)) for d in (got, want))
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    exact = [t.detach().double().requires_grad_() for t in (queries[:, :2], points[:, :4])]
    assert torch.autograd.gradgradcheck(lambda q, p: kernels.knn(q, p, 2)[0], exact)
    _, slope = torch.func.jvp(
        lambda q: kernels.knn(q, points.detach(), 2)[0], (queries.detach(),), (queries.detach(),)
    )
    assert slope.isfinite().all()


def test_packed_batches():
    x, lengths = torch.randn(70, 6), torch.tensor([30, 0, 40])
    dist, idx = kernels.packed_knn(x, x, 35, lengths, lengths)
    inside = kernels.packed_ball_query(x, x, 3.0, 5, lengths, lengths)
    samples = kernels.packed_farthest_point_sample(x, lengths, lengths // 2)
    for rows, taken in ((slice(30), samples[:15]), (slice(30, 70), samples[15:])):
        own, begin = x[None, rows], rows.start or 0
        near = kernels.knn(own, own, min(35, own.shape[1]))
        assert_same((dist[None, rows, :30], idx[None, rows, :30] - begin), tuple(t[..., :30] for t in near))
        ball = kernels.ball_query(own, own, 3.0, 5)
        assert torch.equal(inside[1][rows], torch.where(ball[1] < 0, -1, ball[1] + begin)[0])
        assert torch.equal(taken - begin, kernels.farthest_point_sample(own, len(taken))[0])
    assert idx[:30, 30:].eq(-1).all()


def test_compiles_into_one_graph():
    def everything(x, lengths):
        samples = kernels.farthest_point_sample(x, 4)
        dist, idx = kernels.knn(x, x, 3, lengths=lengths)
        near, _, back, _ = kernels.mutual_nearest(x, x[:, :9] + 0.1)
        inside, _ = kernels.ball_query(x, x, 2.0, 3, padding="first")
        return near.sum() + back.sum() + dist[0].sum() + inside.sum(), samples, idx

    for D in (2, 5):
        x, lengths = torch.randn(2, 20, D, requires_grad=True), here(torch.tensor([20, 7]))
        results = []
        for run in (everything, torch.compile(everything, fullgraph=True, backend="aot_eager")):
            loss, *indices = run(x, lengths)
            results.append((loss, *indices, *torch.autograd.grad(loss, x)))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want)


def test_operators_pass_torch_library_checks():
    """Of clouds whose axes lie in another order, as features do."""
    queries, points = (torch.randn(2, 5, n).mT for n in (9, 40))
    idx = here(torch.tensor([[[0, 39], [-1, 3], [2, 2]]])).repeat(2, 3, 1)
    inputs = queries.detach().requires_grad_(), points.detach().requires_grad_()
    for name, arguments in (
        ("knn", (*inputs, 3, None)),
        ("ball_query", (*inputs, 1.5, 3, None, "first")),
        ("mutual_nearest", (*inputs, None, None)),
        ("farthest_point_sample", (points, 5, None, 0, False)),
        ("distance_backward", (torch.ones(2, 9, 2), queries, points, idx)),
    ):
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(getattr(torch.ops.recon_fast, name).default, arguments, test_utils=checks)
