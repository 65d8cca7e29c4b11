"""ReCon: contrast guided by reconstruction (Qi, Dong et al., ICML 2023, arXiv 2302.02318)."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.distributed import gather_rows
from recon_fast.kernels import PointGroups, chamfer_distance, sample_and_group
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
    """Output of an encoder; the image and the text token are the last two of the global tokens."""

    global_tokens: Tensor  # [B, Q, C]
    local_tokens: Tensor  # [B, S, C]


@dataclass
class PretrainOutput:
    """Losses of one batch by name, and the intermediate values they were computed from."""

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
        if config.init == "xavier":
            self.pos_embed.apply(init_xavier)
            self.blocks.apply(init_xavier)

    def layers(self, tokens: Tensor, centers: Tensor, stop_gradient: bool) -> Iterator[Encoding]:
        """The output of each block, before the norm.

        Args:
            tokens: [B, S, C] of groups.
            centers: [B, S, 3] of these groups.
            stop_gradient: keeps the contrastive losses from reaching the local stream, as in pretraining.
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
        """The output of the last block, normalised; arguments as of `layers`."""
        (last,) = deque(self.layers(tokens, centers, stop_gradient), maxlen=1)  # keeps no other in memory
        return Encoding(self.norm(last.global_tokens), self.norm(last.local_tokens))

    def encode(self, points: Tensor) -> Encoding:
        """Encode whole clouds, points [B, N, 3], nothing masked and no gradient stopped."""
        groups, dtype = group_points(points, self.config), self.norm.weight.dtype
        tokens = self.tokenizer(groups.neighborhoods.to(dtype))
        return self(tokens, groups.centers.to(dtype), stop_gradient=False)


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


def feature_head(dim: int, out_dim: int | None) -> nn.Linear | None:
    """Head from a global token to a teacher's feature space; None where there is no such teacher."""
    if out_dim is None:
        return None
    head = nn.Linear(dim, out_dim)
    nn.init.normal_(head.weight, 0.02, 0.01)
    nn.init.zeros_(head.bias)
    return head


class PretrainModel(nn.Module, ABC):
    """What ReCon and TwoTower share: grouping, masking, reconstruction and contrast.

    Subclasses add the `encoder`, which has a tokenizer, and say how it encodes tokens.
    """

    task: ClassVar[dict[str, Any]] = {"kind": "pretrain"}
    encoder: Any  # `Encoder` or `Tower`

    def __init__(self, config: ReConConfig) -> None:
        super().__init__()
        self.config = config
        self.reconstruction = Reconstruction(config)
        self.img_proj = feature_head(config.dim, config.image_dim)
        self.text_proj = feature_head(config.dim, config.text_dim)
        self.cls_proj: nn.Module | None = None  # head of the single-modal contrast

    @abstractmethod
    def encode_tokens(
        self, tokens: Tensor, centers: Tensor, groups: PointGroups, stop_gradient: bool
    ) -> Encoding:
        """Global and local tokens of clouds.

        Args:
            tokens: [B, S, C] of the groups that the local stream sees.
            centers: [B, S, 3] of these groups.
            groups: all groups of the clouds.
            stop_gradient: keeps the contrastive losses from reaching the local stream, as in pretraining.
        """

    def group(self, points: Tensor) -> PointGroups:
        """points [B, N, 3] -> groups; N must be at least num_group and group_size."""
        return group_points(points, self.config)

    def encode(self, points: Tensor) -> Encoding:
        """Encode whole clouds, points [B, N, 3], nothing masked: what downstream tasks use."""
        groups = self.group(points)
        tokens = self.encoder.tokenizer(groups.neighborhoods)
        return self.encode_tokens(tokens, groups.centers, groups, stop_gradient=False)

    def encode_visible(self, groups: PointGroups, masking: Masking) -> tuple[Encoding, Tensor]:
        """Encode for pretraining; returns the encoding and the visible centers [B, S, 3].

        Batch norms of the tokenizer take their statistics over all groups, or over the visible ones where
        `tokenize_visible` is set.
        """
        tokenizer = self.encoder.tokenizer
        if self.config.tokenize_visible:
            tokens = tokenizer(take_groups(groups.neighborhoods, masking.visible))
        else:
            tokens = tokenizer(groups.neighborhoods, masking.visible)
        centers = take_groups(groups.centers, masking.visible)
        return self.encode_tokens(tokens, centers, groups, self.config.stop_gradient), centers

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
            mask: [B, G] bool, True = masked; random unless given.
            mask_noise: [B, G] uniform in [0, 1), of which a mask that is not given is a function.
        """
        if self.cls_proj is not None and label is None:
            raise ValueError("label must be given for a model with single_modal=True, got None")
        groups = self.group(points)
        if mask is None:
            masking = Masking.sample(groups.centers, self.config, mask_noise)
        else:
            masking = Masking.from_mask(mask)
        encoding, visible_centers = self.encode_visible(groups, masking)
        masked_centers = take_groups(groups.centers, masking.masked)
        decoded, rebuilt = self.reconstruction(encoding.local_tokens, visible_centers, masked_centers)

        target = take_groups(groups.neighborhoods, masking.masked)
        found = {
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
            found[name] = cross_modal(head(token), feature)
        if self.cls_proj is not None and label is not None:
            found["smc"] = single_modal(self.cls_proj(encoding.global_tokens[:, 0]), label)
        return PretrainOutput(found, masking, groups, encoding, decoded, rebuilt)


class ReCon(PretrainModel):
    """ReCon with shared groups for both students: local tokens reconstruct, global queries contrast."""

    def __init__(self, config: ReConConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        if config.single_modal:
            self.cls_proj = nn.Sequential(
                nn.Linear(config.dim, 128),
                nn.BatchNorm1d(128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.BatchNorm1d(128),
            )

    def encode_tokens(
        self, tokens: Tensor, centers: Tensor, groups: PointGroups, stop_gradient: bool
    ) -> Encoding:
        return self.encoder(tokens, centers, stop_gradient)


TEMPERATURE = 0.1
_NEVER = -1e9  # a logit without weight; -inf would give a batch of one label NaN gradients


def cross_modal(prediction: Tensor, feature: Tensor) -> Tensor:
    """SmoothL1 (beta = 1, mean) between projected tokens [B, D] and frozen teacher features [B, D]."""
    return F.smooth_l1_loss(prediction.float(), feature.float())


def single_modal(embedding: Tensor, label: Tensor) -> Tensor:
    """Contrast of shapes by label: the mean similarity of a row's positives against all its negatives.

    Where several processes train, positives and negatives come from the batches of all of them.

    Args:
        embedding: [B, D], normalised here.
        label: [B], integer. Positives share the label; a shape is a positive of itself.

    Returns:
        Mean cross-entropy over the batch, temperature 0.1; 0 for a batch of one label.
    """
    embedding = F.normalize(embedding.float(), dim=-1)
    similarity = embedding @ gather_rows(embedding).T / TEMPERATURE  # [B, W B] of W processes
    same = label[:, None] == gather_rows(label)[None, :]
    positive = (similarity * same).sum(1) / same.sum(1)  # [B]
    negatives = similarity.masked_fill(same, _NEVER).logsumexp(1)
    return F.softplus(negatives - positive).mean()
