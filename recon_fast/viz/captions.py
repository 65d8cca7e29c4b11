"""Captions nearest to what the text token says of a cloud."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.frozen import QueryTeacherConfig
from recon_fast.tasks.embed import PointEncoder
from recon_fast.tasks.searched import unit
from recon_fast.tasks.text_space import is_standardized, query_teacher, text_features

MOST = 500  # captions that are encoded; of more, evenly spaced ones
_PROMPTS = 4  # of each caption, at most
_ENOUGH = 8  # clouds whose mean prediction says something


def nearest_captions(
    tokens: NDArray[np.float32], captions: Sequence[str], encoder: PointEncoder, console: Console
) -> tuple[list[list[tuple[str, float]]], bool]:
    """The captions nearest to each text token.

    Args:
        tokens: [B, D], in the text teacher's space.
        captions: distinct ones.
        encoder: the checkpoint that the tokens are of.
        console: where lines go.

    Returns:
        Of each token its captions with their cosine, and whether the tokens' mean was taken off them: it is
        error where features were standardised in training, once there are clouds enough to know it.

    Raises:
        InputError: the text teacher's weights are not on this machine, or are others than the checkpoint's.
    """
    prompts = min(int((encoder.teacher or {}).get("prompts") or _PROMPTS), _PROMPTS)
    teacher = query_teacher(QueryTeacherConfig(prompts=prompts), encoder)
    features = text_features(captions, teacher, encoder, console)
    centred = is_standardized(encoder) and len(tokens) >= _ENOUGH
    return nearest(tokens - tokens.mean(0) if centred else tokens, features, captions), centred


def nearest(
    tokens: NDArray[np.float32], features: NDArray[np.float32], captions: Sequence[str], count: int = 5
) -> list[list[tuple[str, float]]]:
    """The `count` captions with the highest cosine to each token [B, D], and the cosine."""
    similarity = unit(tokens) @ unit(features).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return [[(captions[i], float(row[i])) for i in best] for row, best in zip(similarity, order, strict=True)]
