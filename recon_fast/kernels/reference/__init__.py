"""What every operator of this package computes, in plain PyTorch: the specification, on any device.

Geometry is computed in float32 (float64 for float64 inputs) from differences, dx*dx + dy*dy + dz*dz summed
from left to right, more coordinates by halves: the expansion |q|^2 + |p|^2 - 2qp picks wrong neighbours away
from the origin. Ties go to the smallest index. Distances are squared. Arguments are taken as valid; the
public functions check them.
"""

from recon_fast.kernels.reference.chamfer import (
    chamfer_distance,
    chamfer_loss,
    chamfer_pairs,
    of_pairs,
    one_way_loss,
    reduce_pairs,
)
from recon_fast.kernels.reference.features import (
    gather_features,
    group_max,
    interpolate_features,
    linear_max,
    linear_max_backward,
    masked_cross_attention,
    masked_cross_attention_backward,
    match_features,
    scatter_features,
    sum_features,
)
from recon_fast.kernels.reference.points import (
    NEAR_ORIGIN,
    ball_query,
    distance_backward,
    distances_to,
    farthest_point_sample,
    first_inside,
    gather_points,
    geometry_dtype,
    group,
    group_around,
    group_backward,
    knn,
    mutual_nearest,
    nearest_first,
    nearest_neighbor,
    neighbor_edges,
    query_chunks,
    sample_and_group,
    squared_norm,
    squared_radius,
    valid_rows,
    zero_padding,
)
