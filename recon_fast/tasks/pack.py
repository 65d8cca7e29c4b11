"""The command `pack`: a data set is packed into one file or into shards, with features of the teachers."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from recon_fast.config import PackConfig
from recon_fast.console import ProgressBars, say, warn
from recon_fast.data.open import open_source, say_left_out
from recon_fast.data.packed import is_packed
from recon_fast.data.packing import check_output, pack, partial_folder
from recon_fast.data.shapes import Features, Shapes
from recon_fast.device import resolve_device
from recon_fast.errors import InputError
from recon_fast.teachers import compute_features
from recon_fast.teachers.weights import image_weights, text_weights


def pack_shapes(source: str | Path, out: str | Path, config: PackConfig, console: Console) -> str:
    """Pack what `source` names into the file `out`, or with `shard_size` into a folder of shards.

    Returns a line that says what was written.

    Raises:
        InputError: a missing or broken file, or a table of them (`DataProblems`) unless `on_problem` is
            "skip"; `out` exists or cannot be written; weights of teachers are absent.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if source.exists() and is_packed(source):
        raise InputError(f"source must be a folder of clouds, got {source}, which is packed already")
    check_output(out, config.shard_size is not None, config.overwrite)
    listed = open_source(source, config.kind, held_out_fraction=config.held_out_fraction, array=config.array)
    if config.features:  # absent weights are known before anything is read
        if config.teacher.image is not None and any(entry.picture for entry in listed.entries):
            image_weights(config.teacher).require()
        if config.teacher.text is not None and any(entry.caption for entry in listed.entries):
            text_weights(config.teacher).require()
    device = str(resolve_device(config.device))

    with ProgressBars(console) as bars:

        def features(shapes: Shapes) -> Features | None:
            return compute_features(
                shapes,
                config.teacher,
                device=device,
                store=partial_folder(out) / "features",
                progress=bars,
                log=lambda text: say(console, text),
            )

        packed = pack(
            listed,
            out,
            shard_size=config.shard_size,
            dtype=np.float16 if config.dtype == "fp16" else np.float32,
            num_points=config.num_points,
            max_points=config.max_points,
            on_problem=config.on_problem,
            repeat=config.on_small == "repeat",
            up=config.up,
            workers=config.workers,
            progress=bars.bar("reading shapes"),
            features_fn=features if config.features else None,
            state=json.dumps([config.features, asdict(config.teacher)], sort_keys=True),
            overwrite=config.overwrite,
        )
    say_left_out(packed.problems, console)
    warn(console, *packed.notes)
    return packed.summary()
