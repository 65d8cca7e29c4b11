"""What commands that only look at an encoder share: opening it, features of many clouds, their result."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.checkpoint.restore import Restored
from recon_fast.config import ReConConfig
from recon_fast.config.frozen import FeatureKind, FrozenConfig
from recon_fast.console import Meter, say
from recon_fast.data.conventions import check_conventions
from recon_fast.data.shapes import Shapes
from recon_fast.device import resolve_device, resolve_precision
from recon_fast.errors import InputError
from recon_fast.models import build_model
from recon_fast.schema import write_json
from recon_fast.tasks.embed import PointEncoder, load
from recon_fast.tasks.evaluate import Scores, write_confusion
from recon_fast.tasks.probe import RATIO
from recon_fast.training.record import versions

_CHUNK = 4  # batches that are handed to the encoder at once, which sorts their clouds by size


def open_encoder(
    checkpoint: str | None,
    model: FrozenConfig,
    device: str,
    precision: Any,
    console: Console,
    seed: int = 0,
) -> PointEncoder:
    """The encoder of a checkpoint, or one at random for None, which is said.

    Raises:
        InputError: as `recon_fast.tasks.embed.load`.
    """
    if checkpoint is not None:
        return load(
            checkpoint,
            device,
            precision,
            num_heads=model.num_heads,
            num_group=model.num_group,
            group_size=model.group_size,
        )
    say(
        console,
        "NO CHECKPOINT: the encoder is at random, its numbers are what training has to beat",
        "yellow",
    )
    config = getattr(ReConConfig, model.size)()
    config = replace(
        config,
        num_heads=model.num_heads or config.num_heads,
        num_group=model.num_group or config.num_group,
        group_size=model.group_size or config.group_size,
    )
    where = resolve_device(device)
    torch.manual_seed(seed)
    restored = Restored(build_model(config), None, None, None, {})
    return PointEncoder(restored, where, resolve_precision(precision, where))


def embed_in_turn(
    encoder: PointEncoder,
    clouds: Iterable[NDArray],
    total: int,
    console: Console,
    kind: FeatureKind = "svm",
    *,
    num_points: int | None = None,
    batch_size: int | None = None,
    ratio: float = RATIO,
) -> Iterator[NDArray[np.float32]]:
    """Features of clouds [N_i, 3] in order, in blocks [n, D], with a bar; a few batches are held at a time.

    Raises:
        InputError: as `PointEncoder.embed`, or an encoder whose features are not finite.
    """
    clouds, size = iter(clouds), _CHUNK * (batch_size or encoder.usual_batch)
    with Meter(console, "embedding", total) as meter:
        while block := list(islice(clouds, size)):
            features = encoder.embed(block, kind, batch_size=batch_size, num_points=num_points, ratio=ratio)
            if not np.isfinite(features).all():
                raise InputError(f"the encoder must give finite features, got NaN or inf: {encoder.file}")
            meter.advance(len(block))
            yield features


def warn_of_conventions(shapes: Shapes, encoder: PointEncoder, console: Console) -> None:
    """Say what about `shapes` is not as the encoder knows it."""
    for text in check_conventions(shapes, encoder.conventions) if encoder.conventions else []:
        say(console, text, style="yellow")


def describe_encoder(encoder: PointEncoder) -> dict[str, Any]:
    """Where the weights lie and their sha256, None for weights at random; architecture; JSON-able."""
    config = encoder.model.config
    digest = None
    if encoder.file is not None:
        with encoder.file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "checkpoint": None if encoder.file is None else str(encoder.file.absolute()),
        "checkpoint_sha256": digest,
        "width": config.dim,
        "groups": config.num_group,
        "precision": str(encoder.dtype)[6:],
    }


def labelled(shapes: Shapes) -> tuple[NDArray[np.int64], list[str]]:
    """Labels [S] and class names. Raises InputError where there are none."""
    if shapes.labels is None:
        raise InputError(f"data must have labels, got none in {shapes.name}")
    return shapes.labels, shapes.class_names


def write_result(run: Path, result: dict[str, Any], class_names: list[str], scores: Scores | None) -> None:
    """RUN/result.json with versions, confusion.csv and confusion.png. Raises InputError where it cannot."""
    try:
        if scores is not None:
            write_confusion(scores, class_names, run / "confusion")
        write_json(run / "result.json", {**result, "versions": versions()})
    except OSError as error:
        raise InputError(f"the result cannot be written to {run}: {error.strerror or error}") from error
