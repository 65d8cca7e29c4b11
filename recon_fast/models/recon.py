"""ReCon: contrast guided by reconstruction (Qi, Dong et al., ICML 2023, arXiv 2302.02318)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.kernels import PointGroups, chamfer_distance, sample_and_group
from recon_fast.models import losses
from recon_fast.models.blocks import (
    Block,
    ReConBlock,
    StochasticDepth,
    init_transformer,
    init_xavier,
    learned_token,
    position_mlp,
)
from recon_fast.models.tokenizer import Masking, Tokenizer, take_groups


class Encoding(NamedTuple):
    """What the encoder makes of a cloud: img and text are the last two of the global tokens."""

    global_tokens: Tensor  # [B, Q, C]
    local_tokens: Tensor  # [B, S, C]


@dataclass
class PretrainOutput:
    """Losses of one batch by name, and the values on the way to them."""

    losses: dict[str, Tensor]  # of mdm, csc_img, csc_text, smc: those that apply
    masking: Masking
    groups: PointGroups
    encoding: Encoding  # of the visible groups
    decoded: Tensor  # [B, M, C]
    rebuilt: Tensor  # [B, M, K, 3]: masked groups, relative to their centers

    @property
    def loss(self) -> Tensor:
        """Sum of the losses, each with weight 1."""
        return torch.stack(list(self.losses.values())).sum()


def group_points(points: Tensor, config: ReConConfig) -> PointGroups:
    """points [B, N, 3] -> groups; N must be at least num_group and group_size."""
    c = config
    return sample_and_group(points, c.num_group, c.group_size, skip_near_origin=c.skip_near_origin)


class Encoder(nn.Module):
    """Tokenizer, three global queries, ReCon-blocks, norm."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.dim)
        self.pos_embed = position_mlp(config.dim)
        self.cls_token, self.img_token, self.text_token = (learned_token(config.dim) for _ in range(3))
        self.cls_pos, self.img_pos, self.text_pos = (learned_token(config.dim) for _ in range(3))
        self.drop_path = StochasticDepth(config.drop_path, config.depth, ReConBlock.branches)
        self.blocks = nn.ModuleList(ReConBlock(config.dim, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.apply(init_transformer)

    def layers(self, tokens: Tensor, centers: Tensor, stop_gradient: bool) -> Iterator[Encoding]:
        """What each block makes of tokens [B, S, C] of groups around centers [B, S, 3], before the norm.

        `stop_gradient` keeps the contrastive losses from reaching the local stream, as in pretraining.
        """
        B = tokens.shape[0]
        queries = torch.cat([self.cls_token, self.img_token, self.text_token], 1).expand(B, -1, -1)
        queries_pos = torch.cat([self.cls_pos, self.img_pos, self.text_pos], 1)
        pos = self.pos_embed(centers)
        x = tokens
        for block, factors in zip(self.blocks, self.drop_path(x), strict=True):
            queries, x = block(queries + queries_pos, x + pos, stop_gradient, factors)
            yield Encoding(queries, x)

    def forward(self, tokens: Tensor, centers: Tensor, stop_gradient: bool) -> Encoding:
        """What the last block makes of the tokens, normalised; arguments as of `layers`."""
        (last,) = deque(self.layers(tokens, centers, stop_gradient), maxlen=1)  # keeps no other in memory
        return Encoding(self.norm(last.global_tokens), self.norm(last.local_tokens))

    def encode(self, points: Tensor) -> Encoding:
        """Encode whole clouds, points [B, N, 3], nothing masked and no gradient stopped."""
        groups = group_points(points, self.config)
        return self(self.tokenizer(groups.neighborhoods), groups.centers, stop_gradient=False)


class Reconstruction(nn.Module):
    """Decoder: rebuilds masked groups from the encoded visible ones (Point-MAE, section 3.3)."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__()
        self.group_size = config.group_size
        self.mask_token = learned_token(config.dim)
        self.pos_embed = position_mlp(config.dim)
        depth = config.decoder_depth
        self.drop_path = StochasticDepth(config.drop_path, depth, Block.branches)
        self.blocks = nn.ModuleList(Block(config.dim, config.decoder_num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, 3 * config.group_size)
        self.blocks.apply(init_xavier)

    def forward(self, x: Tensor, visible_centers: Tensor, masked_centers: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, C], centers [B, S, 3] and [B, M, 3] -> decoded [B, M, C], rebuilt [B, M, K, 3]."""
        B, M, _ = masked_centers.shape
        pos = self.pos_embed(torch.cat([visible_centers, masked_centers], 1))  # [B, G, C]
        x = torch.cat([x, self.mask_token.expand(B, M, -1).to(x.dtype)], 1)
        for i, (block, factors) in enumerate(zip(self.blocks, self.drop_path(x), strict=True)):
            x = block(x + pos, factors, last=M if i == len(self.blocks) - 1 else None)
        decoded = self.norm(x)
        return decoded, self.head(decoded).view(B, M, self.group_size, 3)


def projection(dim: int, out_dim: int | None) -> nn.Linear | None:
    """Head from a global token to a teacher's feature space."""
    if out_dim is None:
        return None
    head = nn.Linear(dim, out_dim)
    nn.init.normal_(head.weight, 0.02, 0.01)
    nn.init.zeros_(head.bias)
    return head


class PretrainModel(nn.Module):
    """What ReCon and TwoTower share: grouping, masking, reconstruction and cross-modal contrast."""

    task: ClassVar[dict[str, Any]] = {"kind": "pretrain"}

    def __init__(self, config: ReConConfig) -> None:
        super().__init__()
        self.config = config
        self.reconstruction = Reconstruction(config)
        self.img_proj = projection(config.dim, config.image_dim)
        self.text_proj = projection(config.dim, config.text_dim)

    def group(self, points: Tensor) -> PointGroups:
        """points [B, N, 3] -> groups; N must be at least num_group and group_size."""
        return group_points(points, self.config)

    def tokenize(self, tokenizer: Tokenizer, groups: PointGroups, masking: Masking) -> Tensor:
        """Tokens [B, S, C] of the visible groups.

        The batch norms' statistics are over all groups, unless the config says otherwise.
        """
        if self.config.tokenize_visible:
            return tokenizer(take_groups(groups.neighborhoods, masking.visible))
        return tokenizer(groups.neighborhoods, masking.visible)

    def encode(self, points: Tensor) -> Encoding:
        """Encode whole clouds, points [B, N, 3], nothing masked: what downstream tasks use."""
        raise NotImplementedError

    def encode_visible(self, groups: PointGroups, masking: Masking) -> tuple[Encoding, Tensor]:
        """Encode for pretraining; returns the encoding and the visible centers [B, S, 3]."""
        raise NotImplementedError

    def forward(
        self,
        points: Tensor,
        image_feature: Tensor | None = None,
        text_feature: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        mask_noise: Tensor | None = None,
    ) -> PretrainOutput:
        """One pretraining pass.

        Args:
            points: clean clouds [B, N, 3], float32.
            image_feature: frozen image teacher's features [B, image_dim]; None leaves csc_img out.
            text_feature: frozen text teacher's features [B, text_dim]; None leaves csc_text out.
            label: [B] integer, wanted for `single_modal`.
            mask: [B, G] bool, True = masked; drawn at random unless given.
            mask_noise: [B, G] uniform in [0, 1), which a mask that is not given is drawn from.
        """
        groups = self.group(points)
        if mask is None:
            masking = Masking.draw(groups.centers, self.config, mask_noise)
        else:
            masking = Masking.from_mask(mask)
        encoding, visible_centers = self.encode_visible(groups, masking)
        masked_centers = take_groups(groups.centers, masking.masked)
        decoded, rebuilt = self.reconstruction(encoding.local_tokens, visible_centers, masked_centers)

        target = take_groups(groups.neighborhoods, masking.masked)
        terms = {
            "mdm": chamfer_distance(rebuilt.flatten(0, 1), target.flatten(0, 1), norm=self.config.chamfer)
        }
        for name, head, feature, token in (
            ("csc_img", self.img_proj, image_feature, encoding.global_tokens[:, -2]),
            ("csc_text", self.text_proj, text_feature, encoding.global_tokens[:, -1]),
        ):
            if feature is None:
                continue
            if head is None or feature.shape != (points.shape[0], head.out_features):
                want = "no such feature" if head is None else f"[{points.shape[0]}, {head.out_features}]"
                raise ValueError(
                    f"feature for {name} must be {want} by the model's config, got {tuple(feature.shape)}"
                )
            terms[name] = losses.cross_modal(head(token), feature)
        return PretrainOutput(terms, masking, groups, encoding, decoded, rebuilt)


class ReCon(PretrainModel):
    """ReCon with shared groups for both students: local tokens reconstruct, global queries contrast."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.cls_proj = (
            nn.Sequential(
                nn.Linear(config.dim, 128),
                nn.BatchNorm1d(128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.BatchNorm1d(128),
            )
            if config.single_modal
            else None
        )

    def encode(self, points: Tensor) -> Encoding:
        return self.encoder.encode(points)

    def encode_visible(self, groups: PointGroups, masking: Masking) -> tuple[Encoding, Tensor]:
        tokens = self.tokenize(self.encoder.tokenizer, groups, masking)
        centers = take_groups(groups.centers, masking.visible)
        return self.encoder(tokens, centers, stop_gradient=True), centers

    def forward(
        self,
        points: Tensor,
        image_feature: Tensor | None = None,
        text_feature: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
        mask_noise: Tensor | None = None,
    ) -> PretrainOutput:
        if self.cls_proj is not None and label is None:
            raise ValueError("label must be given for a model with single_modal=True, got None")
        output = super().forward(points, image_feature, text_feature, label, mask, mask_noise)
        if self.cls_proj is not None and label is not None:
            output.losses["smc"] = losses.single_modal(
                self.cls_proj(output.encoding.global_tokens[:, 0]), label
            )
        return output

    forward.__doc__ = PretrainModel.forward.__doc__
