"""`pointops` of Pointcept and Point Transformer: packed batches with the end of each cloud in `offset`."""

import torch
from torch import Tensor

from recon_fast import kernels
from recon_fast.compat import common
from recon_fast.kernels._check import check_points, check_tensor

_FAR = 1e10  # squared distance where there is no neighbour
_CLOSE = 1e-5  # squared distance up to which a point is in a ball whatever the smaller radius
_MOST = 2048  # candidates of a ball: the original has room for no more


def _lengths(offset: Tensor) -> Tensor:
    check_tensor("offset", offset)
    if offset.ndim != 1 or offset.dtype not in (torch.int32, torch.int64):
        got = f"{offset.dtype} {tuple(offset.shape)}"
        raise ValueError(f"offset and new_offset must be int32 or int64 [B], got {got}")
    return offset.diff(prepend=offset.new_zeros(1)).long()


def _rows(feat: Tensor, idx: Tensor) -> Tensor:
    """feat [n, c] at idx [...] as [..., c], 0 where an index is -1; differentiable."""
    return common.rows_at(feat[None], idx[None])[0]


def farthest_point_sampling(xyz: Tensor, offset: Tensor, new_offset: Tensor) -> Tensor:
    """Indices, int32, of farthest points of xyz [n, 3], as many of each cloud as new_offset says."""
    check_points("xyz", xyz)
    counts = _lengths(new_offset)
    return kernels.packed_farthest_point_sample(xyz, _lengths(offset), counts).int()


def knn_query(
    nsample: int,
    xyz: Tensor,
    offset: Tensor,
    new_xyz: Tensor | None = None,
    new_offset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The nsample nearest of xyz [n, 3] for each of new_xyz [m, 3]: int32 indices and distances [m, nsample].

    Where a cloud has fewer points, index -1 and distance 1e5. Not differentiable.
    """
    if new_xyz is None or new_offset is None:
        new_xyz, new_offset = xyz, offset
    check_points("xyz", xyz)
    check_points("new_xyz", new_xyz)
    lengths = _lengths(new_offset), _lengths(offset)
    dist, idx = kernels.packed_knn(new_xyz.detach(), xyz.detach(), nsample, *lengths)
    return idx.int(), dist.masked_fill(idx < 0, _FAR).sqrt()


@torch.library.custom_op("recon_fast::ring_query", mutates_args=())
def _ring_query(
    nsample: int, max_radius: float, min_radius: float, xyz: Tensor, lengths: Tensor, new_xyz: Tensor,
    new_lengths: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Squared distances and indices [m, nsample] of what lies between two radii, spread over all of it."""
    reach = max(max_radius, _CLOSE**0.5 * 1.001)
    most = min(4 * nsample, _MOST)
    while True:
        dist, idx = kernels.packed_ball_query(new_xyz, xyz, reach, most, new_lengths, lengths)
        if most >= min(_MOST, xyz.shape[0]) or not (idx[:, -1] >= 0).any():
            break
        most = min(2 * most, _MOST)
    r = torch.tensor([min_radius, max_radius], dtype=dist.dtype, device=dist.device).square()
    inside = (dist <= _CLOSE) | ((dist >= r[0]) & (dist < r[1]))
    dist, order = dist.masked_fill(~inside, float("inf")).sort(dim=1, stable=True)
    idx, count = idx.gather(1, order), inside.sum(1, keepdim=True)
    place = torch.arange(nsample, device=dist.device)
    step = (count / nsample).clamp_min(1)
    place = (step * place).long()
    there = place < count
    place = place.clamp_max(dist.shape[1] - 1)
    idx = idx.gather(1, place).masked_fill(~there, -1)
    return dist.gather(1, place).masked_fill(~there, _FAR), idx


@_ring_query.register_fake
def _(nsample, max_radius, min_radius, xyz, lengths, new_xyz, new_lengths):
    shape = new_xyz.shape[0], nsample
    return new_xyz.new_empty(shape, dtype=torch.float32), new_xyz.new_empty(shape, dtype=torch.int64)


def ball_query(
    nsample: int, max_radius: float, min_radius: float, xyz: Tensor, offset: Tensor,
    new_xyz: Tensor | None = None, new_offset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Points of xyz [n, 3] between two radii around each of new_xyz [m, 3]: int32 indices, distances.

    They come sorted by distance; of more than nsample every (number / nsample)-th, of up to 2048. Where there
    are fewer, index -1 and distance 1e5. A point at a squared distance up to 1e-5 is always in. Not
    differentiable.
    """
    if new_xyz is None or new_offset is None:
        new_xyz, new_offset = xyz, offset
    check_points("xyz", xyz)
    check_points("new_xyz", new_xyz)
    assert min_radius < max_radius, f"min_radius must be below max_radius, got {min_radius} and {max_radius}"
    clouds = xyz.detach().float(), _lengths(offset), new_xyz.detach().float(), _lengths(new_offset)
    dist, idx = _ring_query(nsample, float(max_radius), float(min_radius), *clouds)
    return idx.int(), dist.sqrt()


def grouping(
    idx: Tensor, feat: Tensor, xyz: Tensor, new_xyz: Tensor | None = None, with_xyz: bool = False
) -> Tensor:
    """feat [n, c] at idx [m, nsample] as [m, nsample, c], after the coordinates relative to new_xyz with_xyz.

    Index -1 gives zeros.
    """
    grouped = _rows(feat, idx)
    if not with_xyz:
        return grouped
    centers = xyz if new_xyz is None else new_xyz
    relative = (_rows(xyz, idx) - centers[:, None]).masked_fill((idx < 0)[..., None], 0)
    return torch.cat([relative, grouped], -1)


def grouping2(input: Tensor, idx: Tensor) -> Tensor:
    """input [n, c] at idx [m, nsample] as [m, nsample, c]."""
    return _rows(input, idx)


def interpolation(
    xyz: Tensor, new_xyz: Tensor, feat: Tensor, offset: Tensor, new_offset: Tensor, k: int = 3
) -> Tensor:
    """feat [m, c] of xyz [m, 3] carried to new_xyz [n, 3] by inverse distances of k neighbours: [n, c]."""
    idx, dist = knn_query(k, xyz, offset, new_xyz, new_offset)
    weight = 1 / (dist + 1e-8)
    weight = weight / weight.sum(1, keepdim=True)
    return kernels.interpolate_features(feat.mT[None], idx[None], weight[None])[0].mT


def subtraction(input1: Tensor, input2: Tensor, idx: Tensor) -> Tensor:
    """input1 [n, c] less input2 at idx [n, nsample], as [n, nsample, c]."""
    return input1[:, None] - _rows(input2, idx)


def aggregation(input: Tensor, position: Tensor, weight: Tensor, idx: Tensor) -> Tensor:
    """Sums [n, c] over neighbours of (input [n, c] at idx [n, nsample] + position [n, nsample, c]) * weight.

    weight [n, nsample, c'] serves channel i with its column i modulo c'.
    """
    value = _rows(input, idx) + position
    value = value.unflatten(2, (-1, weight.shape[2]))  # [n, nsample, c / c', c']
    return (value * weight[:, :, None]).sum(1).flatten(1)


def knn_query_and_group(
    feat: Tensor, xyz: Tensor, offset: Tensor | None = None, new_xyz: Tensor | None = None,
    new_offset: Tensor | None = None, idx: Tensor | None = None, nsample: int | None = None,
    with_xyz: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`grouping` by idx or else by `knn_query`, and the indices."""
    if idx is None:
        assert nsample is not None, "nsample must be given without idx"
        assert offset is not None, "offset must be given without idx"
        idx, _ = knn_query(nsample, xyz, offset, new_xyz, new_offset)
    return grouping(idx, feat, xyz, new_xyz, with_xyz), idx


def ball_query_and_group(
    feat: Tensor, xyz: Tensor, offset: Tensor | None = None, new_xyz: Tensor | None = None,
    new_offset: Tensor | None = None, idx: Tensor | None = None, max_radio: float | None = None,
    min_radio: float = 0, nsample: int | None = None, with_xyz: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`grouping` by idx or else by `ball_query`, and the indices."""
    if idx is None:
        assert nsample is not None, "nsample must be given without idx"
        assert offset is not None, "offset must be given without idx"
        assert max_radio is not None, "max_radio must be given without idx"
        idx, _ = ball_query(nsample, max_radio, min_radio, xyz, offset, new_xyz, new_offset)
    return grouping(idx, feat, xyz, new_xyz, with_xyz), idx


def offset2batch(offset: Tensor) -> Tensor:
    """The cloud of each point, int64, of the ends of the clouds."""
    lengths = _lengths(offset)
    return torch.arange(len(offset), device=offset.device).repeat_interleave(lengths)


def batch2offset(batch: Tensor) -> Tensor:
    """The end of each cloud, int32, of the cloud of each point."""
    return batch.bincount().cumsum(0).int()


def knnquery(
    nsample: int, xyz: Tensor, new_xyz: Tensor | None, offset: Tensor, new_offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Point Transformer's own form of `knn_query`: where a cloud has fewer points, the index of its first."""
    new_xyz = xyz if new_xyz is None else new_xyz
    idx, dist = knn_query(nsample, xyz, offset, new_xyz, new_offset)
    first = (offset - _lengths(offset)).repeat_interleave(_lengths(new_offset), output_size=len(new_xyz))
    return torch.where(idx < 0, first[:, None].int(), idx), dist


furthestsampling, interpolation2 = farthest_point_sampling, interpolation
