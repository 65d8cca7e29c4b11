"""TwoTower: the paper's baseline with one plain transformer for reconstruction and another for contrast.

Qi, Dong et al., section 5.2. The towers share nothing but the groups; the contrast tower sees all of them.
"""

import torch
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.kernels import PointGroups
from recon_fast.models.blocks import Block, StochasticDepth, init_transformer, position_mlp
from recon_fast.models.recon import Encoding, PretrainModel
from recon_fast.models.tokenizer import Tokenizer


class Tower(nn.Module):
    """Tokenizer and plain transformer over local tokens."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__()
        self.tokenizer = Tokenizer(config.dim)
        self.pos_embed = position_mlp(config.dim)
        self.drop_path = StochasticDepth(config.drop_path, config.depth, Block.branches)
        self.blocks = nn.ModuleList(Block(config.dim, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.apply(init_transformer)

    def transform(self, x: Tensor, pos: Tensor) -> Tensor:
        """x and positions [B, S, C] -> [B, S, C]."""
        for block, factors in zip(self.blocks, self.drop_path(x), strict=True):
            x = block(x + pos, factors)
        return self.norm(x)

    def forward(self, tokens: Tensor, centers: Tensor) -> Tensor:
        """tokens [B, S, C], centers [B, S, 3] -> [B, S, C]."""
        return self.transform(tokens, self.pos_embed(centers))


class ContrastTower(Tower):
    """A tower with an image and a text token in front of the local tokens."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__(config)
        self.img_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.text_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.img_pos = nn.Parameter(torch.randn(1, 1, config.dim))
        self.text_pos = nn.Parameter(torch.randn(1, 1, config.dim))

    def forward(self, tokens: Tensor, centers: Tensor) -> Tensor:
        """tokens [B, G, C], centers [B, G, 3] -> the image and the text token [B, 2, C]."""
        B = tokens.shape[0]
        front = torch.cat([self.img_token, self.text_token], 1).expand(B, -1, -1)
        front_pos = torch.cat([self.img_pos, self.text_pos], 1).expand(B, -1, -1)
        x = torch.cat([front.to(tokens.dtype), tokens], 1)
        pos = torch.cat([front_pos, self.pos_embed(centers)], 1)
        return self.transform(x, pos)[:, :2]


class TwoTower(PretrainModel):
    """Reconstruction and contrast in separate transformers, without the single-modal contrast."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__(config)
        self.encoder = Tower(config)
        self.contrast_encoder = ContrastTower(config)

    def encode_tokens(
        self, tokens: Tensor, centers: Tensor, groups: PointGroups, stop_gradient: bool
    ) -> Encoding:
        """As of `PretrainModel`; no gradient needs stopping, because the contrast tower is one of its own."""
        all_tokens = self.contrast_encoder.tokenizer(groups.neighborhoods)
        global_tokens = self.contrast_encoder(all_tokens, groups.centers)
        return Encoding(global_tokens, self.encoder(tokens, centers))
