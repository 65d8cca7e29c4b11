"""The frozen text teacher: the text tower of an open_clip model, without its image tower."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recon_fast.config.teacher import TeacherConfig
from recon_fast.device import autocast
from recon_fast.errors import InputError
from recon_fast.teachers.image import quick_gelu, teacher_dtype
from recon_fast.teachers.weights import Weights, load_state, read_state, text_weights

TINY = {"embed_dim": 256, "text_cfg": {"context_length": 32, "width": 192, "heads": 3, "layers": 2}}
# Standard deviation of token embeddings. At open_clip's 0.02 the variance between captions over that between
# the prompts of one is 0.44, at 1 it is 0.87, and the nearest of 80 captions shares the noun for 42 % rather
# than 32 %.
_TINY_STD = 1.0
_PARTS = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")


class TextTeacher:
    """Features of texts, by open_clip's own tokenizer and text tower; arguments as of `ImageTeacher`."""

    def __init__(
        self, config: TeacherConfig, device: str | torch.device = "cpu", weights: Weights | None = None
    ) -> None:
        import open_clip
        from open_clip.model import CLIPTextCfg, _build_text_tower

        self.config = config
        self.device = torch.device(device)
        found = (weights or text_weights(config)).require()
        tiny = found.model == "tiny"
        settings: dict[str, Any] = TINY if tiny else open_clip.get_model_config(found.model)
        text = settings["text_cfg"]
        foreign = text.get("hf_tokenizer_name") or text.get("hf_model_name")
        if foreign or "siglip" in found.model.lower():
            raise InputError(
                "teacher.text must be an open_clip model with open_clip's own BPE tokenizer, got "
                f"{found.model!r}, whose tokenizer {foreign or 'SigLIP'} would have to be downloaded"
            )
        if tiny:
            self.tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
        else:
            self.tokenizer = open_clip.get_tokenizer(found.model)
        self.dtype = teacher_dtype(config, self.device)
        with torch.random.fork_rng(devices=[]):  # CUDA's generators are not touched
            torch.default_generator.manual_seed(config.seed)
            activation = quick_gelu(settings, config, found)
            self.model: nn.Module = _build_text_tower(settings["embed_dim"], CLIPTextCfg(**text), activation)
            if tiny:
                nn.init.normal_(self.model.token_embedding.weight, std=_TINY_STD)
        if found.file is not None:
            load_state(self.model, _text_part(read_state(found.file)), found.file, found.model)
        self.model.eval().requires_grad_(False).to(self.device)
        # With a causal mask nothing after a text's end reaches its feature, so that padding can be cut off.
        causal = self.model.pool_type == "argmax" and self.model.cls_emb is None
        self.mask: Tensor | None = getattr(self.model, "attn_mask", None) if causal else None

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features float32 [B, D] of B texts, on the CPU. Longer texts than the model's context are cut."""
        tokens = self.tokenizer(list(texts))  # [B, L]
        if self.mask is not None:
            length = int(tokens.argmax(1).max()) + 1  # the end token has the highest number
            tokens = tokens[:, :length]
            self.model.attn_mask = self.mask[:length, :length]
        with autocast(self.device, self.dtype):
            return self.model(tokens.to(self.device)).float().cpu()


def _text_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors of a whole model's state dict, or of the tower's own."""
    nested = {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}
    return nested or {k: v for k, v in state.items() if k.startswith(_PARTS)}
