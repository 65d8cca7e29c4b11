"""`knn_cuda` (unlimblue, KNN_CUDA)."""

from torch import Tensor, nn

from recon_fast.compat import any_dim

__all__ = ["KNN"]


class KNN(nn.Module):
    """The k nearest reference points of each query, of any dimension.

    With transpose_mode, ref [B, N, D] and query [B, M, D] give distances (not squared) and int64 indices
    [B, M, k]; without, ref [B, D, N] and query [B, D, M] give [B, k, M]. k must be at most N. Nothing is
    differentiable.
    """

    def __init__(self, k: int, transpose_mode: bool = False):
        super().__init__()
        self.k, self._t = k, transpose_mode

    def forward(self, ref: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        assert ref.size(0) == query.size(0), f"ref.shape={ref.shape} != query.shape={query.shape}"
        if not self._t:
            ref, query = ref.transpose(1, 2), query.transpose(1, 2)
        if self.k > ref.shape[1]:
            raise ValueError(f"k must be at most the {ref.shape[1]} reference points, got {self.k}")
        dist, idx = any_dim.knn(query.detach().float(), ref.detach().float(), self.k)
        dist = dist.sqrt()
        if not self._t:
            dist, idx = dist.transpose(1, 2).contiguous(), idx.transpose(1, 2).contiguous()
        return dist, idx
