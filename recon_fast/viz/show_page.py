"""`recon-fast show`: what a model rebuilds of clouds and what its queries look at, as a page and as PNGs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config import ShowConfig
from recon_fast.config.frozen import QueryTeacherConfig
from recon_fast.console import ProgressBars, say, warn
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.tasks.embed import PointEncoder, open_checkpoint
from recon_fast.tasks.text_space import is_standardized, query_teacher, text_features, unit
from recon_fast.viz.clouds import Picked, pick_clouds, spread
from recon_fast.viz.html import packed, page, write_page
from recon_fast.viz.reconstruction import TOKENS, Seen, look

Captions = list[tuple[str, float]]  # with their cosine, the nearest first

_MOST_CAPTIONS = 500  # that are encoded
_PROMPTS = 4  # of each caption, at most
_ENOUGH = 8  # clouds whose mean prediction says something


def show(names: list[str], config: ShowConfig, console: Console) -> Path:
    """Write the page, and PNGs if asked for; returns the page's path.

    Raises:
        InputError: the checkpoint, a cloud or the captions cannot be used, or nothing can be written.
    """
    encoder = open_checkpoint(config.checkpoint, config.device, "fp32")
    warn(console, *encoder.notes)
    picked, captions = pick_clouds(names, config.count, config.kind, config.up, partial(warn, console))
    if config.captions is not None:
        captions = read_captions(Path(config.captions))
    seen: list[Seen] = []
    with ProgressBars(console) as bars:
        for i, cloud in enumerate(picked):
            points = encoder.sampled(cloud.points, cloud.name)
            seen.append(look(encoder.model, points, config.seed))
            bars("looking at clouds", i + 1, len(picked))
    notes = _notes(encoder)
    tokens = [one.text for one in seen if one.text is not None]
    texts = None
    if captions and tokens:
        try:
            texts, centred = nearest_captions(np.stack(tokens), captions, encoder, console)
        except InputError as error:
            notes.append(f"No nearest captions: {error}")
        else:
            note = "Nearest captions: the mean of all clouds was taken off each, as the zero-shot probe does."
            notes += [note] if centred else []
    warn(console, *notes)
    if config.png is not None:
        from recon_fast.viz.pictures import write_pictures

        for path in write_pictures(picked, seen, Path(config.png)):
            say(console, f"wrote {path}")
    return write_page(config.out, show_page(config.checkpoint, picked, seen, texts, notes))


def read_captions(path: Path) -> list[str]:
    """Distinct captions of a text file, one a line. Raises InputError if there are none."""
    captions = list(dict.fromkeys(read_lines(path.expanduser(), "captions")))
    if not captions:
        raise InputError(f"captions must be a text file with one a line, got {path}, which is empty")
    return captions


def _notes(encoder: PointEncoder) -> list[str]:
    """What a reader must know of this checkpoint."""
    notes = []
    report = encoder.report
    if report is not None and any(key.startswith("MAE_decoder.") for key in report.missing):
        notes.append("The checkpoint has no decoder: what is rebuilt comes from random weights.")
    if encoder.model.task["kind"] != "pretrain":
        notes.append(f"The checkpoint is a {encoder.model.task['kind']}, which rebuilds nothing.")
    if (encoder.teacher or {}).get("weights") == "random":
        notes.append("The teachers' weights were random: the text token knows words, not what they mean.")
    return notes


def nearest_captions(
    tokens: NDArray[np.float32], captions: Sequence[str], encoder: PointEncoder, console: Console
) -> tuple[list[Captions], bool]:
    """The captions nearest to each text token; of more than 500 captions, evenly spaced ones.

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
    captions = [captions[i] for i in spread(np.arange(len(captions)), _MOST_CAPTIONS)]
    prompts = min(int((encoder.teacher or {}).get("prompts") or _PROMPTS), _PROMPTS)
    teacher = query_teacher(QueryTeacherConfig(prompts=prompts), encoder)
    features = text_features(captions, teacher, encoder, console)
    centred = is_standardized(encoder) and len(tokens) >= _ENOUGH
    return nearest(tokens - tokens.mean(0) if centred else tokens, features, captions), centred


def nearest(
    tokens: NDArray[np.float32], features: NDArray[np.float32], captions: Sequence[str], count: int = 5
) -> list[Captions]:
    """The `count` captions with the highest cosine to each token [B, D], and the cosine."""
    similarity = unit(tokens) @ unit(features).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return [[(captions[i], float(row[i])) for i in best] for row, best in zip(similarity, order, strict=True)]


def show_page(
    checkpoint: str,
    picked: list[Picked],
    seen: list[Seen],
    texts: list[Captions] | None,
    notes: list[str],
) -> str:
    """The HTML of clouds and what was seen of them; coordinates are rounded to 1/32767 of their range."""
    clouds = [
        _cloud(cloud, one, None if texts is None else texts[i])
        for i, (cloud, one) in enumerate(zip(picked, seen, strict=True))
    ]
    return page(
        "show.html",
        "What the model sees",
        data={"clouds": clouds, "tokens": list(TOKENS)},
        scripts=["show.js"],
        plotly=True,
        checkpoint=checkpoint,
        notes=notes,
        rebuilt=seen[0].rebuilt is not None,
        attention=seen[0].attention is not None,
        nearest=texts is not None,
    )


def _cloud(cloud: Picked, seen: Seen, texts: Captions | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": cloud.name,
        "caption": cloud.caption,
        "label": cloud.label,
        "size": len(cloud.points),
        "points": packed(seen.points, "i2"),
        "groups": packed(seen.groups, "u2"),
        "nearest": texts,
    }
    if seen.rebuilt is not None and seen.chamfer is not None and seen.masked is not None:
        data["masked"] = packed(seen.masked, "u2")
        data["rebuilt"] = packed(seen.rebuilt, "i2")
        data["chamfer"] = packed(seen.chamfer, "f4")
    if seen.attention is not None:
        peak = seen.attention.max(-1)  # a view's colours end there
        data["attention"] = packed(seen.attention / peak[..., None], "u1")
        data["peak"] = packed(peak, "f4")
    return data
