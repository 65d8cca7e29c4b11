"""Point-cloud operators, importable into any model with nothing but torch and numpy loaded.

farthest_point_sample    (xyz [B,N,D], num_samples) -> idx [B,M]
knn                      (queries [B,M,D], points [B,N,D], k) -> (squared_distances [B,M,k], idx [B,M,k])
sample_and_group         (xyz [B,N,3], num_groups, group_size) -> PointGroups
ball_query               (queries [B,M,D], points [B,N,D], radius, k) -> as knn
gather_features          (features [B,C,N], idx [B,...]) -> [B,C,...]
interpolate_features     (features [B,C,N], idx [B,M,K], weights [B,M,K]) -> [B,C,M]
nearest_neighbor         (src [B,N,D], dst [B,M,D]) -> (squared_distance [B,N], idx [B,N])
mutual_nearest           (src [B,N,D], dst [B,M,D]) -> nearest_neighbor of src in dst, and of dst in src
chamfer_distance         (pred [B,N,3], target [B,M,3]) -> scalar or [B]
f_score                  (pred, target, threshold) -> FScore of [B] each; density_aware_chamfer -> [B]
masked_cross_attention   (query [B,H,Q,D], key [B,H,S,D], value [B,H,S,D], key_mask [B,S]) -> [B,H,Q,D]
linear_max               (x [G,K,C], weight [O,C], bias [O]) -> [G,O]
packed_knn, packed_ball_query, packed_farthest_point_sample: in packed batches, [N, D] and lengths [B]
neighbor_edges           (idx [M,k]) -> [2,E], the edges of a graph

D is any width from 1; what is wider than 3 is searched by `wide`, in plain PyTorch on any device.
An operator's file here (fps, knn, ball, nearest, chamfer, features, attention, pool, packed) checks,
registers and differentiates. The file of the same name in `cpu` holds numba kernels, that in `triton` its
kernels for GPUs. `reference` is the specification in plain PyTorch: of points, features and Chamfer distance.
`use_backend` chooses an implementation, `torch_threads` the threads on a CPU.
"""

from recon_fast.kernels import reference
from recon_fast.kernels.attention import masked_cross_attention
from recon_fast.kernels.backend import torch_threads, use_backend
from recon_fast.kernels.ball import ball_query
from recon_fast.kernels.chamfer import FScore, chamfer_distance, density_aware_chamfer, f_score
from recon_fast.kernels.features import gather_features, interpolate_features
from recon_fast.kernels.fps import farthest_point_sample
from recon_fast.kernels.knn import PointGroups, knn, sample_and_group
from recon_fast.kernels.nearest import mutual_nearest, nearest_neighbor
from recon_fast.kernels.packed import (
    neighbor_edges,
    packed_ball_query,
    packed_farthest_point_sample,
    packed_knn,
)
from recon_fast.kernels.pool import linear_max

__all__ = [
    "FScore",
    "PointGroups",
    "ball_query",
    "chamfer_distance",
    "density_aware_chamfer",
    "f_score",
    "farthest_point_sample",
    "gather_features",
    "interpolate_features",
    "knn",
    "linear_max",
    "masked_cross_attention",
    "mutual_nearest",
    "nearest_neighbor",
    "neighbor_edges",
    "packed_ball_query",
    "packed_farthest_point_sample",
    "packed_knn",
    "reference",
    "sample_and_group",
    "torch_threads",
    "use_backend",
]
