"""The operators under torch.library's own checks, torch.compile, torch.export and autocast."""

import pytest
import torch
from devices import device_type, here

from recon_fast import kernels

ops = torch.ops.recon_fast
pytestmark = pytest.mark.usefixtures("backend")


def points(N=20, seed=0, **options):
    return torch.randn(2, N, 3, generator=torch.Generator().manual_seed(seed)).requires_grad_(**options)


LENGTHS = torch.tensor([20, 11])
IDX = torch.tensor([[[0, 1], [3, -1], [2, 2]]] * 2)
ROWS = [torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n)) for n in (3, 20)]
QKV = [torch.randn(2, 2, n, 8, generator=torch.Generator().manual_seed(n)) for n in (3, 7, 7)]
MASK = torch.tensor([[True] * 7, [False] * 7])

OPERATIONS = {
    "fps": (ops.farthest_point_sample.default, (points(requires_grad=False), 5, LENGTHS, 0, False)),
    "fps-plain": (ops.farthest_point_sample.default, (points(requires_grad=False), 5, None, 2, True)),
    "knn": (ops.knn.default, (points(7), points(), 4, LENGTHS)),
    "ball": (ops.ball_query.default, (points(7), points(), 0.8, 4, LENGTHS, "first")),
    "sum": (
        ops.sum_features.default,
        (ROWS[1].clone().requires_grad_(), IDX, torch.rand(2, 3, 2)),
    ),
    "scatter": (ops.scatter_features.default, (ROWS[0].clone().requires_grad_(), IDX, None, 20)),
    "match": (ops.match_features.default, (*ROWS, IDX)),
    "nearest": (ops.nearest_neighbor.default, (points(7), points(), None, LENGTHS)),
    "mutual": (ops.mutual_nearest.default, (points(seed=1), points(), None, LENGTHS)),
    "distance": (
        ops.distance_backward.default,
        (torch.ones(2, 3, 2), points(3, requires_grad=False), points(requires_grad=False), IDX),
    ),
    "pairs": (
        ops.chamfer_pairs.default,
        (points(7), points(seed=1, requires_grad=False), None, LENGTHS, "l1", True, False),
    ),
    "pairs-without-gradient": (
        ops.chamfer_pairs.default,
        (points(7, requires_grad=False), points(requires_grad=False), None, None, "l2", False, False),
    ),
    "group": (ops.group.default, (points(), torch.tensor([[0, 5], [3, -1]]), 4, LENGTHS)),
    "group-backward": (
        ops.group_backward.default,
        (points(3).detach().requires_grad_(), points(6).view(2, 3, 2, 3), IDX[..., 0], IDX, 20),
    ),
    "attention": (
        ops.masked_cross_attention.default,
        (*[t.clone().requires_grad_() for t in QKV], MASK, 0.3),
    ),
    "attention-backward": (
        ops.masked_cross_attention_backward.default,
        (torch.ones(2, 2, 3, 8), *QKV, MASK, 0.3, torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 3), True),
    ),
    "attention-backward-of-queries": (
        ops.masked_cross_attention_backward.default,
        (torch.ones(2, 2, 3, 8), *QKV, None, 0.3, torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 3), False),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_opcheck(name):
    operation, arguments = OPERATIONS[name][0], here(OPERATIONS[name][1])
    # Without test_aot_dispatch_dynamic, which differs by no more than dynamic shapes and takes 20 s in all.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, arguments, test_utils=checks)


class Everything(torch.nn.Module):
    """All operators in one graph; the loss depends on points, query, key and value."""

    def forward(self, xyz, query, key, value, mask):
        groups = kernels.sample_and_group(xyz, 6, 4)
        near, _ = kernels.nearest_neighbor(groups.centers, xyz + 0.1)
        dist, idx = kernels.knn(groups.centers, xyz, 3)
        inside, _ = kernels.ball_query(groups.centers, xyz, 0.8, 3, padding="first")
        rows = kernels.gather_features(xyz.mT, idx)
        inside = inside + kernels.interpolate_features(rows[..., 0], idx[..., :2] % 6, dist[..., :2])[0, 0, 0]
        loss = kernels.chamfer_distance(groups.neighborhoods.flatten(1, 2), xyz, norm="l1")
        loss = loss + near.sum() + dist.sum() + inside.sum() + groups.neighborhoods.square().sum()
        return loss + kernels.masked_cross_attention(query, key, value, mask).square().sum(), idx


def test_compiles_into_one_graph():
    model, leaves = Everything(), [points(), *[t.requires_grad_() for t in here(QKV)]]
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        loss, idx = run(*leaves, here(MASK))
        results.append((loss, idx, *torch.autograd.grad(loss, leaves)))
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.slow
def test_compiles_with_inductor():
    model, leaves = Everything(), [points(), *[t.requires_grad_() for t in here(QKV)]]
    want, idx = model(*leaves, here(MASK))
    got, got_idx = torch.compile(model, fullgraph=True)(*leaves, here(MASK))
    assert torch.equal(got_idx, idx)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))


def test_exports():
    model, arguments = Everything(), (points(requires_grad=False), *here(QKV), here(MASK))
    program = torch.export.export(model, arguments)
    assert any("recon_fast.knn" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), model(*arguments))


def test_autocast_leaves_geometry_in_float32():
    xyz = points(64, requires_grad=False) + 100
    want = kernels.sample_and_group(xyz, 8, 5), kernels.chamfer_distance(xyz, xyz + 0.01)
    with torch.autocast(device_type(), torch.bfloat16):
        got = kernels.sample_and_group(xyz, 8, 5), kernels.chamfer_distance(xyz, xyz + 0.01)
    assert all(torch.equal(a, b) for a, b in zip(got[0], want[0], strict=True))
    assert torch.equal(got[1], want[1])


def test_autocast_casts_attention():
    leaves = [t.requires_grad_() for t in here(QKV)]
    with torch.autocast(device_type(), torch.bfloat16):
        out = kernels.masked_cross_attention(*leaves)
        assert kernels.masked_cross_attention(*[t.double() for t in here(QKV)]).dtype == torch.float64
        mixed = kernels.masked_cross_attention(leaves[0].bfloat16(), *leaves[1:])
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, mixed)
    assert torch.equal(out, kernels.masked_cross_attention(*[t.bfloat16() for t in here(QKV)]))
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), leaves))


def test_gradients_against_float64():
    pred, target = points(15), points(20, seed=1)
    exact = [t.detach().double().requires_grad_() for t in (pred, target)]
    for norm in ("l1", "l2"):
        got = torch.autograd.grad(kernels.chamfer_distance(pred, target, norm=norm), (pred, target))
        want = torch.autograd.grad(kernels.chamfer_distance(*exact, norm=norm), exact)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)


def test_gradients_that_nobody_announced():
    """A graph that was traced without gradients may be trained all the same."""
    inputs = points(15), points(20, seed=1)
    loss, *gradients = ops.chamfer_pairs(*inputs, None, None, "l2", False, False)
    assert all(gradient.numel() == 0 for gradient in gradients)
    want = torch.autograd.grad(kernels.chamfer_distance(*inputs, reduction="sum"), inputs)
    for got, wanted in zip(torch.autograd.grad(loss.sum(), inputs), want, strict=True):
        assert torch.equal(got, wanted)


def test_padding_gets_no_gradient_and_gives_none():
    pred, target = (points(20, seed).detach() for seed in (0, 1))
    pred[1, 11:], target[1, 11:] = float("nan"), float("inf")
    for dtype in (torch.float32, torch.float64):
        inputs = [t.to(dtype).requires_grad_() for t in (pred, target)]
        loss = kernels.chamfer_distance(
            *inputs, pred_lengths=here(LENGTHS), target_lengths=here(LENGTHS), norm="l1"
        )
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, inputs):
            assert gradient.isfinite().all()
            assert gradient[1, 11:].eq(0).all()


def test_second_derivatives_of_a_float32_loss_are_an_error():
    pred = points(4)
    with pytest.raises(RuntimeError, match="second derivatives of float64 clouds"):
        torch.autograd.grad(kernels.chamfer_distance(pred, points(5)), pred, create_graph=True)


def test_gradients_of_groups():
    xyz = points()
    exact = xyz.detach().double().requires_grad_()
    weights = torch.arange(5.0)[:, None]
    results = []
    for run, cloud in ((kernels.sample_and_group, xyz), (kernels.reference.sample_and_group, exact)):
        centers, neighborhoods, *_ = run(cloud, 13, 5, lengths=here(LENGTHS))
        for loss in (centers.square().sum(), (neighborhoods * weights).square().sum() + centers.sum()):
            results.append(torch.autograd.grad(loss, cloud, retain_graph=True)[0].double())
    for got, want in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_float64_is_differentiable_twice():
    inputs = [t.detach().double().requires_grad_() for t in (points(4), points(6, seed=1))]
    assert torch.autograd.gradgradcheck(lambda p, t: kernels.chamfer_distance(p, t), inputs)
    assert torch.autograd.gradgradcheck(lambda p, t: kernels.knn(p, t, 2)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda p: kernels.sample_and_group(p, 2, 2)[:2], inputs[:1])
