"""Captions nearest to what the text token says of a cloud."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon_fast.errors import InputError
from recon_fast.teachers.config import TeacherConfig
from recon_fast.teachers.prompts import prompts
from recon_fast.teachers.text import TextTeacher

MOST = 500  # captions that are encoded; of more, evenly spaced ones
_PROMPTS = 4  # of each caption
_BATCH = 64


def teacher_config(teacher: dict[str, Any]) -> TeacherConfig:
    """The text teacher that a checkpoint names.

    Raises:
        InputError: it names none.
    """
    if not teacher.get("text"):
        raise InputError("the checkpoint names no text teacher")
    random = teacher.get("weights") == "random"
    return TeacherConfig(
        image=None,
        text=teacher["text"],
        weights="random" if random else "local",
        text_pretrained=teacher.get("text_pretrained") or TeacherConfig.text_pretrained,
        prompts=min(int(teacher.get("prompts", _PROMPTS)), _PROMPTS),
        seed=int(teacher.get("seed", 0)),
    )


def caption_features(captions: Sequence[str], teacher: dict[str, Any]) -> NDArray[np.float32]:
    """Features [U, D] of captions, averaged over prompts, in the space that the text token was trained for.

    Random teachers' features were standardised in training; here the statistics are those of `captions`.

    Raises:
        InputError: the teacher's weights are not on this machine.
    """
    config = teacher_config(teacher)
    encode = TextTeacher(config)
    texts = [prompt for caption in captions for prompt in prompts(caption, config.prompts)]
    parts = [encode(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    features = torch.cat(parts).view(len(captions), config.prompts, -1)
    if teacher.get("standardized"):
        features = (features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-6)
    return features.mean(1).numpy()


def nearest(
    tokens: NDArray[np.float32], features: NDArray[np.float32], captions: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """The `count` captions with the highest cosine to each token [B, D], and the cosine."""

    def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    similarity = unit(tokens) @ unit(features).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return [[(captions[i], float(row[i])) for i in best] for row, best in zip(similarity, order, strict=True)]
