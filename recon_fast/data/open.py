"""The door to every data set: a packed one, a folder of any layout, a file of many clouds, or one made.

Everything that is broken is reported before a shape is used.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config import DataConfig, StatedUp
from recon_fast.console import ProgressBars, say, warn
from recon_fast.data.conventions import guess_up, state_up, turn_up, voters
from recon_fast.data.loading import load, problem_table
from recon_fast.data.packed import is_packed, is_sharded, read_packed, read_shards, verify_shards
from recon_fast.data.readers.arrays import ARRAYS
from recon_fast.data.readers.clouds import MIXED
from recon_fast.data.readers.folder import list_folder
from recon_fast.data.readers.hdf5 import VARIANTS, is_scanobjectnn, list_array_file, list_scanobjectnn
from recon_fast.data.readers.listed import (
    is_few_shot,
    is_modelnet,
    is_shapenet,
    is_shapenet_part,
    list_few_shot,
    list_fold,
    list_modelnet,
    list_shapenet,
    list_shapenet_part,
)
from recon_fast.data.shapes import Problem, Shapes, Source
from recon_fast.errors import InputError

# The official layouts of folders by the name of their kind, in the order in which they are looked for: is a
# folder of it (quick, and true for one that lacks some of its files), and its shapes, or InputError.
LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Source]]] = {
    "shapenet": (is_shapenet, list_shapenet),
    "shapenetpart": (is_shapenet_part, list_shapenet_part),
    "modelnet40": (partial(is_modelnet, classes=40), partial(list_modelnet, classes=40)),
    "modelnet10": (partial(is_modelnet, classes=10), partial(list_modelnet, classes=10)),
    "scanobjectnn": (is_scanobjectnn, list_scanobjectnn),
    # A variant is chosen by its name alone.
    **{name: (lambda path: False, partial(list_scanobjectnn, variant=name)) for name in VARIANTS},
    "fewshot": (is_few_shot, list_few_shot),
}
# The kinds of files that are data sets: their shapes, from a path, the share to hold out where there is no
# test split, and the name of the array of clouds, if it was given.
SETS: dict[str, Callable[[Path, float, str | None], Source]] = {
    **dict.fromkeys((*ARRAYS, ".npy"), list_array_file),
    ".pkl": lambda path, _, __: list_fold(path),
    ".zip": list_folder,
}


def open_source(
    path: Path, kind: str = "auto", *, held_out_fraction: float = 0.1, array: str | None = None
) -> Source:
    """List the shapes of a folder, of a .zip of one, of a file of arrays, or of one few-shot fold (.pkl).

    Args:
        path: where they are.
        kind: "auto" looks for the official layouts first; else a name in
            `LAYOUTS`, or "folder": clouds under any names, or ModelNet's HDF5 files.
        held_out_fraction: share that is held out where the layout names no test split.
        array: name of the array of clouds in files of arrays; None takes the one that is found.

    Raises:
        InputError: nothing that can be read is there, or several variants of a set and no word which.
    """
    path = path.expanduser()
    if not 0 <= held_out_fraction < 1:
        raise InputError(f"data.held_out_fraction must be in [0, 1), got {held_out_fraction}")
    wanted = f"data.path must be a folder of clouds, or a file that holds many ({' '.join(SETS)})"
    if not path.exists():
        raise InputError(f"{wanted}, got {path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in SETS:
            raise InputError(f"{wanted}, got the file {path}")
        if path.suffix.lower() == ".zip" and kind not in ("auto", "folder"):
            raise InputError(f"kind {kind} is read from a folder, got {path}: unpack it")
        return SETS[path.suffix.lower()](path, held_out_fraction, array)
    if kind == "auto":
        kind = next((name for name, (fits, _) in LAYOUTS.items() if fits(path)), "folder")
    return list_folder(path, held_out_fraction, array) if kind == "folder" else LAYOUTS[kind][1](path)


def open_dataset(
    path: Path,
    kind: str = "auto",
    *,
    num_points: int = 1,
    held_out_fraction: float = 0.1,
    array: str | None = None,
) -> Shapes | Source:
    """A data set, packed or not: the shapes of a packed one, mapped; of any other the list of what to `load`.

    Args:
        path: a packed file, a folder of shards, or what `open_source` takes.
        kind, held_out_fraction, array: as `open_source` takes them, for sets that are not packed.
        num_points: what each cloud of a packed set must have at least.

    Raises:
        InputError: nothing that can be read is there, or a packed set is damaged.
    """
    path = path.expanduser()
    if not path.exists() or not is_packed(path):
        return open_source(path, kind, held_out_fraction=held_out_fraction, array=array)
    if path.is_dir():
        return read_shards(path, num_points=num_points)
    return read_packed(path, num_points=num_points, mapped=True)


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
    if config.path is None:
        found: Shapes | Source = _make(config.shapes, seed, console, parts)
    else:
        found = open_dataset(
            Path(config.path),
            config.kind,
            num_points=config.num_points,
            held_out_fraction=config.held_out_fraction,
            array=config.array,
        )
    if isinstance(found, Source):
        with ProgressBars(console) as bars:
            found, left_out = load(
                found,
                num_points=config.num_points,
                max_points=config.max_points,
                dtype=np.float16 if config.storage == "fp16" else np.float32,
                on_problem=config.on_problem,
                repeat=config.on_small == "repeat",
                workers=config.workers,
                progress=bars.bar("reading shapes"),
            )
        say_left_out(left_out, console)
    say_notes(found, console)
    return turn_up(stated_or_guessed(found, config.up, partial(warn, console)), config.turn_up)


def stated_or_guessed(
    shapes: Shapes,
    up: StatedUp,
    say: Callable[[str], None],
    read: Callable[[Sequence[int]], Iterable[NDArray]] | None = None,
) -> Shapes:
    """Shapes with the axis that points up: the user's word, what the layout or file states, or a sure guess.

    Args:
        shapes: a set.
        up: the user's word; "auto" for none.
        say: gets a line about the guess, which asks where it is not sure and so not followed.
        read: gives the clouds of some rows where `shapes` holds no points.
    """
    stated = state_up(shapes, up)
    if stated.conventions.up != "unknown" or not len(shapes):
        return stated
    unknown = f"which axis is up in {shapes.name} is not known"
    state_it = "state it with --data.up (of a probe --probe.up) x, y or z"
    if any(note.startswith(MIXED) for note in shapes.notes):  # one guess would turn some of them wrongly
        say(f"{unknown}, since its formats differ in it: {state_it}, or put them into sets of their own")
        return stated
    rows = voters(len(shapes)).tolist()
    guess = guess_up(read(rows) if read is not None else map(shapes.cloud, rows))
    if not guess.sure:
        say(f"{unknown} ({guess}, too few to tell): {state_it}")
        return stated
    say(f"{shapes.name}: {guess}, which is taken for true; --data.up would state it")
    return state_up(shapes, guess.axis)


def _make(count: int, seed: int, console: Console, parts: bool) -> Shapes:
    """The procedural set. Raises InputError unless its clouds fit into the free memory."""
    import torch

    from recon_fast.data.batches.resident import free_memory
    from recon_fast.procedural import CLOUD_POINTS, procedural_shapes

    needed, free = 12 * CLOUD_POINTS * count, free_memory(torch.device("cpu"))
    if needed > free:
        raise InputError(
            f"data.shapes {count} need at least {needed / 2**30:,.1f} GiB of memory, "
            f"{free / 2**30:,.1f} are free"
        )
    say(console, f"making {count} procedural shapes (the first time, 5 s more to compile)")
    with ProgressBars(console) as bars, torch_threads_kept():
        bar = bars.bar("making procedural shapes")
        return procedural_shapes(count, seed, parts=parts, progress=lambda done: bar(done, count))


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Let torch have as many threads afterwards; numba gives OpenMP, which torch shares, all cores."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def verify_shards_of(config: DataConfig, console: Console) -> None:
    """Verify all of a sharded set, as a packed file is when it is opened; for one process of a job.

    Raises:
        InputError: shards are missing or damaged, with a table of them.
    """
    if config.path is not None and is_sharded(path := Path(config.path).expanduser()):
        with ProgressBars(console) as bars:
            verify_shards(path, bars.bar("verifying shards"))


def say_left_out(problems: list[Problem], console: Console) -> None:
    """Say once how many shapes were left out, and why; nothing where there were none."""
    if problems:
        count = len({problem.key for problem in problems})
        say(console, f"{problem_table(problems)}\nleft out {count} shapes that cannot be used")


def say_notes(shapes: Shapes, console: Console) -> None:
    """Say what of the files is not used or was changed."""
    warn(console, *(f"{shapes.name}: {note}" for note in shapes.notes))


def fingerprint(shapes: Shapes) -> str:
    """Hex digest of the shapes' names, sizes, split and 256 clouds: is it the data a run started with?"""
    digest = blake2b("\n".join(shapes.keys).encode(), digest_size=16)
    digest.update(shapes.offsets.tobytes())
    digest.update(shapes.held_out.tobytes())
    for i in np.unique(np.linspace(0, len(shapes) - 1, 256).astype(np.int64)):
        digest.update(shapes.cloud(int(i)).tobytes())
    return digest.hexdigest()
