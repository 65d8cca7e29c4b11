"""torch_cluster's names: recorded results of it, batches, errors, compiled graphs."""

import pytest
import torch

from recon_fast.compat import torch_cluster as ours

LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])
HALVES = torch.tensor([0, 0, 1, 1])


def test_recorded_results():
    """Results of torch_cluster 1.6.3 on its CPU path."""
    near = [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 1, 0, 2, 1, 3, 2]]
    assert ours.knn(LINE, LINE, 2).tolist() == near
    assert ours.knn(LINE, LINE, 2, HALVES, HALVES).tolist() == [near[0], [0, 1, 1, 0, 2, 3, 3, 2]]
    assert ours.knn_graph(LINE, 2).tolist() == [[1, 2, 0, 2, 1, 3, 2, 1], [0, 0, 1, 1, 2, 2, 3, 3]]
    assert ours.knn_graph(LINE, 2, loop=True, flow="target_to_source").tolist() == near
    assert ours.knn(LINE, LINE, 9).tolist()[0] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert ours.radius(LINE, LINE, 1.0).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    two = ours.radius(LINE, LINE, 1.01, max_num_neighbors=2)
    assert two.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 1, 2, 2, 3]]
    assert ours.radius_graph(LINE, 1.01).tolist() == [[1, 0, 2, 1, 3, 2], [0, 1, 1, 2, 2, 3]]
    for ratio in (None, 0.5, 0.3):
        assert ours.fps(LINE, ratio=ratio, random_start=False).tolist() == [0, 3]
    assert ours.nearest(LINE, LINE + 0.4, HALVES, HALVES).tolist() == [0, 1, 2, 3]


def test_random_starts_sample_farthest_points_of_each_example():
    torch.manual_seed(0)
    x, batch = torch.rand(60, 3), torch.tensor([0] * 20 + [1] * 40)
    idx = ours.fps(x, batch, 0.25)
    assert idx.shape == (15,)
    assert len(set(idx.tolist())) == 15
    assert batch[idx].tolist() == [0] * 5 + [1] * 10
    for part, examples in ((idx[:5], x[:20]), (idx[5:], x[20:])):
        for m in range(1, len(part)):
            reach = torch.cdist(examples, x[part[:m]]).amin(1)
            chosen = torch.cdist(x[part[m : m + 1]], x[part[:m]]).min()
            torch.testing.assert_close(chosen, reach.max(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batched", [True, False])
def test_few_points_have_the_edges_of_many(monkeypatch, batched):
    lengths = torch.tensor([3, 0, 72, 6, 93])
    batch = torch.arange(5).repeat_interleave(lengths) if batched else None
    x = torch.rand(174, 3, generator=torch.Generator().manual_seed(0))
    x[5], x[90] = x[6], float("nan")
    y, batch_y = x[::3], None if batch is None else batch[::3]

    def found():
        return [
            ours.knn(x, y, 4, batch, batch_y),
            ours.knn(x, y, 80, batch, batch_y),
            ours.radius(x, y, 0.3, batch, batch_y, 7),
            ours.knn_graph(x, 3, batch),
            ours.radius_graph(x, 0.2, batch),
            ours.nearest(y, x, batch_y, batch),
        ]

    few = found()
    monkeypatch.setattr(ours, "_FEW", 0)
    for a, b in zip(few, found(), strict=True):
        assert torch.equal(a, b)


def test_distances_of_float64_are_not_rounded_where_points_are_few():
    x = torch.tensor([[1e-9, 0, 0], [0.0, 0, 0]])  # as far from y in float32
    y = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    for near in (ours.knn(x.double(), y, 1), ours.knn(x, y, 1)):
        assert near.tolist() == [[0], [0]]
    swapped = x.flip(0)
    for near in (ours.knn(swapped.double(), y, 1), ours.knn(swapped, y, 1)):
        assert near.tolist() == [[0], [1]]


def test_wide_points():
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    batch = torch.tensor([0] * 20 + [1] * 40)
    dist = torch.cdist(x, x).masked_fill(batch[:, None] != batch, float("inf"))
    assert torch.equal(ours.knn(x, x, 3, batch, batch)[1].view(60, 3), dist.topk(3, largest=False).indices)
    assert torch.equal(ours.radius(x, x, 0.5, batch, batch), (dist < 0.5).nonzero().T)
    assert ours.nearest(x, x, batch, batch).tolist() == list(range(60))
    chosen = ours.fps(x, batch, 0.1, random_start=False)
    assert chosen[[0, 2]].tolist() == [0, 20]
    assert chosen[[1, 3]].tolist() == [int(dist[0, :20].argmax()), 20 + int(dist[20, 20:].argmax())]


def test_other_inputs():
    flat = LINE[:, 0].contiguous()
    assert torch.equal(ours.knn(flat, flat, 2), ours.knn(LINE, LINE, 2))
    assert torch.equal(ours.knn(LINE.long(), LINE.long(), 2), ours.knn(LINE, LINE, 2))
    turned = torch.tensor([[1.0, 0], [0, 1], [9, 1]])
    assert ours.knn(turned, turned[:1], 2, cosine=True).tolist() == [[0, 0], [0, 2]]
    assert ours.knn(LINE[:0], LINE, 2).shape == (2, 0)
    assert ours.knn(LINE, LINE, 2, HALVES, HALVES, batch_size=5).shape == (2, 8)


def test_errors():
    with pytest.raises(AssertionError):
        ours.knn(LINE, LINE[:, :2], 2)
    with pytest.raises(AssertionError):
        ours.knn(LINE, LINE, 2, HALVES[:3])
    with pytest.raises(AssertionError):
        ours.knn_graph(LINE, 2, flow="up")
    with pytest.raises(ValueError, match="Some batch indices occur in 'batch_x'"):
        ours.nearest(LINE, LINE, HALVES, HALVES * 0)
    with pytest.raises(ValueError, match=r"ratio must be above 0 and at most 1, got 1.5"):
        ours.fps(LINE, ratio=1.5)
    with pytest.raises(TypeError, match=r"x must be a torch.Tensor, got numpy.ndarray"):
        ours.knn(LINE.numpy(), LINE, 1)
    with pytest.raises(AssertionError, match=r"batch_x must be \[4\], got \(3,\)"):
        ours.knn(LINE, LINE, 2, HALVES[:3])


@pytest.mark.parametrize("few", [1 << 16, 0], ids=["few", "many"])
def test_batch_vectors_that_cannot_be_are_refused(monkeypatch, few):
    monkeypatch.setattr(ours, "_FEW", few)
    apart = torch.tensor([0, 1, 0, 1])
    for call in (
        lambda batch: ours.knn(LINE, LINE, 2, batch, HALVES),
        lambda batch: ours.radius(LINE, LINE, 1.5, batch, HALVES),
        lambda batch: ours.nearest(LINE, LINE, batch, HALVES),
        lambda batch: ours.knn_graph(LINE, 2, batch),
        lambda batch: ours.radius_graph(LINE, 1.5, batch),
        lambda batch: ours.fps(LINE, batch),
    ):
        with pytest.raises(ValueError, match="'batch_x' is not sorted"):
            call(apart)
        with pytest.raises(ValueError, match="'batch_x' must hold numbers of examples, 0 and more, got -1"):
            call(HALVES - 1)
    for call in (ours.knn, ours.radius):
        with pytest.raises(ValueError, match="'batch_y' is not sorted"):
            call(LINE, LINE, 2, HALVES, apart)
        with pytest.raises(ValueError, match="batch_y must be given with batch_x, which has 2 examples"):
            call(LINE, LINE, 2, HALVES)
        with pytest.raises(ValueError, match="batch_x must be given with batch_y, which has 2 examples"):
            call(LINE, LINE, 2, None, HALVES)
        assert torch.equal(call(LINE, LINE, 2, HALVES * 0), call(LINE, LINE, 2))
    monkeypatch.setattr(ours, "_FEW", 0)
    with pytest.raises(ValueError, match="batch_size must be above the last example, 1, got 1"):
        ours.knn(LINE, LINE, 2, HALVES, HALVES, batch_size=1)


def test_compiles_into_one_graph():
    def everything(x, batch):
        graph = ours.knn_graph(x, 2, batch)
        near = ours.radius(x, x, 0.5, batch, batch)
        return graph, near, ours.nearest(x, x, batch, batch), ours.fps(x, batch, 0.5, random_start=False)

    x, batch = torch.rand(40, 3), torch.tensor([0] * 15 + [1] * 25)
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x, batch), everything(x, batch), strict=True):
        assert torch.equal(got, want)
