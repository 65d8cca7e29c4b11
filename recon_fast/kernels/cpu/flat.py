"""Clouds one behind the other, as a search reads them: batches and packed batches alike."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_lengths, as_points, compiled
from recon_fast.kernels.cpu.masks import RUN
from recon_fast.kernels.cpu.spatial import NAN, columns_of


@compiled
def padded_columns(points):
    """Points [N, 3] as columns [3, N + RUN]: a run that begins at a point may be read whole."""
    N = points.shape[0]
    columns = np.empty((3, N + RUN), np.float32)
    columns_of(points, columns[0, :N], columns[1, :N], columns[2, :N])
    columns[:, N:] = NAN
    return columns


class Flat(NamedTuple):
    """Queries and points of B clouds."""

    queries: np.ndarray  # [M, 3] float32
    points: np.ndarray  # [N, 3] float32
    query_ends: np.ndarray  # [B] int64: where the queries of each cloud end
    starts: np.ndarray  # [B] int64: where its points start
    lengths: np.ndarray  # [B] int64: how many they are

    def columns(self) -> np.ndarray:
        """See `padded_columns`."""
        return padded_columns(self.points)


def flat_batch(queries: Tensor, points: Tensor, lengths: Tensor | None) -> Flat:
    """Of queries [B, M, 3] and points [B, N, 3], of which `lengths` [B] are valid."""
    (B, M, _), N = queries.shape, points.shape[1]
    q, p = as_points(queries).reshape(-1, 3), as_points(points).reshape(-1, 3)
    return Flat(q, p, np.arange(1, B + 1) * M, np.arange(B) * N, as_lengths(lengths, B, N))


def flat_packed(queries: Tensor, points: Tensor, query_lengths: list[int], point_lengths: list[int]) -> Flat:
    """Of queries [M, 3] and points [N, 3], whose clouds have these sizes."""
    q, p, sizes = as_points(queries), as_points(points), np.array(point_lengths, np.int64)
    return Flat(q, p, np.cumsum(query_lengths), np.cumsum(sizes) - sizes, sizes)
