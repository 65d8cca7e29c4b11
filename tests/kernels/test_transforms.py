"""torch.func and forward-mode differentiation: derivatives are right in both modes, never a silent 0."""

import numpy as np
import pytest
import torch
from devices import here
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from recon_fast.kernels import (
    ball_query,
    chamfer_distance,
    density_aware_chamfer,
    farthest_point_sample,
    gather_features,
    interpolate_features,
    knn,
    linear_max,
    masked_cross_attention,
    mutual_nearest,
    nearest_neighbor,
    packed_ball_query,
    packed_farthest_point_sample,
    packed_knn,
    sample_and_group,
)

# torch's own rules for forward mode are made with it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
each_backend = pytest.mark.usefixtures("backend")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CLOUD, OTHER, LENGTHS = normal(2, 12, 3), normal(2, 9, 3, seed=1), torch.tensor([12, 5])
QUERY, KEY, VALUE = normal(2, 2, 3, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 4, seed=2)
MASK = torch.tensor([[True, True, False, True, False], [False] * 5])
FEATURES, WEIGHTS = normal(2, 4, 12), normal(2, 7, 3, seed=1)
IDX = torch.randint(-1, 12, (2, 7, 3), generator=torch.Generator().manual_seed(0))
GROUPS, LINEAR, BIAS = normal(5, 6, 4), normal(3, 4, seed=1), normal(3, seed=2)
FLAT, SIZES, OTHER_SIZES = normal(24, 3), torch.tensor([10, 14]), torch.tensor([9, 9])

# Each with the tensor that it is differentiated in; the others are cast to its dtype.
OPERATORS = {
    "chamfer_distance": (lambda x: chamfer_distance(x, OTHER.to(x)), CLOUD),
    "chamfer_distance of the target": (lambda x: chamfer_distance(OTHER.to(x), x, norm="l1"), CLOUD),
    "chamfer_distance with lengths": (
        lambda x: chamfer_distance(
            x, OTHER.to(x), pred_lengths=LENGTHS.to(x.device), norm="l1", reduction="none"
        ),
        CLOUD,
    ),
    "chamfer_distance one way": (lambda x: chamfer_distance(x, OTHER.to(x), single_directional=True), CLOUD),
    "nearest_neighbor": (lambda x: nearest_neighbor(x, OTHER.to(x))[0], CLOUD),
    "mutual_nearest": (lambda x: mutual_nearest(OTHER.to(x), x)[0], CLOUD),
    "density_aware_chamfer": (lambda x: density_aware_chamfer(x, OTHER.to(x), alpha=1.0), CLOUD),
    "knn": (lambda x: knn(OTHER.to(x), x, 4)[0], CLOUD),
    "knn with lengths": (
        lambda x: knn(x, OTHER.to(x), 3, lengths=torch.tensor([9, 4]).to(x.device))[0],
        CLOUD,
    ),
    "ball_query": (lambda x: ball_query(x, OTHER.to(x), 2.0, 3, padding="first")[0], CLOUD),
    "sample_and_group": (lambda x: sample_and_group(x, 4, 3).neighborhoods, CLOUD),
    "sample_and_group's centers": (
        lambda x: sample_and_group(x, 4, 3, lengths=LENGTHS.to(x.device)).centers,
        CLOUD,
    ),
    "gather_features": (lambda x: gather_features(x, IDX.to(x.device)), FEATURES),
    "interpolate_features": (lambda x: interpolate_features(x, IDX.to(x.device), WEIGHTS.to(x)), FEATURES),
    "interpolate_features of weights": (
        lambda x: interpolate_features(FEATURES.to(x), IDX.to(x.device), x),
        WEIGHTS,
    ),
    "masked_cross_attention": (
        lambda x: masked_cross_attention(x, KEY.to(x), VALUE.to(x), MASK.to(x.device)),
        QUERY,
    ),
    "masked_cross_attention of keys": (
        lambda x: masked_cross_attention(QUERY.to(x), x, VALUE.to(x), MASK.to(x.device)),
        KEY,
    ),
    "linear_max": (lambda x: linear_max(x, LINEAR.to(x), BIAS.to(x)), GROUPS),
    "packed_knn": (
        lambda x: packed_knn(x, OTHER.to(x).flatten(0, 1), 2, SIZES.to(x.device), OTHER_SIZES.to(x.device))[
            0
        ],
        FLAT,
    ),
    "packed_ball_query": (
        lambda x: packed_ball_query(
            x, OTHER.to(x).flatten(0, 1), 9.0, 2, SIZES.to(x.device), OTHER_SIZES.to(x.device)
        )[0],
        FLAT,
    ),
}


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operator", OPERATORS)
def test_derivatives_are_those_of_differences_in_both_modes(operator, dtype):
    run, x = OPERATORS[operator][0], here(OPERATORS[operator][1])
    direction, step = here(normal(*x.shape, seed=5)), 1e-6
    want = (run(x + step * direction) - run(x - step * direction)) / (2 * step)
    assert want.abs().max() > 0.01
    tolerance = {"rtol": 2e-4, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-7}
    x, direction = x.to(dtype), direction.to(dtype)

    def check(got, want):
        torch.testing.assert_close(got.double(), want, **tolerance)

    value, tangent = jvp(run, (x,), (direction,))
    check(value, run(x).double())
    check(tangent, want)
    with forward_ad.dual_level():
        check(forward_ad.unpack_dual(run(forward_ad.make_dual(x, direction))).tangent, want)
    for jacobian in (jacfwd, jacrev):
        check((jacobian(run)(x) * direction).flatten(want.ndim).sum(-1), want)
    upstream = here(normal(*want.shape, seed=6).to(dtype))
    functional = grad(lambda x: (run(x) * upstream).sum())(x)
    leaf = x.clone().requires_grad_()
    (run(leaf) * upstream).sum().backward()
    torch.testing.assert_close(functional, leaf.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("operator", OPERATORS)
def test_vmap_is_a_loop(operator):
    run, x = OPERATORS[operator]
    many = torch.stack([x, x + 0.25 * normal(*x.shape, seed=7)]).float()
    torch.testing.assert_close(vmap(run)(many), torch.stack([run(one) for one in many]))


@each_backend
def test_indices_are_the_same_under_a_transform():
    x = here(CLOUD.float())
    want = farthest_point_sample(x, 5)

    def f(x):
        idx = farthest_point_sample(x, 5)
        packed = packed_farthest_point_sample(x.flatten(0, 1), torch.tensor([12, 12]), torch.tensor([5, 5]))
        return gather_features(x.transpose(1, 2), idx).sum(), (idx, packed)

    _, _, (idx, packed) = jvp(f, (x,), (x,), has_aux=True)
    assert torch.equal(idx, want)
    assert torch.equal(packed, (want + torch.tensor([[0], [12]])).flatten())


CALLS = {
    "xyz": lambda x: farthest_point_sample(x, 2),
    "points": lambda x: knn(CLOUD, x, 2),
    "queries": lambda x: ball_query(x, CLOUD, 1.0, 2),
    "src": lambda x: nearest_neighbor(x, CLOUD),
    "dst": lambda x: mutual_nearest(CLOUD, x),
    "pred": lambda x: chamfer_distance(x, CLOUD),
    "target": lambda x: density_aware_chamfer(CLOUD, x),
    "weights": lambda x: chamfer_distance(CLOUD, CLOUD, weights=x),
    "features": lambda x: gather_features(x, IDX),
    "idx": lambda x: gather_features(FEATURES, x),
    "query": lambda x: masked_cross_attention(x, KEY, VALUE),
    "key_mask": lambda x: masked_cross_attention(QUERY, KEY, VALUE, x),
    "x": lambda x: linear_max(x, LINEAR, BIAS),
    "bias": lambda x: linear_max(GROUPS, LINEAR, x),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_tensor_is_named(name):
    for given, kind in ((np.zeros((2, 9, 3), np.float32), "numpy.ndarray"), ([1.0], "builtins.list")):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor, got {kind}$"):
            CALLS[name](given)


def test_coordinates_in_rows_look_transposed():
    for name in ("xyz", "points", "queries", "src", "dst", "pred", "target"):
        with pytest.raises(
            ValueError, match=rf"^{name} must be \[.*, N, 3\], got \(2, 3, 12\): it looks transposed"
        ):
            CALLS[name](CLOUD.transpose(1, 2))
