"""Transformer blocks: the plain pre-norm block and the ReCon-block (ReCon, section 3.2 and figure 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def dtype_of_copies(*layers: Linear) -> torch.dtype | None:
    """In which all of these layers now compute through copies; None where one does not."""
    copies = [layer.copies for layer in layers if layer.training and layer.copies is not None]
    return copies[0][0].dtype if len(copies) == len(layers) else None


class DropPath(nn.Module):
    """Drop a residual branch for whole samples while training (Huang et al., stochastic depth, 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def draw(self, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What a branch of the samples x [B, S, C] is multiplied with: [B, 1, 1], or None for 1."""
        if self.rate == 0 or not self.training:
            return None
        keep = 1 - self.rate
        return x.new_empty(x.shape[0], 1, 1, dtype=dtype).bernoulli_(keep) / keep

    def forward(self, x: Tensor) -> Tensor:
        survives = self.draw(x, x.dtype)
        return x if survives is None else x * survives


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
        """queries [B, Q, C], x [B, S, C] -> [B, Q, C].

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

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, last: int | None = None) -> Tensor:
        """x [B, S, C] -> [B, S, C], or [B, last, C] where only those last positions are wanted."""
        layers = self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2
        if (dtype := dtype_of_copies(*layers)) is not None:
            x, _ = self.attn.branch(x, self.norm1, self.drop_path.draw(x, dtype), last=last)
            return self.mlp.branch(x, self.norm2, self.drop_path.draw(x, dtype))
        kept = x if last is None else x[:, -last:]
        x = kept + self.drop_path(self.attn(self.norm1(x), last))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ReConBlock(nn.Module):
    """Two streams: local tokens attend to each other, global queries look at them through cross-attention.

    The residual is added to the *normalised* value in both streams; the official weights were trained so.
    """

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm1_contrast = nn.LayerNorm(dim)
        self.attn_contrast = CrossAttention(dim, num_heads)
        self.norm2_contrast = nn.LayerNorm(dim)
        self.mlp_contrast = Mlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, queries: Tensor, x: Tensor, stop_gradient: bool) -> tuple[Tensor, Tensor]:
        """queries [B, Q, C] and local tokens x [B, S, C] -> the same; see `Encoder` for `stop_gradient`."""
        attn, contrast = self.attn, self.attn_contrast
        mlps = self.mlp.fc1, self.mlp.fc2, self.mlp_contrast.fc1, self.mlp_contrast.fc2
        layers = attn.qkv, attn.proj, contrast.q, contrast.kv, contrast.proj, *mlps
        if (dtype := dtype_of_copies(*layers)) is not None:
            # Drawn in the order of the modules below.
            draws = [self.drop_path.draw(stream, dtype) for stream in (queries, x, queries, x)]
            x, normed = attn.branch(x, self.norm1, draws[1], keep_normed=True)
            seen = normed.detach() if stop_gradient else normed
            queries = contrast.branch(queries, seen, self.norm1_contrast, draws[0])
            queries = self.mlp_contrast.branch(queries, self.norm2_contrast, draws[2], keep_normed=True)
            return queries, self.mlp.branch(x, self.norm2, draws[3], keep_normed=True)

        queries = self.norm1_contrast(queries)
        x = self.norm1(x)
        seen = x.detach() if stop_gradient else x
        queries = queries + self.drop_path(self.attn_contrast(queries, seen))
        x = x + self.drop_path(self.attn(x))

        queries = self.norm2_contrast(queries)
        x = self.norm2(x)
        queries = queries + self.drop_path(self.mlp_contrast(queries))
        x = x + self.drop_path(self.mlp(x))
        return queries, x


def position_mlp(dim: int) -> nn.Sequential:
    """Position embedding of a center: 3 -> 128 -> GELU -> C."""
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))


def learned_token(dim: int) -> nn.Parameter:
    """A token or position [1, 1, C], truncated normal 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))


def drop_path_rates(most: float, depth: int) -> list[float]:
    """Stochastic depth rates rising linearly from 0 to `most`."""
    return torch.linspace(0, most, depth).tolist()


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
