"""What a model makes of single clouds: groups, masking, rebuilt points, weights of the cross-attention."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recon_fast.kernels import chamfer_distance
from recon_fast.models import AnyModel, Encoding, PretrainModel
from recon_fast.models.blocks import CrossAttention, split_heads
from recon_fast.models.recon import group_points
from recon_fast.models.tokenizer import take_groups

TOKENS = ("cls", "img", "text")


@dataclass
class Seen:
    """One cloud as a model sees it; N points, G groups of K points, M of them masked."""

    points: NDArray[np.float32]  # [N, 3], in the unit sphere
    groups: NDArray[np.int64]  # [G, K]: rows of `points`
    masked: NDArray[np.int64] | None  # [M]: which groups the model rebuilt; None without a decoder
    rebuilt: NDArray[np.float32] | None  # [M, K, 3], in the place of `points`
    chamfer: NDArray[np.float32] | None  # [M]: squared Chamfer distance of each rebuilt group
    attention: NDArray[np.float32] | None  # [blocks, H, 3, G], nothing masked
    text: NDArray[np.float32] | None  # [D]: the text token in the text teacher's space, nothing masked


def attention_weights(attention: CrossAttention, queries: Tensor, x: Tensor) -> Tensor:
    """Weights of one cross-attention, which its own forward pass never forms.

    Args:
        attention: with H heads of width D.
        queries: [B, Q, C], as the module gets them (normalised).
        x: local tokens [B, S, C], likewise.

    Returns:
        softmax(q k^T / sqrt(D)), float32 [B, H, Q, S]; sums to 1 over S.
    """
    H = attention.num_heads
    query = split_heads(attention.q(queries), H)  # [B, H, Q, D]
    key = split_heads(attention.kv(x).chunk(2, dim=-1)[0], H)  # [B, H, S, D]
    return (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).float().softmax(-1)


@torch.inference_mode()
def encode_and_attend(model: AnyModel, points: Tensor) -> tuple[Encoding, Tensor | None]:
    """Encode whole clouds, and keep the weights of the cross-attention in all blocks.

    Args:
        model: in evaluation mode.
        points: [B, N, 3] float32, on the model's device.

    Returns:
        What `model.encode` gives, and float32 [blocks, B, H, 3, G] for the queries cls, img and text, groups
        in the order of `group_points`; None for a model without cross-attention (the two towers).
    """
    modules = [module for module in model.modules() if isinstance(module, CrossAttention)]
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        assert isinstance(module, CrossAttention)
        found.append(attention_weights(module, *arguments))

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        encoding = model.encode(points)
    finally:
        for handle in handles:
            handle.remove()
    return encoding, torch.stack(found) if found else None


@torch.inference_mode()
def look(model: AnyModel, points: Tensor, seed: int = 0) -> Seen:
    """Run the model on one cloud, masked for the reconstruction and whole for the rest.

    Args:
        model: in evaluation mode.
        points: [1, N, 3] float32, from `PointEncoder.sampled`, on the model's device.
        seed: of the mask.
    """
    groups = group_points(points, model.config)
    encoding, weights = encode_and_attend(model, points)
    masked = rebuilt = chamfer = text = None
    if isinstance(model, PretrainModel):
        noise = torch.rand(1, model.config.num_group, generator=torch.Generator().manual_seed(seed))
        # A label is for a loss which is not looked at.
        label = torch.zeros(1, dtype=torch.int64, device=points.device) if model.config.single_modal else None
        output = model(points, mask_noise=noise.to(points.device), label=label)
        picked = output.masking.masked
        centers = take_groups(output.groups.centers, picked)  # [1, M, 3]
        target = take_groups(output.groups.neighborhoods, picked)[0]  # [M, K, 3]
        relative = output.rebuilt[0].float()
        chamfer = chamfer_distance(relative, target, reduction="none").cpu().numpy()
        rebuilt = (relative + centers[0][:, None]).cpu().numpy()
        masked = picked[0].cpu().numpy()
        if model.text_proj is not None:
            text = model.text_proj(encoding.global_tokens[:, -1])[0].float().cpu().numpy()
    return Seen(
        points=points[0].cpu().numpy(),
        groups=groups.neighbor_idx[0].cpu().numpy(),
        masked=masked,
        rebuilt=rebuilt,
        chamfer=chamfer,
        attention=None if weights is None else weights[:, 0].cpu().numpy(),
        text=text,
    )
