"""ReCon's pretraining step and encoder in plain PyTorch, laid out as the paper's code: what ours is measured
against.

1x1 convolutions and batch norms over all points, masks as boolean indexing, keys and values for every query,
distances by the matrix form. Takes official names, so it starts from the same weights as ours. Base recipe:
random mask, squared Chamfer distance, no drop-path.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.config import ReConConfig


def farthest_point_sample(xyz: Tensor, count: int) -> Tensor:
    """[B, N, 3] -> idx [B, count], from index 0."""
    idx = torch.zeros(xyz.shape[0], count, dtype=torch.long)
    nearest = torch.full(xyz.shape[:2], 1e10)
    batch, current = torch.arange(xyz.shape[0]), idx[:, 0]
    for i in range(count):
        idx[:, i] = current
        nearest = torch.minimum(nearest, (xyz - xyz[batch, current][:, None]).square().sum(-1))
        current = nearest.argmax(-1)
    return idx


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[B, N, 3], [B, M, 3] -> [B, N, M]."""
    return a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * torch.bmm(a, b.transpose(1, 2))


class Tokenizer(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), nn.Conv1d(128, 256, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(), nn.Conv1d(512, dim, 1)
        )

    def forward(self, neighborhoods: Tensor) -> Tensor:  # [B, G, K, 3] -> [B, G, C]
        B, G, K, _ = neighborhoods.shape
        x = self.first_conv(neighborhoods.reshape(B * G, K, 3).transpose(1, 2))
        whole = x.max(2, keepdim=True)[0]
        x = self.second_conv(torch.cat([whole.expand(-1, -1, K), x], 1))
        return x.max(2)[0].reshape(B, G, -1)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """[B, Q, C], [B, S, C], [B, S, C] -> [B, Q, C]."""
    query, key, value = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    weights = ((query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.proj(attend(query, key, value, self.heads))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        key, value = self.kv(x).chunk(2, -1)
        return self.proj(attend(self.q(queries), key, value, self.heads))


class Mlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ReConBlock(Block):
    def __init__(self, dim: int, heads: int):
        super().__init__(dim, heads)
        self.norm1_contrast, self.norm2_contrast = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn_contrast, self.mlp_contrast = CrossAttention(dim, heads), Mlp(dim)

    def forward(self, queries: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # two streams
        queries, x = self.norm1_contrast(queries), self.norm1(x)
        queries, x = queries + self.attn_contrast(queries, x.detach()), x + self.attn(x)
        queries, x = self.norm2_contrast(queries), self.norm2(x)
        return queries + self.mlp_contrast(queries), x + self.mlp(x)


class Blocks(nn.Module):
    def __init__(self, blocks: list[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class Encoder(nn.Module):
    def __init__(self, config: ReConConfig):
        super().__init__()
        dim = config.dim
        self.encoder = Tokenizer(dim)
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))
        self.cls_token, self.img_token, self.text_token = (
            nn.Parameter(torch.zeros(1, 1, dim)) for _ in range(3)
        )
        self.cls_pos, self.img_pos, self.text_pos = (nn.Parameter(torch.zeros(1, 1, dim)) for _ in range(3))
        self.blocks = Blocks([ReConBlock(dim, config.num_heads) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, neighborhoods: Tensor, centers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        B = len(mask)
        x = self.encoder(neighborhoods)[~mask].reshape(B, -1, self.norm.normalized_shape[0])
        pos = self.pos_embed(centers[~mask].reshape(B, -1, 3))
        queries = torch.cat([self.cls_token, self.img_token, self.text_token], 1).expand(B, -1, -1)
        queries_pos = torch.cat([self.cls_pos, self.img_pos, self.text_pos], 1)
        for block in self.blocks.blocks:
            queries, x = block(queries + queries_pos, x + pos)
        return self.norm(queries), self.norm(x)


class Decoder(nn.Module):
    def __init__(self, config: ReConConfig):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config.dim, config.decoder_num_heads) for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(config.dim)


class PlainReCon(nn.Module):
    """The whole pretraining model; `forward` gives the sum of mdm, csc_img and csc_text, `embed` features."""

    def __init__(self, config: ReConConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.MAE_encoder, self.MAE_decoder = Encoder(config), Decoder(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))
        self.increase_dim = nn.Sequential(nn.Conv1d(dim, 3 * config.group_size, 1))
        self.img_proj = nn.Linear(dim, config.image_dim or 0)
        self.text_proj = nn.Linear(dim, config.text_dim or 0)

    def group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, 3] -> centers [B, G, 3], neighborhoods [B, G, K, 3]."""
        batch = torch.arange(len(points))[:, None]
        with torch.autocast("cpu", enabled=False):
            centers = points[batch, farthest_point_sample(points, self.config.num_group)]
            idx = squared_distances(centers, points).topk(self.config.group_size, largest=False).indices
            return centers, points[batch[..., None], idx] - centers[:, :, None]

    def embed(self, points: Tensor) -> Tensor:
        """The feature for a linear SVM [B, 2 C] of whole clouds [B, N, 3]."""
        centers, neighborhoods = self.group(points)
        nothing = torch.zeros(centers.shape[:2], dtype=torch.bool)
        queries, x = self.MAE_encoder(neighborhoods, centers, nothing)
        return torch.cat([queries.amax(1), x.amax(1) + x.mean(1)], 1)

    def forward(self, points: Tensor, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        B, c = len(points), self.config
        centers, neighborhoods = self.group(points)
        queries, x = self.MAE_encoder(neighborhoods, centers, mask)

        M = c.num_masked
        order = torch.cat([centers[~mask].reshape(B, -1, 3), centers[mask].reshape(B, -1, 3)], 1)
        pos = self.decoder_pos_embed(order)
        x = torch.cat([x, self.mask_token.expand(B, M, -1).to(x.dtype)], 1)
        for block in self.MAE_decoder.blocks:
            x = block(x + pos)
        decoded = self.MAE_decoder.norm(x[:, -M:])
        rebuilt = self.increase_dim(decoded.transpose(1, 2)).transpose(1, 2).reshape(B * M, -1, 3).float()

        target = neighborhoods[mask].reshape(B * M, -1, 3)
        with torch.autocast("cpu", enabled=False):
            distances = squared_distances(rebuilt, target)
            mdm = distances.min(2)[0].mean() + distances.min(1)[0].mean()
        csc_img = F.smooth_l1_loss(self.img_proj(queries[:, 1]).float(), image)
        return mdm + csc_img + F.smooth_l1_loss(self.text_proj(queries[:, 2]).float(), text)
