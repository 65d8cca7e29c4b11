"""What the global queries look at: weights of the cross-attention over the groups of a cloud."""

import torch
from torch import Tensor, nn

from recon_fast.models import AnyModel, Encoding
from recon_fast.models.blocks import CrossAttention, split_heads

TOKENS = ("cls", "img", "text")


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
