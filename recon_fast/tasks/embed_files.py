"""Features of clouds in files, into a file."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from recon_fast.config.frozen import EmbedConfig, FeatureKind, ReadingConfig
from recon_fast.console import say
from recon_fast.tasks.cloud_sets import CloudSet, open_clouds
from recon_fast.tasks.embed import (
    PointEncoder,
    describe_encoder,
    embed_in_turn,
    open_encoder,
    warn_of_conventions,
)
from recon_fast.tasks.feature_file import FeatureSet, check_feature_file, write_features
from recon_fast.training.record import versions


@dataclass
class Embedded:
    """What was written."""

    out: Path
    shapes: int
    dim: int
    seconds: float  # of encoding and writing

    def summary(self) -> str:
        """A line for people."""
        rate = self.shapes / max(self.seconds, 1e-9)
        return f"{self.out}: {self.shapes} shapes, {self.dim} numbers each, {rate:.3g} shapes/s"


def describe_features(
    encoder: PointEncoder, kind: FeatureKind, paths: Sequence[str | Path], config: ReadingConfig
) -> dict[str, Any]:
    """What features are of, for the attributes of their file."""
    return {
        "kind": kind,
        **describe_encoder(encoder),
        "num_points": config.num_points or encoder.usual_points,
        "teacher": encoder.teacher,
        "sources": [str(Path(path).expanduser().absolute()) for path in paths],
        "reading": asdict(config),
        "versions": versions(),
    }


def embed_files(
    checkpoint: str,
    clouds: Sequence[str | Path],
    out: str | Path,
    config: EmbedConfig | None = None,
    console: Console | None = None,
) -> Embedded:
    """Features of all clouds of files, folders and packed sets, written to `out` whole or not at all.

    All clouds are checked before the first is encoded; a few batches are in memory at a time.

    Args:
        checkpoint: what `recon_fast.load` takes.
        clouds: see `recon_fast.tasks.cloud_sets.open_clouds`.
        out: .h5, .hdf5 or .npz; see `recon_fast.tasks.feature_file`. An npz is in memory until it is written.
        config: settings.
        console: where lines and bars go; stderr by default.

    Raises:
        DataProblems: a table of all broken clouds, unless they may be skipped.
        InputError: the checkpoint has no such features, nothing to embed, or `out` may not be written.
    """
    config, console = config or EmbedConfig(), console or Console(stderr=True)
    out = Path(out).expanduser()
    check_feature_file(out, config.overwrite)
    encoder = open_encoder(checkpoint, config.model, config.device, config.precision, console)
    encoder.head(config.kind)
    found = open_clouds(clouds, config.data, encoder.least_points, console)
    warn_of_conventions(found.shapes, encoder, console)
    text = f"{len(found)} clouds of {found.shapes.name}, {config.kind}, {str(encoder.dtype)[6:]} on "
    say(console, f"{text}{encoder.device}")
    began = time.monotonic()
    blocks = embed_in_turn(
        encoder,
        found.read(range(len(found))),
        len(found),
        console,
        config.kind,
        num_points=config.data.num_points,
        batch_size=config.batch_size,
    )
    about = describe_features(encoder, config.kind, clouds, config.data)
    dim = write_features(out, found.shapes, blocks, about)
    return Embedded(out, len(found), dim, time.monotonic() - began)


def embed_set(
    found: CloudSet,
    encoder: PointEncoder,
    kind: FeatureKind,
    num_points: int | None,
    batch_size: int | None,
    console: Console,
) -> FeatureSet:
    """Features of all clouds of a set, in memory."""
    warn_of_conventions(found.shapes, encoder, console)
    clouds = found.read(range(len(found)))
    blocks = embed_in_turn(
        encoder, clouds, len(found), console, kind, num_points=num_points, batch_size=batch_size
    )
    shapes = found.shapes
    return FeatureSet(
        np.concatenate(list(blocks)),
        shapes.keys,
        shapes.held_out,
        shapes.labels,
        shapes.class_names,
        shapes.captions,
    )
