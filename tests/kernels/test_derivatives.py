"""Derivatives of every operator, in both modes and within torch.func, against differences of its values."""

import warnings

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map_only

from recon_fast import kernels

pytestmark = [
    pytest.mark.usefixtures("backend"),
    # What torch.func.vmap, which jacobians use, says of operators that it runs one after the other.
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    # What torch warns of in its own rules for forward mode, which it compiles when they are first needed.
    pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated"),
]
IDX = torch.tensor([[[0, 4], [3, -1], [2, 2]], [[5, 1], [0, 0], [6, 3]]])
MASK = torch.tensor([[True, False, True, True, False], [False] * 5])
LENGTHS = torch.tensor([7, 4])
OTHER_LENGTHS = torch.tensor([3, 5])
PACKED = torch.tensor([3, 2]), torch.tensor([4, 3])
WEIGHTS = torch.tensor([0.3, 2.0])
PAIR = {"pred_lengths": OTHER_LENGTHS, "target_lengths": LENGTHS}


def placed(constants):
    """Where tensors are made now."""
    device = torch.empty(0).device
    return tree_map_only(torch.Tensor, lambda t: t.to(device), constants)


def finite(dist, idx):
    return dist.masked_fill(idx < 0, 0)


def sides(both):
    return torch.cat([finite(*both[:2]), finite(*both[2:])], 1)


# What is differentiable, and the shapes of what it is differentiable in.
CLOUDS = ((2, 5, 3), (2, 7, 3))
OPERATORS = {
    "chamfer_distance": (lambda p, t: kernels.chamfer_distance(p, t), CLOUDS),
    "chamfer_distance-l1": (lambda p, t: kernels.chamfer_distance(p, t, norm="l1", **placed(PAIR)), CLOUDS),
    "chamfer_distance-weights": (
        lambda p, t: kernels.chamfer_distance(p, t, reduction="sum", weights=placed(WEIGHTS)),
        CLOUDS,
    ),
    "chamfer_distance-single": (
        lambda p, t: kernels.chamfer_distance(p, t, single_directional=True, **placed(PAIR)),
        CLOUDS,
    ),
    "density_aware_chamfer": (lambda p, t: kernels.density_aware_chamfer(p, t, alpha=0.5), CLOUDS),
    "knn": (lambda q, p: finite(*kernels.knn(q, p, 5, lengths=placed(LENGTHS))), CLOUDS),
    "ball_query": (lambda q, p: finite(*kernels.ball_query(q, p, 1.3, 4)), CLOUDS),
    "ball_query-first": (
        lambda q, p: kernels.ball_query(q, p, 1.3, 4, lengths=placed(LENGTHS), padding="first")[0],
        CLOUDS,
    ),
    "nearest_neighbor": (lambda s, d: kernels.nearest_neighbor(s, d)[0], CLOUDS),
    "mutual_nearest": (
        lambda s, d: sides(kernels.mutual_nearest(s, d, dst_lengths=placed(LENGTHS))),
        CLOUDS,
    ),
    "sample_and_group-centers": (lambda x: kernels.sample_and_group(x, 3, 4).centers, CLOUDS[1:]),
    "sample_and_group": (
        lambda x: kernels.sample_and_group(x, 5, 4, lengths=placed(LENGTHS)).neighborhoods,
        CLOUDS[1:],
    ),
    "gather_features": (lambda f: kernels.gather_features(f, placed(IDX)), ((2, 3, 7),)),
    "interpolate_features": (
        lambda f, w: kernels.interpolate_features(f, placed(IDX), w),
        ((2, 3, 7), (2, 3, 2)),
    ),
    "masked_cross_attention": (
        lambda q, k, v: kernels.masked_cross_attention(q, k, v, placed(MASK)),
        ((2, 2, 3, 8), (2, 2, 5, 8), (2, 2, 5, 8)),
    ),
    "linear_max": (kernels.linear_max, ((4, 6, 5), (3, 5), (3,))),
    "packed_knn": (lambda q, p: finite(*kernels.packed_knn(q, p, 4, *placed(PACKED))), ((5, 3), (7, 3))),
    "packed_ball_query": (
        lambda q, p: finite(*kernels.packed_ball_query(q, p, 1.3, 3, *placed(PACKED))),
        ((5, 3), (7, 3)),
    ),
}


def test_no_differentiable_operator_is_left_out():
    names = {name.partition("-")[0] for name in OPERATORS}
    constant = {"farthest_point_sample", "packed_farthest_point_sample", "f_score", "neighbor_edges"}
    others = {"FScore", "PointGroups", "reference", "torch_threads", "use_backend"}
    assert names | constant | others == set(kernels.__all__)


def problem(name):
    """The operator, inputs, a direction, and the derivative along it, from differences in float64."""
    run, shapes = OPERATORS[name]
    generator = torch.Generator().manual_seed(1)
    exact, direction = (
        placed([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]) for _ in range(2)
    )
    inputs = tuple(t.float() for t in exact)
    exact = [t.double() for t in inputs]
    step = 1e-6
    ahead, behind = (
        run(*[t + sign * step * d for t, d in zip(exact, direction, strict=True)]) for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * step)
    assert slope.abs().max() > 1e-3
    return run, inputs, tuple(d.float() for d in direction), slope


def assert_near(got, want):
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_forward_mode(name):
    run, inputs, direction, slope = problem(name)
    plain = run(*inputs)
    value, tangent = torch.func.jvp(run, inputs, direction)
    torch.testing.assert_close(value, plain)
    assert_near(tangent, slope)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(inputs, direction, strict=True)]
        value, tangent = forward_ad.unpack_dual(run(*duals))
    torch.testing.assert_close(value, plain)
    assert_near(tangent, slope)


@pytest.mark.parametrize("name", OPERATORS)
def test_reverse_mode(name):
    run, inputs, direction, slope = problem(name)
    every = tuple(range(len(inputs)))

    def total(*tensors):
        return (run(*tensors) * slope).sum()

    want = slope.square().sum()  # the derivative of the total along the direction
    leaves = [t.clone().requires_grad_() for t in inputs]
    ordinary = torch.autograd.grad(total(*leaves), leaves)
    for gradients in (ordinary, torch.func.grad(total, every)(*inputs)):
        assert_near(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)), want)
    for jacobians in (torch.func.jacrev(run, every)(*inputs), torch.func.jacfwd(run, every)(*inputs)):
        along = [(j * d).flatten(slope.ndim).sum(-1) for j, d in zip(jacobians, direction, strict=True)]
        assert_near(sum(along), slope)


@pytest.mark.parametrize("name", OPERATORS)
def test_forward_mode_through_a_backward_pass(name):
    """The gradients are linear in what flows back: they must not take a dual flow for a constant."""
    run, inputs, _, slope = problem(name)
    leaves = [t.clone().requires_grad_() for t in inputs]
    out, flow = run(*leaves), slope.float()
    want = torch.autograd.grad(out, leaves, flow, retain_graph=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.zeros_like(flow), flow)
        gradients = torch.autograd.grad(out, leaves, dual)
        for got, wanted in zip(gradients, want, strict=True):
            assert_near(forward_ad.unpack_dual(got).tangent, wanted)


def test_second_derivatives():
    run, inputs, *_ = problem("chamfer_distance")
    exact = [t.double().requires_grad_() for t in inputs]
    want = torch.autograd.functional.hessian(run, tuple(exact))[0][1]
    assert_near(torch.func.hessian(run, (0, 1))(*inputs)[0][1], want)


def test_vmap():
    run, inputs, *_ = problem("knn")
    many = [torch.stack([t, t + 1, t * 2]) for t in inputs]
    got = torch.func.vmap(run)(*many)
    for each, *one in zip(got, *many, strict=True):
        torch.testing.assert_close(each, run(*one))


def test_compiled_forward_mode():
    run, inputs, direction, slope = problem("chamfer_distance")

    def tangent(*inputs):
        return torch.func.jvp(run, inputs, direction)[1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code that is being traced
        got = torch.compile(tangent, fullgraph=True, backend="aot_eager")(*inputs)
    assert_near(got, slope)


def test_a_compiled_graph_without_transforms_holds_the_operator():
    graphs = []

    def keep(module, inputs):
        graphs.append(module.graph)
        return module.forward

    run, inputs, *_ = problem("chamfer_distance")
    assert torch.equal(torch.compile(run, fullgraph=True, backend=keep)(*inputs), run(*inputs))
    (graph,) = graphs
    assert any("chamfer_pairs" in str(node.target) for node in graph.nodes)


def test_padding_has_no_derivative():
    pred, target = problem("chamfer_distance")[1]
    lengths = placed(torch.tensor([3, 0]))
    clean = pred.clone()
    pred[0, 3:], pred[1] = float("nan"), float("inf")
    ones = torch.ones_like(pred), torch.ones_like(target)
    for cloud in (pred, clean):
        gradients = torch.func.grad(
            lambda p, t: kernels.chamfer_distance(p, t, pred_lengths=lengths, norm="l1"), (0, 1)
        )(cloud, target)
        assert all(g.isfinite().all() for g in gradients)
        assert gradients[0][0, 3:].eq(0).all()
        assert gradients[0][1].eq(0).all()
        assert gradients[1][1].eq(0).all()
        value, tangent = torch.func.jvp(
            lambda p, t: kernels.chamfer_distance(p, t, pred_lengths=lengths), (cloud, target), ones
        )
        assert value.isfinite()
        assert_near(tangent, torch.zeros(()))  # both clouds move alike
