"""Other people's implementations, each behind the signature of ours; used where its package imports.

fps                 (xyz [B,N,3], num_samples) -> idx [B,M]
knn                 (queries [B,M,3], points [B,N,3], k) -> (squared_distances [B,M,k], idx [B,M,k])
ball                (queries [B,M,3], points [B,N,3], radius, k) -> edges [2,E], or (squared_distances, idx)
gather              (features [B,C,N], idx [B,...]) -> [B,C,...], differentiable
interpolate         (features [B,C,N], idx [B,M,K], weights [B,M,K]) -> [B,C,M], differentiable
chamfer             (pred [B,N,3], target [B,M,3]) -> scalar, differentiable
cross-attention     (query [B,H,Q,D], key, value [B,H,S,D], key_mask [B,S] or None) -> [B,H,Q,D]

Trees are built within the call: clouds change every step. Every peer gets as many threads as torch
(pykdtree reads OMP_NUM_THREADS when it is loaded) and, where it has a knob, the best of a few settings.
"""

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels import reference

ANY = ("cpu", "cuda")


@dataclass(frozen=True)
class Provider:
    """One way to compute an operator."""

    name: str
    operator: str
    run: Callable[..., Any]  # (the package's modules..., inputs..., **setting)
    kinds: tuple[str, ...] = ANY  # devices
    modules: tuple[str, ...] = ()  # what must import
    exact: bool = False  # equal to the reference bit by bit
    expands: bool = False  # |q|^2 + |p|^2 - 2qp, whose error grows with the coordinates
    setting: str = ""  # keyword of `run` that is tuned
    choices: tuple[Any, ...] = field(default=())
    limit: float = math.inf  # pairs of points above which a call takes too long
    compiles: bool = False  # torch.compile at the first call


PEERS: list[Provider] = []


def peer(operator: str, name: str, **traits: Any) -> Callable[[Callable], Callable]:
    def register(run: Callable) -> Callable:
        PEERS.append(Provider(name, operator, run, **traits))
        return run

    return register


@cache
def modules_of(provider: Provider) -> tuple[ModuleType, ...] | str:
    """The imported modules of a peer, or on one line why they do not import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(import_module(name) for name in provider.modules)
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]


def per_cloud(function: Callable[..., Any], *clouds: Tensor) -> list[Any]:
    """Results of a function of numpy arrays, for a peer that takes one cloud."""
    arrays = [c.detach().numpy() for c in clouds]
    return [function(*one) for one in zip(*arrays, strict=True)]


def packed(clouds: Tensor) -> tuple[Tensor, Tensor]:
    """Points [B * N, 3] and which of the clouds [B, N, 3] each belongs to."""
    B, N, _ = clouds.shape
    return clouds.reshape(-1, 3), torch.arange(B, device=clouds.device).repeat_interleave(N)


# --- Farthest-point sampling


@peer("fps", "torch_quickfps", modules=("torch_quickfps",), setting="h", choices=(2, 3, 4, 5, 6, 7, 9))
def _quickfps(torch_quickfps, xyz, num_samples, h):
    return torch_quickfps.sample_idx(xyz, num_samples, h=min(h, int(math.log2(xyz.shape[1]))), start_idx=0)


@peer("fps", "fpsample", modules=("fpsample",), kinds=("cpu",), setting="h", choices=(3, 5, 7, 9))
def _fpsample(fpsample, xyz, num_samples, h):
    # 1.0.2 reorders the points first, so that its start_idx is not an index of the caller's.
    h = min(h, int(math.log2(xyz.shape[1])))

    def sample(points):
        return fpsample.bucket_fps_kdline_sampling(points, num_samples, h=h, start_idx=0)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        rows = list(pool.map(sample, xyz.numpy()))
    return torch.stack([torch.from_numpy(row.astype("int64")) for row in rows])


@peer("fps", "torch_fps", modules=("torch_fps",), limit=1e8)
def _torch_fps(torch_fps, xyz, num_samples):
    everywhere = torch.ones(xyz.shape[:2], dtype=torch.bool, device=xyz.device)
    return torch_fps.farthest_point_sampling(xyz, everywhere, num_samples, random_start=False, validate=False)


@peer("fps", "torch_cluster", modules=("torch_cluster",), limit=1e8)
def _torch_cluster_fps(torch_cluster, xyz, num_samples):
    B, N, _ = xyz.shape
    idx = torch_cluster.fps(*packed(xyz), ratio=num_samples / N, random_start=False)
    return idx.view(B, num_samples) - N * torch.arange(B, device=xyz.device)[:, None]


@peer("fps", "pytorch3d", modules=("pytorch3d.ops",), limit=1e8)
def _pytorch3d_fps(ops, xyz, num_samples):
    return ops.sample_farthest_points(xyz, K=num_samples)[1]


@peer("fps", "pointnet2_ops", modules=("pointnet2_ops.pointnet2_utils",), kinds=("cuda",))
def _pointnet2(utils, xyz, num_samples):
    return utils.furthest_point_sample(xyz, num_samples).long()


# --- K nearest neighbours


@peer("knn", "cdist+topk", expands=True, limit=5e8)
def _cdist(queries, points, k):
    dist, idx = torch.cdist(queries, points).topk(k, largest=False)
    return dist.square(), idx


@peer(
    "knn", "pykdtree", modules=("pykdtree.kdtree",), kinds=("cpu",), setting="leafsize", choices=(8, 16, 32)
)
def _pykdtree(kdtree, queries, points, k, leafsize):
    def search(q, p):
        return kdtree.KDTree(p, leafsize=leafsize).query(q, k=k, sqr_dists=True)

    rows = per_cloud(search, queries, points)
    dist = torch.stack([torch.from_numpy(d) for d, _ in rows])
    idx = torch.stack([torch.from_numpy(i.astype("int64")) for _, i in rows])
    shape = (*queries.shape[:2], k)  # k = 1 comes without its axis
    return dist.view(shape), idx.view(shape)


@peer("knn", "scipy", modules=("scipy.spatial",), kinds=("cpu",), setting="balanced", choices=(True, False))
def _scipy(spatial, queries, points, k, balanced):
    def search(q, p):
        tree = spatial.cKDTree(p, balanced_tree=balanced, compact_nodes=balanced)
        return tree.query(q, k=k, workers=torch.get_num_threads())

    rows = per_cloud(search, queries, points)
    dist = torch.stack([torch.from_numpy(d) for d, _ in rows])
    idx = torch.stack([torch.from_numpy(i) for _, i in rows])
    return dist.square().float(), idx


@peer("knn", "torch_cluster", modules=("torch_cluster",), limit=1e8)
def _torch_cluster_knn(torch_cluster, queries, points, k):
    (B, M, _), N = queries.shape, points.shape[1]
    (x, batch_x), (y, batch_y) = packed(points), packed(queries)
    flat = torch_cluster.knn(x, y, k, batch_x, batch_y)[1]
    idx = flat.view(B, M, k) - N * torch.arange(B, device=points.device)[:, None, None]
    diff = queries[:, :, None] - reference.gather_points(points, idx)
    return diff.square().sum(-1), idx


@peer("knn", "open3d", modules=("open3d.core",), kinds=("cpu",))
def _open3d(core, queries, points, k):
    def search(q, p):
        index = core.nns.NearestNeighborSearch(core.Tensor.from_numpy(p))
        index.knn_index()
        idx, dist = index.knn_search(core.Tensor.from_numpy(q), k)
        return dist.numpy(), idx.numpy()

    rows = per_cloud(search, queries, points)
    dist = torch.stack([torch.from_numpy(d) for d, _ in rows])
    return dist, torch.stack([torch.from_numpy(i.astype("int64")) for _, i in rows])


@peer("knn", "pytorch3d", modules=("pytorch3d.ops",), limit=5e8)
def _pytorch3d_knn(ops, queries, points, k):
    found = ops.knn_points(queries, points, K=k)
    return found.dists, found.idx


# --- Ball query: which of more than k neighbours a peer takes is its own choice


@peer("ball", "torch_cluster", modules=("torch_cluster",), limit=1e9)
def _torch_cluster_radius(torch_cluster, queries, points, radius, k):
    (x, batch_x), (y, batch_y) = packed(points), packed(queries)
    return torch_cluster.radius(x, y, radius, batch_x, batch_y, max_num_neighbors=k)


@peer("ball", "pytorch3d", modules=("pytorch3d.ops",), limit=5e8)
def _pytorch3d_ball(ops, queries, points, radius, k):
    found = ops.ball_query(queries, points, K=k, radius=radius, return_nn=False)
    return found.dists, found.idx


@peer("ball", "pointnet2_ops", modules=("pointnet2_ops.pointnet2_utils",), kinds=("cuda",))
def _pointnet2_ball(utils, queries, points, radius, k):
    return None, utils.ball_query(radius, k, points, queries).long()


# --- Features by index


def _taken(features: Tensor, idx: Tensor) -> Tensor:
    flat = idx.flatten(1)[:, None].expand(-1, features.shape[1], -1)
    return features.gather(2, flat).unflatten(2, idx.shape[1:])


@peer("gather", "torch.gather")
def _torch_gather(features, idx):
    return _taken(features, idx)


@peer("gather", "pointnet2_ops", modules=("pointnet2_ops.pointnet2_utils",), kinds=("cuda",))
def _pointnet2_grouping(utils, features, idx):
    return utils.grouping_operation(features, idx.int())


@peer("interpolate", "torch.gather+sum")
def _torch_interpolate(features, idx, weights):
    return (_taken(features, idx) * weights[:, None]).sum(-1)


@peer("interpolate", "pointnet2_ops", modules=("pointnet2_ops.pointnet2_utils",), kinds=("cuda",))
def _pointnet2_interpolate(utils, features, idx, weights):
    return utils.three_interpolate(features, idx.int(), weights)


# --- Chamfer distance


@peer("chamfer", "matmul", expands=True, limit=5e8)
def _chamfer_matmul(pred, target):
    """|p|² + |t|² - 2pt in one baddbmm, minima both ways."""
    norms = pred.square().sum(-1)[:, :, None] + target.square().sum(-1)[:, None]
    d2 = torch.baddbmm(norms, pred, target.transpose(1, 2), alpha=-2)
    return d2.amin(2).mean() + d2.amin(1).mean()


@peer("chamfer", "pykdtree+gather", modules=("pykdtree.kdtree",), kinds=("cpu",))
def _chamfer_pykdtree(kdtree, pred, target):
    def nearest(q, p):
        return kdtree.KDTree(p).query(q, k=1)[1].astype("int64")

    forth = torch.stack([torch.from_numpy(row) for row in per_cloud(nearest, pred, target)])
    back = torch.stack([torch.from_numpy(row) for row in per_cloud(nearest, target, pred)])
    to_target = (pred - reference.gather_points(target, forth)).square().sum(-1)
    to_pred = (target - reference.gather_points(pred, back)).square().sum(-1)
    return to_target.mean() + to_pred.mean()


@peer("chamfer", "pytorch3d", modules=("pytorch3d.loss",), limit=5e8)
def _chamfer_pytorch3d(loss, pred, target):
    return loss.chamfer_distance(pred, target)[0]


# --- Cross-attention


@peer("cross-attention", "matmul")
def _attention_matmul(query, key, value, key_mask):
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None], float("-inf"))
    return scores.softmax(-1) @ value


@peer("cross-attention", "sdpa")
def _sdpa(query, key, value, key_mask):
    mask = None if key_mask is None else key_mask[:, None, None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@peer(
    "cross-attention", "flex", modules=("torch.nn.attention.flex_attention",), kinds=("cuda",), compiles=True
)
def _flex(flex_attention, query, key, value, key_mask):
    if key_mask is None:
        return _compiled_flex()(query, key, value)

    def hide(score, b, h, q, s):
        return torch.where(key_mask[b, s], score, -float("inf"))

    return _compiled_flex()(query, key, value, score_mod=hide)
