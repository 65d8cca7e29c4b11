"""Lengths of padded clouds: what lies behind is never read, 0 finds nothing, impossible ones are refused."""

import pytest
import torch
from devices import device_type, here

from recon_fast.kernels import (
    ball_query,
    chamfer_distance,
    density_aware_chamfer,
    f_score,
    farthest_point_sample,
    knn,
    mutual_nearest,
    nearest_neighbor,
    sample_and_group,
)

each_backend = pytest.mark.usefixtures("backend")
N, M = 20, 14
LENGTHS, OTHERS = [N, 7, 0, 5, 0], [3, M, 4, 0, 0]  # of pred and of target: whole, short and empty, both ways
EMPTY = [False, False, True, True, True]
POISON = [float("nan"), float("inf"), 1e30, 5.0, 0.0]


def clouds(poison):
    """pred [5, N, 3] and target [5, M, 3] with `poison` behind their lengths, and the lengths."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for size, lengths in ((N, LENGTHS), (M, OTHERS)):
        xyz = torch.randn(5, size, 3, generator=generator)
        for b, length in enumerate(lengths):
            xyz[b, length:] = poison
        made.append(xyz)
    return *here(made), *here([torch.tensor(LENGTHS), torch.tensor(OTHERS)])


def same(results):
    """Whether all results are equal to the bit, NaN aside."""
    return all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@each_backend
def test_searches_never_read_the_padding_and_find_nothing_in_empty_clouds():
    found = []
    for poison in POISON:
        pred, target, lengths, others = clouds(poison)
        queries = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1))
        searches = [
            knn(queries, pred, 9, lengths=lengths),
            ball_query(queries, pred, 1.5, 9, lengths=lengths),
            ball_query(queries, pred, 1.5, 9, lengths=lengths, padding="first"),
        ]
        dist, idx = nearest_neighbor(queries, pred, dst_lengths=lengths)
        searches.append((dist[..., None], idx[..., None]))
        forth, forth_idx, back, back_idx = mutual_nearest(
            pred, target, src_lengths=lengths, dst_lengths=others
        )
        for b in range(5):
            searches.append((forth[b, None, : LENGTHS[b], None], forth_idx[b, None, : LENGTHS[b], None]))
            searches.append((back[b, None, : OTHERS[b], None], back_idx[b, None, : OTHERS[b], None]))
        for dist, idx in searches[:4]:
            for b in (2, 4):
                assert (idx[b] == -1).all()
                assert (dist[b] == torch.inf).all()
            assert (idx < lengths[:, None, None]).all()
        assert (forth_idx[3, :5] == -1).all()
        assert (forth[3, :5] == torch.inf).all()
        assert (back_idx[2, :4] == -1).all()
        assert (back[2, :4] == torch.inf).all()
        found.append([part for search in searches for part in search])
    assert same(found)


@each_backend
@pytest.mark.parametrize("skip", [False, True])
def test_sampling_never_reads_the_padding_and_takes_nothing_of_empty_clouds(skip):
    found = []
    for poison in POISON:
        pred, _, lengths, _ = clouds(poison)
        idx = farthest_point_sample(pred, 9, lengths=lengths, skip_near_origin=skip)
        groups = sample_and_group(pred, 9, 6, lengths=lengths, skip_near_origin=skip)
        assert (idx[2] == -1).all()
        assert (groups.center_idx[2] == -1).all()
        assert (groups.neighbor_idx[2] == -1).all()
        assert (groups.centers[2] == 0).all()
        assert (groups.neighborhoods[2] == 0).all()
        found.append([idx, *groups])
    assert same(found)


LOSSES = {
    "l2": lambda p, t, **lengths: chamfer_distance(p, t, reduction="none", **lengths),
    "l1": lambda p, t, **lengths: chamfer_distance(p, t, norm="l1", reduction="none", **lengths),
    "one way": lambda p, t, **lengths: chamfer_distance(
        p, t, norm="l1", reduction="none", single_directional=True, **lengths
    ),
    "density aware": lambda p, t, **lengths: density_aware_chamfer(p, t, alpha=1.0, **lengths),
}


@each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_never_read_the_padding_and_are_0_with_an_empty_cloud(loss, dtype):
    found = []
    for poison in POISON:
        pred, target, lengths, others = clouds(poison)
        pred, target = pred.to(dtype).requires_grad_(), target.to(dtype).requires_grad_()
        value = LOSSES[loss](pred, target, pred_lengths=lengths, target_lengths=others)
        value.sum().backward()
        assert (value != 0).tolist() == [not empty for empty in EMPTY]
        for gradient, sizes in ((pred.grad, LENGTHS), (target.grad, OTHERS)):
            for b, size in enumerate(sizes):
                assert (gradient[b, size:] == 0).all()
                assert not EMPTY[b] or (gradient[b] == 0).all()
        found.append([value.detach(), pred.grad, target.grad])
    assert same(found)
    for b in (0, 1):  # as of the clouds without their padding
        p, t = clouds(0.0)[0][b : b + 1, : LENGTHS[b]], clouds(0.0)[1][b : b + 1, : OTHERS[b]]
        torch.testing.assert_close(found[0][0][b : b + 1], LOSSES[loss](p.to(dtype), t.to(dtype)))


@each_backend
def test_scores_with_an_empty_cloud_are_0():
    scores = []
    for poison in POISON:
        pred, target, lengths, others = clouds(poison)
        scores.append(f_score(pred, target, 1.5, pred_lengths=lengths, target_lengths=others))
        assert (scores[-1].f_score[2:] == 0).all()
        assert (scores[-1].f_score[:2] > 0).all()
    assert same(scores)


@each_backend
def test_a_mean_over_pairs_counts_an_empty_one_as_0():
    pred, target, lengths, others = clouds(float("nan"))
    each = chamfer_distance(pred, target, pred_lengths=lengths, target_lengths=others, reduction="none")
    mean = chamfer_distance(pred, target, pred_lengths=lengths, target_lengths=others)
    torch.testing.assert_close(mean, each.sum() / 5)


CALLS = {
    "farthest_point_sample": ("lengths", lambda p, t, n: farthest_point_sample(p, 4, lengths=n)),
    "sample_and_group": ("lengths", lambda p, t, n: sample_and_group(p, 4, 3, lengths=n)),
    "knn": ("lengths", lambda p, t, n: knn(t, p, 4, lengths=n)),
    "ball_query": ("lengths", lambda p, t, n: ball_query(t, p, 1.0, 4, lengths=n)),
    "nearest_neighbor": ("dst_lengths", lambda p, t, n: nearest_neighbor(t, p, dst_lengths=n)),
    "mutual_nearest": ("src_lengths", lambda p, t, n: mutual_nearest(p, t, src_lengths=n)),
    "mutual_nearest, other": ("dst_lengths", lambda p, t, n: mutual_nearest(t, p, dst_lengths=n)),
    "chamfer_distance": ("pred_lengths", lambda p, t, n: chamfer_distance(p, t, pred_lengths=n)),
    "chamfer_distance, other": ("target_lengths", lambda p, t, n: chamfer_distance(t, p, target_lengths=n)),
    "f_score": ("pred_lengths", lambda p, t, n: f_score(p, t, 1.0, pred_lengths=n)),
    "density_aware_chamfer": (
        "target_lengths",
        lambda p, t, n: density_aware_chamfer(t, p, target_lengths=n),
    ),
}


@each_backend
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", [[-1, 3], [3, 10], [3, 2**40]])
def test_impossible_lengths_are_refused_where_reading_them_costs_no_wait(call, wrong):
    name, run = CALLS[call]
    pred, target = torch.randn(2, 9, 3), torch.randn(2, 7, 3)
    if device_type() == "cpu":
        with pytest.raises(
            ValueError, match=rf"^{name} must be between 0 and the 9 points of a cloud, got \["
        ) as error:
            run(pred, target, torch.tensor(wrong))
        assert str(wrong) in str(error.value)
    for integer in (torch.int32, torch.int64):
        run(pred, target, torch.tensor([0, 9], dtype=integer))
    with pytest.raises(ValueError, match=rf"^{name} must be an integer \[2\], got torch.int64 \(3,\)"):
        run(pred, target, torch.tensor([1, 2, 3]))
    with pytest.raises(TypeError, match=rf"^{name} must be a torch.Tensor, got builtins.list"):
        run(pred, target, [1, 2])


@each_backend
def test_a_first_sample_behind_a_length_is_refused():
    points = torch.randn(3, 9, 3)
    if device_type() == "cpu":
        with pytest.raises(
            ValueError, match="start_index must be below every length, got 4 and a length of 4"
        ):
            farthest_point_sample(points, 2, lengths=torch.tensor([9, 4, 0]), start_index=4)
    idx = farthest_point_sample(points, 2, lengths=torch.tensor([9, 5, 0]), start_index=4)
    assert idx[:, 0].tolist() == [4, 4, -1]


def test_compiled_programs_take_lengths():
    """Under a compiler nothing reads the values: lengths are not checked there, and stay in bounds."""
    pred, target, lengths, others = clouds(float("nan"))
    run = torch.compile(
        lambda p, t, n, m: chamfer_distance(p, t, pred_lengths=n, target_lengths=m, reduction="none"),
        fullgraph=True,
        backend="aot_eager",
    )
    want = chamfer_distance(pred, target, pred_lengths=lengths, target_lengths=others, reduction="none")
    torch.testing.assert_close(run(pred, target, lengths, others), want)
