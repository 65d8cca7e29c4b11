"""From a `DataConfig` to shapes in memory, with everything broken reported first."""

import json
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from recon_fast.config import DataConfig, PackConfig
from recon_fast.console import ProgressBars, say
from recon_fast.data.shapes import Features, Problem, Shapes
from recon_fast.errors import InputError


def prepare_shapes(config: DataConfig, seed: int, console: Console, parts: bool = False) -> Shapes:
    """Load or make the shapes that `config` names, turned as it says.

    Args:
        config: settings.
        seed: of the procedural set.
        console: where lines and progress go.
        parts: a procedural set is to be of the families whose points have parts.

    Raises:
        InputError: a missing or broken file, or a table of them (`DataProblems`) unless `on_problem` is
            "skip".
    """
    from recon_fast.data.conventions import state_up, turn_up

    return turn_up(state_up(_read_or_make(config, seed, console, parts), config.up), config.turn_up)


def _read_or_make(config: DataConfig, seed: int, console: Console, parts: bool) -> Shapes:
    # Imported here: readers of one layout need not be loaded for another.
    from recon_fast.data.loading import load, open_source
    from recon_fast.data.shards import open_packed

    if config.path is None:
        check_room(config.shapes)
        say(console, f"making {config.shapes} procedural shapes (the first time, 5 s more to compile)")
    with ProgressBars(console) as bars:
        if config.path is None:
            import torch

            from recon_fast.procedural import procedural_shapes

            done = bars.bar("making procedural shapes")
            threads = torch.get_num_threads()
            try:
                return procedural_shapes(
                    config.shapes, seed, parts=parts, progress=lambda count: done(count, config.shapes)
                )
            finally:  # numba gives OpenMP, which torch shares, all cores
                torch.set_num_threads(threads)
        path = Path(config.path).expanduser()
        packed = open_packed(path, num_points=config.num_points)
        if packed is not None:
            say_notes(packed, console)
            return packed
        source = open_source(path, config.kind, held_out_fraction=config.held_out_fraction)
        shapes, left_out = load(
            source,
            num_points=config.num_points,
            max_points=config.max_points,
            dtype=np.float16 if config.storage == "fp16" else np.float32,
            on_problem=config.on_problem,
            workers=config.workers,
            progress=bars.bar("reading shapes"),
        )
    say_left_out(left_out, console)
    say_notes(shapes, console)
    return shapes


def check_room(shapes: int) -> None:
    """Raise InputError unless the clouds of so many procedural shapes fit into the free memory."""
    import torch

    from recon_fast.data.batches.placement import free_memory
    from recon_fast.procedural import CLOUD_POINTS

    needed, free = 12 * CLOUD_POINTS * shapes, free_memory(torch.device("cpu"))
    if needed > free:
        raise InputError(
            f"data.shapes {shapes} need at least {needed / 2**30:,.1f} GiB of memory, "
            f"{free / 2**30:,.1f} are free"
        )


def verify_shards_of(config: DataConfig, console: Console) -> None:
    """Verify all of a sharded set, as a packed file is when it is opened; for one process of a job.

    Raises:
        InputError: shards are missing or damaged, with a table of them.
    """
    from recon_fast.data.shards import is_sharded, verify_shards

    if config.path is not None and is_sharded(path := Path(config.path).expanduser()):
        with ProgressBars(console) as bars:
            verify_shards(path, bars.bar("verifying shards"))


def say_left_out(problems: list[Problem], console: Console) -> None:
    """Say once how many shapes were left out, and why; nothing where there were none."""
    from recon_fast.data.loading import problem_table

    if problems:
        count = len({problem.key for problem in problems})
        say(console, f"{problem_table(problems)}\nleft out {count} shapes that cannot be used")


def say_notes(shapes: Shapes, console: Console) -> None:
    """Say what of the files is not used or was changed."""
    for note in shapes.notes:
        say(console, f"{shapes.name}: {note}", style="yellow")


def pack_shapes(source: str | Path, out: str | Path, config: PackConfig, console: Console) -> str:
    """Pack what `source` names into the file `out`, or with `shard_size` into a folder of shards.

    Returns a line that says what was written.

    Raises:
        InputError: a missing or broken file, or a table of them (`DataProblems`) unless `on_problem` is
            "skip"; `out` exists or cannot be written; weights of teachers are absent.
    """
    from recon_fast.data.loading import open_source
    from recon_fast.data.pack_shards import PackedShards, check_folder, pack_shards
    from recon_fast.data.packed import Packed, check_out, is_packed, pack, partial_folder
    from recon_fast.data.shards import is_sharded
    from recon_fast.device import resolve_device
    from recon_fast.teachers import compute_features
    from recon_fast.teachers.weights import image_weights, text_weights

    source, out = Path(source).expanduser(), Path(out).expanduser()
    if (source.is_file() and is_packed(source)) or is_sharded(source):
        raise InputError(f"source must be a folder of clouds, got {source}, which is packed already")
    (check_out if config.shard_size is None else check_folder)(out, config.overwrite)
    listed = open_source(source, config.kind, held_out_fraction=config.held_out_fraction)
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

        settings: dict[str, Any] = {
            "dtype": np.float16 if config.dtype == "fp16" else np.float32,
            "num_points": config.num_points,
            "max_points": config.max_points,
            "on_problem": config.on_problem,
            "up": config.up,
            "workers": config.workers,
            "progress": bars.bar("reading shapes"),
            "features_fn": features if config.features else None,
            "overwrite": config.overwrite,
        }
        packed: Packed | PackedShards
        if config.shard_size is None:
            packed = pack(listed, out, **settings)
        else:
            state = json.dumps([config.features, asdict(config.teacher)], sort_keys=True)
            packed = pack_shards(listed, out, config.shard_size, state=state, **settings)
    say_left_out(packed.problems, console)
    for note in packed.notes:
        say(console, note, style="yellow")
    return packed.summary()


def fingerprint(shapes: Shapes) -> str:
    """Hex digest of the shapes' names, sizes, split and 256 clouds: is it the data a run started with?"""
    digest = blake2b("\n".join(shapes.keys).encode(), digest_size=16)
    digest.update(shapes.offsets.tobytes())
    digest.update(shapes.held_out.tobytes())
    for i in np.unique(np.linspace(0, len(shapes) - 1, 256).astype(np.int64)):
        digest.update(shapes.cloud(int(i)).tobytes())
    return digest.hexdigest()
