"""Equal to torch_cluster itself, index for index."""

import pytest
import torch
import torch_cluster as theirs

from recon_fast.compat import torch_cluster as ours


def edges(edge_index: torch.Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize(
    "sizes", [([50, 7, 90], [20, 3, 11]), ([64, 64], [9, 9]), ([1, 200], [4, 2])], ids=str
)
@pytest.mark.parametrize("F", [2, 3, 6])
def test_equals_the_original(sizes, F):
    torch.manual_seed(sum(sizes[0]))
    batch_x, batch_y = (torch.arange(len(s)).repeat_interleave(torch.tensor(s)) for s in sizes)
    x, y = torch.rand(len(batch_x), F), torch.rand(len(batch_y), F)
    for k in (1, 5):
        arguments = x, y, k, batch_x, batch_y
        assert torch.equal(ours.knn(*arguments), theirs.knn(*arguments))
        assert torch.equal(ours.knn_graph(x, k, batch_x), theirs.knn_graph(x, k, batch_x))
    assert torch.equal(ours.knn(x, y, 4), theirs.knn(x, y, 4))
    for r in (0.05, 0.3, 2.0):
        arguments = x, y, r, batch_x, batch_y, 1000
        assert edges(ours.radius(*arguments)) == edges(theirs.radius(*arguments))
        graph = {"batch": batch_x, "max_num_neighbors": 1000, "flow": "target_to_source", "loop": True}
        assert edges(ours.radius_graph(x, r, **graph)) == edges(theirs.radius_graph(x, r, **graph))
    degree = ours.radius(x, y, 2.0, batch_x, batch_y, 3)[0].bincount()
    assert torch.equal(degree, theirs.radius(x, y, 2.0, batch_x, batch_y, 3)[0].bincount())
    assert torch.equal(ours.nearest(x, y, batch_x, batch_y), theirs.nearest(x, y, batch_x, batch_y))
    if F <= 3:
        for options in ({"batch": batch_x}, {"batch": batch_x, "ratio": 0.2}, {"ratio": 0.7}):
            options |= {"random_start": False}
            assert torch.equal(ours.fps(x, **options), theirs.fps(x, **options))
        ratios = torch.linspace(0.3, 1, len(sizes[0]))
        got = ours.fps(x, batch_x, ratios, random_start=False)
        assert torch.equal(got, theirs.fps(x, batch_x, ratios, random_start=False))
        ptr = [0, *torch.tensor(sizes[0]).cumsum(0).tolist()]
        assert torch.equal(ours.fps(x, ptr=ptr, random_start=False), ours.fps(x, batch_x, random_start=False))
