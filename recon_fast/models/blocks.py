"""Transformer blocks: the plain pre-norm block and the ReCon-block (ReCon, section 3.2 and figure 2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.distributed import own_rows
from recon_fast.kernels import masked_cross_attention
from recon_fast.models.branches import CrossAttentionBranch, MlpBranch, SelfAttentionBranch, softmax


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, S, C] -> [B, H, S, C / H]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, S, D] -> [B, S, H D]."""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale * query key^T) value: query [B, H, Q, D], key and value [B, H, S, D] -> [B, H, Q, D]."""
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    # At 26 to 64 tokens on a CPU plain matrix products are twice as fast.
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    return softmax(scores) @ value


class Linear(nn.Linear):
    """A linear layer that may train through copies of its parameters; see `recon_fast.training.adamw`."""

    copies: tuple[Tensor, Tensor | None] | None = None

    def in_use(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, in training their copies if there are any."""
        return self.copies if self.copies is not None and self.training else (self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., C] -> [..., C']."""
        return F.linear(x, *self.in_use())


def train_through_copies(*layers: Linear) -> bool:
    """Whether all of these layers now compute through copies."""
    return all(layer.training and layer.copies is not None for layer in layers)


class StochasticDepth(nn.Module):
    """Which residual branches of a stack of blocks count for a sample while training (Huang et al., 2016).

    Args:
        most: probability that a branch of the last block is dropped; it rises linearly from 0 at the first.
        depth: blocks.
        branches: of a block; each is dropped by itself.
    """

    keep: Tensor  # [depth, branches] probability that a branch is kept

    def __init__(self, most: float, depth: int, branches: int) -> None:
        super().__init__()
        self.rates = torch.linspace(0, most, depth).tolist()
        keep = 1 - torch.tensor(self.rates)[:, None].expand(depth, branches)
        self.register_buffer("keep", keep.clone(), persistent=False)

    def forward(self, x: Tensor) -> list[Sequence[Tensor | None]]:
        """Factors [B, 1, 1] of each block's branches for samples x [B, S, C]: 0 or 1 / keep, None for 1.

        All are drawn at once, for the batches of all processes.
        """
        depth, branches = self.keep.shape
        if not self.training or not any(self.rates):
            return [(None,) * branches] * depth
        kept = own_rows(len(x), lambda n: self.keep.expand(n, -1, -1).bernoulli())
        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        factors = (kept / self.keep).to(dtype)[..., None, None]  # [B, depth, branches, 1, 1]
        return [factors[:, i].unbind(1) if rate else (None,) * branches for i, rate in enumerate(self.rates)]


def surviving(branch: Tensor, factor: Tensor | None) -> Tensor:
    """A residual branch [B, S, C] times its factor of stochastic depth."""
    return branch if factor is None else branch * factor


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = Linear(dim, ratio * dim)
        self.fc2 = Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))

    def branch(
        self, x: Tensor, norm: nn.LayerNorm, survives: Tensor | None, keep_normed: bool = False
    ) -> Tensor:
        """See `MlpBranch`."""
        layers = *self.fc1.in_use(), *self.fc2.in_use()
        return MlpBranch.apply(x, norm.weight, norm.bias, norm.eps, keep_normed, survives, *layers)


class SelfAttention(nn.Module):
    """Multi-head self-attention; the projections in have no bias, the one out has."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, last: int | None = None) -> Tensor:
        """x [B, S, C] -> [B, S, C]; with `last`, only those last positions ask: [B, last, C]."""
        query, key, value = (split_heads(t, self.num_heads) for t in self.qkv(x).chunk(3, dim=-1))
        if last is not None:
            query = query[:, :, -last:]
        return self.proj(merge_heads(attend(query, key, value)))

    def branch(
        self,
        x: Tensor,
        norm: nn.LayerNorm,
        survives: Tensor | None,
        keep_normed: bool = False,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `SelfAttentionBranch`; `last` as of `forward`."""
        asking = x.shape[1] if last is None else last
        layers = self.qkv.in_use()[0], *self.proj.in_use()
        return SelfAttentionBranch.apply(
            x, norm.weight, norm.bias, norm.eps, keep_normed, survives, self.num_heads, asking, *layers
        )


class CrossAttention(nn.Module):
    """Multi-head attention of global queries over local tokens; no bias on the projections in, one on out."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(dim, dim, bias=False)
        self.kv = Linear(dim, 2 * dim, bias=False)
        self.proj = Linear(dim, dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """queries [B, Q, C], x [B, S, C] -> [B, Q, C]."""
        if x.is_cuda:
            key, value = (split_heads(t, self.num_heads) for t in self.kv(x).chunk(2, dim=-1))
            query = split_heads(self.q(queries), self.num_heads)
            return self.proj(merge_heads(masked_cross_attention(query, key, value)))
        return self._forward_absorbed(queries, x)

    def _forward_absorbed(self, queries: Tensor, x: Tensor) -> Tensor:
        """The same in fewer multiplications and more operators, for a CPU.

        q (x W_k)^T = (q W_k^T) x^T and w (x W_v) = (w x) W_v: with fewer queries than tokens it is cheaper to
        project the queries onto the tokens than to form keys and values.
        """
        B, Q, C = queries.shape
        H = self.num_heads
        to_key, to_value = self.kv.in_use()[0].view(2, H, C // H, C)  # [H, D, C] each
        asked = self.q(queries).view(B * Q, H, -1).transpose(0, 1) @ to_key  # [H, B Q, C]
        asked = asked.view(H, B, Q, C).transpose(0, 1).reshape(B, 1, H * Q, C)
        tokens = x[:, None]  # one head of width C, whose queries are those of all heads
        seen = attend(asked, tokens, tokens, scale=(C // H) ** -0.5)
        seen = seen.view(B, H, Q, C).transpose(0, 1).reshape(H, B * Q, C) @ to_value.mT  # [H, B Q, D]
        return self.proj(seen.view(H, B, Q, -1).permute(1, 2, 0, 3).reshape(B, Q, C))

    def branch(self, queries: Tensor, x: Tensor, norm: nn.LayerNorm, survives: Tensor | None) -> Tensor:
        """See `CrossAttentionBranch`."""
        layers = self.q.in_use()[0], self.kv.in_use()[0], *self.proj.in_use()
        return CrossAttentionBranch.apply(
            queries, norm.weight, norm.bias, norm.eps, survives, self.num_heads, x, *layers
        )


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
        """x [B, S, C] -> [B, S, C], or [B, last, C] where only those last positions are wanted.

        `factors` are those of attention and MLP; see `StochasticDepth`.
        """
        to_attn, to_mlp = factors
        if train_through_copies(self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2):
            x, _ = self.attn.branch(x, self.norm1, to_attn, last=last)
            return self.mlp.branch(x, self.norm2, to_mlp)
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
        """queries [B, Q, C] and local tokens x [B, S, C] -> the same; see `Encoder` for `stop_gradient`.

        `factors` are those of the attention of queries and tokens and of their MLPs; see `StochasticDepth`.
        """
        to_contrast, to_attn, to_contrast_mlp, to_mlp = factors
        attn, contrast = self.attn, self.attn_contrast
        mlps = self.mlp.fc1, self.mlp.fc2, self.mlp_contrast.fc1, self.mlp_contrast.fc2
        layers = attn.qkv, attn.proj, contrast.q, contrast.kv, contrast.proj, *mlps
        if train_through_copies(*layers):
            x, normed = attn.branch(x, self.norm1, to_attn, keep_normed=True)
            seen = normed.detach() if stop_gradient else normed
            queries = contrast.branch(queries, seen, self.norm1_contrast, to_contrast)
            queries = self.mlp_contrast.branch(
                queries, self.norm2_contrast, to_contrast_mlp, keep_normed=True
            )
            return queries, self.mlp.branch(x, self.norm2, to_mlp, keep_normed=True)

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
