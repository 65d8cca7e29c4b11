"""Transformer blocks: the plain pre-norm block and the ReCon-block (ReCon, section 3.2 and figure 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.distributed import own_rows
from recon_fast.kernels.attention import attention, attention_over_tokens, autocast_dtype


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, S, C] -> [B, H, S, C / H]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, S, D] -> [B, S, H D]."""
    return x.transpose(1, 2).flatten(2)


class StochasticDepth(nn.Module):
    """Samples which residual branches of a stack of blocks are dropped in training (Huang et al., 2016).

    Args:
        most: probability that a branch of the last block is dropped; it rises linearly from 0 at the first.
        depth: number of blocks.
        branches: residual branches of a block; each is dropped independently.
    """

    keep: Tensor  # [depth, branches] probability that a branch is kept

    def __init__(self, most: float, depth: int, branches: int) -> None:
        super().__init__()
        self.rates = torch.linspace(0, most, depth).tolist()
        keep = 1 - torch.tensor(self.rates)[:, None].expand(depth, branches)
        self.register_buffer("keep", keep.clone(), persistent=False)

    def forward(self, x: Tensor) -> list[Sequence[Tensor | None]]:
        """Factors [B, 1, 1] of each block's branches for samples x [B, S, C]: 0 or 1 / keep, None for 1.

        All are sampled at once, for the batches of all processes.
        """
        depth, branches = self.keep.shape
        if not self.training or not any(self.rates):
            return [(None,) * branches] * depth
        kept = own_rows(len(x), lambda n: self.keep.expand(n, -1, -1).bernoulli())
        factors = (kept / self.keep).to(autocast_dtype(x))[..., None, None]  # [B, depth, branches, 1, 1]
        return [factors[:, i].unbind(1) if rate else (None,) * branches for i, rate in enumerate(self.rates)]


def surviving(branch: Tensor, factor: Tensor | None) -> Tensor:
    """A residual branch [B, S, C] times its factor of stochastic depth."""
    return branch if factor is None else branch * factor


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head self-attention; the projections in have no bias, the one out has."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, last: int | None = None) -> Tensor:
        """x [B, S, C] -> [B, S, C]; with `last`, only the queries of the last positions: [B, last, C]."""
        query, key, value = (split_heads(t, self.num_heads) for t in self.qkv(x).chunk(3, dim=-1))
        if last is not None:
            query = query[:, :, -last:]
        return self.proj(merge_heads(attention(query, key, value)))


class CrossAttention(nn.Module):
    """Multi-head attention of global queries over local tokens; no bias on the projections in, one on out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """queries [B, Q, C], x [B, S, C] -> [B, Q, C]."""
        query = split_heads(self.q(queries), self.num_heads)
        return self.proj(merge_heads(attention_over_tokens(query, x, self.kv.weight)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    branches = 2

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(
        self, x: Tensor, factors: Sequence[Tensor | None] = (None, None), last: int | None = None
    ) -> Tensor:
        """One block.

        Args:
            x: [B, S, C].
            factors: of the attention's and the MLP's residual branch; see `StochasticDepth`.
            last: compute only these last positions.

        Returns:
            [B, S, C], or [B, last, C].
        """
        to_attn, to_mlp = factors
        kept = x if last is None else x[:, -last:]
        x = kept + surviving(self.attn(self.norm1(x), last), to_attn)
        return x + surviving(self.mlp(self.norm2(x)), to_mlp)


class ReConBlock(nn.Module):
    """Two streams: local tokens attend to each other, global queries look at them through cross-attention.

    The residual is added to the *normalised* value in both streams; the official weights were trained so.
    """

    branches = 4

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm1_contrast = nn.LayerNorm(dim)
        self.attn_contrast = CrossAttention(dim, num_heads)
        self.norm2_contrast = nn.LayerNorm(dim)
        self.mlp_contrast = Mlp(dim)

    def forward(
        self,
        queries: Tensor,
        x: Tensor,
        stop_gradient: bool,
        factors: Sequence[Tensor | None] = (None,) * branches,
    ) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            queries: global queries [B, Q, C].
            x: local tokens [B, S, C].
            stop_gradient: keeps what the queries learn from reaching the local tokens, as in pretraining.
            factors: of the residual branches, attention of queries and tokens, then their MLPs; see
                `StochasticDepth`.

        Returns:
            Queries and local tokens, shaped as they were.
        """
        to_contrast, to_attn, to_contrast_mlp, to_mlp = factors
        queries = self.norm1_contrast(queries)
        x = self.norm1(x)
        seen = x.detach() if stop_gradient else x
        queries = queries + surviving(self.attn_contrast(queries, seen), to_contrast)
        x = x + surviving(self.attn(x), to_attn)

        queries = self.norm2_contrast(queries)
        x = self.norm2(x)
        queries = queries + surviving(self.mlp_contrast(queries), to_contrast_mlp)
        x = x + surviving(self.mlp(x), to_mlp)
        return queries, x


def position_mlp(dim: int) -> nn.Sequential:
    """Position embedding of a center: 3 -> 128 -> GELU -> C."""
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))


def learned_token(dim: int) -> nn.Parameter:
    """A token or position [1, 1, C], truncated normal 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))


def init_transformer(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear weights, zero biases, unit norms. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform linear weights, zero biases. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
