"""Neighbours as the edges of a graph."""

import torch
from torch import Tensor

from recon_fast.kernels import backend
from recon_fast.kernels._check import check_tensor


@torch.library.custom_op("recon_fast::neighbor_edges", mutates_args=())
def _edges(idx: Tensor) -> Tensor:
    return backend.implementation("neighbor_edges", "neighbor_edges", idx)(idx)


@_edges.register_fake
def _(idx):
    return idx.new_empty(2, torch.library.get_ctx().new_dynamic_size())


def neighbor_edges(idx: Tensor) -> Tensor:
    """Lists of neighbours as the edges of a graph.

    Args:
        idx: [M, k], int64, negative where there is no neighbour; as `packed_knn` gives them.

    Returns:
        [2, E], int64: the row of each index that is not negative, and the index, row after row.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape or dtype.
    """
    check_tensor("idx", idx)
    if idx.ndim != 2 or idx.dtype != torch.int64:
        raise ValueError(f"idx must be an int64 [M, k], got {idx.dtype} {tuple(idx.shape)}")
    return _edges(idx)
