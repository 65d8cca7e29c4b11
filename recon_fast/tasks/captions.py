"""How well shapes and captions find each other, without a label.

<run>/result.json    recall in both directions, with chance
"""

from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recon_fast.config.frozen import RetrieveConfig
from recon_fast.console import say
from recon_fast.errors import InputError
from recon_fast.tasks.embed import describe_encoder, write_result
from recon_fast.tasks.searched import COMPARABLE, Searched, unit
from recon_fast.tasks.text_space import is_standardized
from recon_fast.training.folder import open_run, run_folder

RECALL_AT = (1, 5, 10)


@dataclass
class CaptionRecall:
    """Percent of queries whose own counterpart is among the k nearest, by k, and what chance gives."""

    run: Path
    shapes: int
    captions: int  # distinct ones
    shape_to_caption: dict[int, float]
    caption_to_shape: dict[int, float]
    shape_to_caption_chance: dict[int, float]
    caption_to_shape_chance: dict[int, float]


def caption_recall(
    data: str | Path, config: RetrieveConfig | None = None, console: Console | None = None
) -> CaptionRecall:
    """Zero-shot retrieval on the test split: does a shape find its caption, and a caption its shape?

    A shape looks among the distinct captions of the split. A caption, as the mean over its prompts, looks
    among its shapes, and any shape that has it counts. Ties count as misses. The split is unseen only where
    training held it out (`--data.split train`).

    Args:
        data: as of `retrieve`; with captions and a test split.
        config: settings.
        console: where lines, bars and the table go; stderr by default.

    Raises:
        InputError: as `retrieve`, or there are no captions or no test split.
    """
    config, console = config or RetrieveConfig(), console or Console(stderr=True)
    with open_run(config, None, console) as (run, _):
        searched = Searched(data, config, console)
        found, kind = searched.features(COMPARABLE["text"])
        rows = np.flatnonzero(found.held_out)
        if found.captions is None:
            raise InputError(f"data must have captions, got none in {data}")
        if not len(rows):
            raise InputError(f"data must have a test split, got no shape in {data}")
        captions = list(dict.fromkeys(found.captions[i] for i in rows))
        number = {caption: i for i, caption in enumerate(captions)}
        own = np.array([number[found.captions[i]] for i in rows])
        with run_folder(run, config):
            texts = searched.text_features(captions, found)
            features = found.features[rows]
            if is_standardized(searched.encoder):
                others = found.features[~found.held_out]
                features = features - (others if len(others) else features).mean(0)
            cosine = unit(features) @ unit(texts).T
            result = recall(run, cosine, own)
            report = {
                "task": config.command,
                "data": str(data),
                "recall_at_1": result.shape_to_caption[1],
                "chance": result.shape_to_caption_chance[1],
                **describe_encoder(searched.encoder),
                "feature": kind,
                "centered": is_standardized(searched.encoder),
                "teacher": searched.encoder.teacher,
                **{name: value for name, value in vars(result).items() if name != "run"},
            }
        write_result(run, report, [], None)
        table = Table("recall, %", *(f"at {k}" for k in RECALL_AT))
        for name, values in (
            ("shape to caption", result.shape_to_caption),
            ("  chance", result.shape_to_caption_chance),
            ("caption to shape", result.caption_to_shape),
            ("  chance", result.caption_to_shape_chance),
        ):
            table.add_row(name, *(f"{values[k]:.1f}" for k in RECALL_AT))
        console.print(table)
        say(
            console,
            f"{result.shapes} shapes of the test split, {result.captions} captions; {run / 'result.json'}",
        )
        return result


def recall(run: Path, cosine: NDArray[np.float32], own: NDArray[np.int64]) -> CaptionRecall:
    """From cosines [S, U] of shapes and captions, and the caption of each shape [S]."""
    S, U = cosine.shape
    mine = cosine[np.arange(S), own]
    to_caption = (cosine >= mine[:, None]).sum(1) - 1  # captions before one's own
    has = own[:, None] == np.arange(U)
    best = np.where(has, cosine, -np.inf).max(0)
    to_shape = ((cosine >= best) & ~has).sum(0)
    counts = has.sum(0).tolist()

    def at(ranks: NDArray) -> dict[int, float]:
        return {k: 100 * float((ranks < k).mean()) for k in RECALL_AT}

    def chance(k: int) -> float:
        return 100 * float(np.mean([1 - comb(S - m, min(k, S)) / comb(S, min(k, S)) for m in counts]))

    return CaptionRecall(
        run,
        S,
        U,
        shape_to_caption=at(to_caption),
        caption_to_shape=at(to_shape),
        shape_to_caption_chance={k: 100 * min(k, U) / U for k in RECALL_AT},
        caption_to_shape_chance={k: chance(k) for k in RECALL_AT},
    )
