"""`torch_cluster`: sampling and neighbour graphs of points in a batch vector.

A batch vector [N] holds the example of each point, ascending; without one all are of example 0.
Points are [N, F], or [N] for F = 1. Nothing is differentiable.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.kernels import backend
from recon_fast.kernels._check import check_tensor, to_3d

__version__ = "1.6.3"  # whose names and arguments these are

_FLOWS = ("source_to_target", "target_to_source")
_FEW = 1 << 16  # pairs of points whose comparison takes less than preparing for more than one thread


def _last_example(name: str, batch: Tensor | None) -> int:
    """The largest number of a batch vector; raise unless it ascends from 0 or more. One wait on a GPU."""
    if batch is None or batch.numel() == 0:
        return 0
    descends = (batch[1:] < batch[:-1]).any()
    first, last, unsorted = torch.stack([batch[0], batch[-1], descends.to(batch.dtype)]).tolist()
    if unsorted:
        raise ValueError(f"'{name}' is not sorted")
    if first < 0:
        raise ValueError(f"'{name}' must hold numbers of examples, 0 and more, got {first}")
    return last


@torch.library.custom_op("recon_fast::example_lengths", mutates_args=())
def _lengths(
    x: Tensor, y: Tensor, batch_x: Tensor | None, batch_y: Tensor | None, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """How many points of x and of y belong to each example [B]: without a batch vector all to example 0."""
    last = max(_last_example("batch_x", batch_x), _last_example("batch_y", batch_y))
    if batch_size is None:
        batch_size = last + 1
    elif last >= batch_size:
        raise ValueError(f"batch_size must be above the last example, {last}, got {batch_size}")
    if batch_size > 1 and (batch_x is None) != (batch_y is None):
        missing, given = ("batch_x", "batch_y") if batch_x is None else ("batch_y", "batch_x")
        raise ValueError(f"{missing} must be given with {given}, which has {batch_size} examples")
    lengths = []
    for points, batch in ((x, batch_x), (y, batch_y)):
        if batch is None:
            batch = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        lengths.append(batch.bincount(minlength=batch_size))
    return lengths[0], lengths[1]


@_lengths.register_fake
def _(x, y, batch_x, batch_y, batch_size):
    size = torch.library.get_ctx().new_dynamic_size() if batch_size is None else batch_size
    return x.new_empty(size, dtype=torch.int64), x.new_empty(size, dtype=torch.int64)


def _points(x: Tensor, y: Tensor, batch_x: Tensor | None, batch_y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both as floating point [., D], or [., 3] where D is less; checked as the original checks them."""
    check_tensor("x", x)
    check_tensor("y", y)
    x, y = (t.view(-1, 1) if t.dim() == 1 else t for t in (x, y))
    assert x.dim() == 2, f"x must be [N, F] or [N], got {tuple(x.shape)}"
    assert y.dim() == 2, f"y must be [M, F] or [M], got {tuple(y.shape)}"
    assert x.size(1) == y.size(1), f"x and y must be of one F, got {tuple(x.shape)} and {tuple(y.shape)}"
    for name, points, batch in (("batch_x", x, batch_x), ("batch_y", y, batch_y)):
        assert batch is None or points.size(0) == batch.numel(), (
            f"{name} must be [{points.size(0)}], got {tuple(batch.shape)}"
        )
    x, y = (t if t.is_floating_point() else t.float() for t in (x.detach(), y.detach()))
    return to_3d(x), to_3d(y)


def _edges_of_few(
    x: Tensor, y: Tensor, k: int, r: float | None, batch_x: Tensor | None, batch_y: Tensor | None
) -> Tensor | None:
    """Edges of few points in one step; None where there are many, in a graph that is compiled, or where the
    batch vectors are wrong."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or torch.float64 in (x.dtype, y.dtype):
        return None
    if x.shape[1] > 3 or k < 1 or (r is not None and not r >= 0):
        return None
    examples = 1 + int(batch_x[-1]) if batch_x is not None and batch_x.dim() == 1 else 1
    if len(x) * len(y) > _FEW * examples:
        return None
    run = backend.kernel("neighbor_edges", "edges_of_few", x)
    return None if run is None else run(y, x, batch_y, batch_x, k, r)


def _search(x: Tensor, y: Tensor, k: int, r: float | None, lengths_x: Tensor, lengths_y: Tensor) -> Tensor:
    """Indices [M, k] of the nearest of x in the same example or, with a radius, of the first inside it.

    -1 stands for none.
    """
    lengths = lengths_y, lengths_x
    if r is None:
        return kernels.packed_knn(y, x, k, *lengths)[1]
    return kernels.packed_ball_query(y, x, r, k, *lengths)[1]


def _edges(x: Tensor, y: Tensor, k: int, r: float | None, cosine: bool, *batches: Any) -> Tensor:
    """Edges of `_search`; `batches` are both batch vectors and how many examples these have, if known."""
    check_tensor("x", x)
    check_tensor("y", y)
    if x.numel() == 0 or y.numel() == 0:
        return torch.empty(2, 0, dtype=torch.long, device=x.device)
    x, y = _points(x, y, *batches[:2])
    if cosine:
        x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    k = k if r is None else min(k, len(x))
    few = _edges_of_few(x, y, k, r, *batches[:2])
    return kernels.neighbor_edges(_search(x, y, k, r, *_lengths(x, y, *batches))) if few is None else few


def knn(
    x: Tensor, y: Tensor, k: int, batch_x: Tensor | None = None, batch_y: Tensor | None = None,
    cosine: bool = False, num_workers: int = 1, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Edges [2, E], int64: each of y [M, F] and the k nearest of x [N, F] in its example, nearest first.

    Raises:
        ValueError: a batch vector is not sorted, or one is given without the other.
    """
    return _edges(x, y, k, None, cosine, batch_x, batch_y, batch_size)


def radius(
    x: Tensor, y: Tensor, r: float, batch_x: Tensor | None = None, batch_y: Tensor | None = None,
    max_num_neighbors: int = 32, num_workers: int = 1, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Edges [2, E], int64: each of y and the points of x nearer than r in its example, in ascending index.

    Of more than max_num_neighbors those with the smallest indices stay.

    Raises:
        ValueError: a batch vector is not sorted, or one is given without the other.
    """
    return _edges(x, y, max_num_neighbors, r, False, batch_x, batch_y, batch_size)


def nearest(x: Tensor, y: Tensor, batch_x: Tensor | None = None, batch_y: Tensor | None = None) -> Tensor:
    """For each of x [N, F] the nearest of y [M, F] in its example: [N], int64.

    Raises:
        ValueError: an example has points in one of the two alone; a batch vector is not sorted.
    """
    x, y = _points(x, y, batch_x, batch_y)
    lengths_x, lengths_y = _lengths(x, y, batch_x, batch_y, None)
    if not torch.compiler.is_compiling() and not torch.equal(lengths_x > 0, lengths_y > 0):
        raise ValueError("Some batch indices occur in 'batch_x' that do not occur in 'batch_y'")
    few = _edges_of_few(y, x, 1, None, batch_y, batch_x)
    return _search(y, x, 1, None, lengths_y, lengths_x)[:, 0] if few is None else few[1]


def _graph(edges: Tensor, loop: bool, flow: str) -> Tensor:
    row, col = (edges[1], edges[0]) if flow == "source_to_target" else (edges[0], edges[1])
    if not loop:
        other = row != col
        row, col = row[other], col[other]
    return torch.stack([row, col])


def knn_graph(
    x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False, flow: str = "source_to_target",
    cosine: bool = False, num_workers: int = 1, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Edges [2, E] from the k nearest points of x [N, F] to each of them (to_source: the other way)."""
    assert flow in _FLOWS, f"flow must be one of {_FLOWS}, got {flow!r}"
    edges = knn(x, x, k if loop else k + 1, batch, batch, cosine, num_workers, batch_size)
    return _graph(edges, loop, flow)


def radius_graph(
    x: Tensor, r: float, batch: Tensor | None = None, loop: bool = False, max_num_neighbors: int = 32,
    flow: str = "source_to_target", num_workers: int = 1, batch_size: int | None = None,
) -> Tensor:  # fmt: skip
    """Edges [2, E] from the points nearer than r to each of x [N, F]; see `radius`."""
    assert flow in _FLOWS, f"flow must be one of {_FLOWS}, got {flow!r}"
    most = max_num_neighbors if loop else max_num_neighbors + 1
    return _graph(radius(x, x, r, batch, batch, most, num_workers, batch_size), loop, flow)


def fps(
    src: Tensor, batch: Tensor | None = None, ratio: Tensor | float | None = None, random_start: bool = True,
    batch_size: int | None = None, ptr: Tensor | list[int] | None = None,
) -> Tensor:  # fmt: skip
    """Indices, int64, of ceil(ratio * n) farthest points of each example of src [N, F].

    ratio is one number (default 0.5) or one for each example, above 0 and at most 1; ptr holds the bounds of
    the examples.

    Raises:
        ValueError: the batch vector is not sorted; ratio or ptr is out of range.
    """
    check_tensor("src", src)
    src = src.view(-1, 1) if src.dim() == 1 else src
    if ptr is not None:
        lengths = torch.as_tensor(ptr, device=src.device).diff()
    else:
        assert batch is None or src.size(0) == batch.numel(), (
            f"batch must be [{src.size(0)}], got {tuple(batch.shape)}"
        )
        lengths, _ = _lengths(src, src, batch, batch, batch_size)
    if isinstance(ratio, int | float) and not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")
    part = torch.as_tensor(0.5 if ratio is None else ratio, dtype=src.dtype, device=src.device)
    counts = (lengths.to(src.dtype) * part).ceil().long()
    starts = None
    if random_start:
        starts = (torch.rand(len(lengths), device=src.device) * lengths).long()
        starts = starts.minimum(lengths - 1).clamp_min(0)  # a product may be rounded up
    return kernels.packed_farthest_point_sample(src, lengths, counts, starts=starts)
