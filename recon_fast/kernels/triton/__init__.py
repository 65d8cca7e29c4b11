"""The operators as Triton kernels: launchers with the arguments and results of `kernels.reference`.

Inputs are float32, float16 or bfloat16 with any strides, on one GPU (or the CPU under TRITON_INTERPRET=1);
float64 is left to the reference. Arguments are taken as valid, nothing here is differentiable: the public
functions check, the registered operators differentiate.
"""

from recon_fast.kernels.triton.attention import (
    masked_cross_attention_backward,
    masked_cross_attention_forward,
)
from recon_fast.kernels.triton.ball import ball_query
from recon_fast.kernels.triton.chamfer import chamfer_pairs
from recon_fast.kernels.triton.features import match_features, scatter_features, sum_features
from recon_fast.kernels.triton.fps import farthest_point_sample
from recon_fast.kernels.triton.gradient import distance_backward, group_backward
from recon_fast.kernels.triton.knn import group, knn
from recon_fast.kernels.triton.nearest import mutual_nearest, nearest_neighbor
