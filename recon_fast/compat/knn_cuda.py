"""`knn_cuda` (unlimblue, KNN_CUDA)."""

from torch import Tensor, nn

from recon_fast.compat import common
from recon_fast.kernels._check import check_tensor


class KNN(nn.Module):
    """The k nearest reference points of each query, of any dimension; k is at most their number.

    With transpose_mode, ref [B, N, D] and query [B, M, D] give distances (not squared) and int64 indices
    [B, M, k]; without, ref [B, D, N] and query [B, D, M] give [B, k, M]. Nothing is differentiable.
    """

    def __init__(self, k: int, transpose_mode: bool = False):
        super().__init__()
        self.k, self._t = k, transpose_mode

    def forward(self, ref: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        check_tensor("ref", ref)
        check_tensor("query", query)
        assert ref.size(0) == query.size(0), f"ref.shape={ref.shape} != query.shape={query.shape}"
        shapes = f"ref {tuple(ref.shape)} and query {tuple(query.shape)}"
        if not self._t:
            ref, query = ref.transpose(1, 2), query.transpose(1, 2)
        if ref.shape[2] != query.shape[2]:
            layout = "[B, N, D]" if self._t else "[B, D, N]"
            raise ValueError(f"ref and query must be {layout} of one D, got {shapes}")
        if not 1 <= self.k <= ref.shape[1]:  # an index of -1 would gather the last point
            raise ValueError(f"k must be between 1 and the {ref.shape[1]} points of ref, got {self.k}")
        dist, idx = common.knn(query.detach().float(), ref.detach().float(), self.k)
        dist = dist.sqrt()
        if not self._t:
            dist, idx = dist.transpose(1, 2).contiguous(), idx.transpose(1, 2).contiguous()
        return dist, idx
