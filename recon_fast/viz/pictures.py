"""The views of `recon-fast show` as PNGs, for papers and for places without a browser."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.errors import InputError
from recon_fast.viz.clouds import Picked, spread
from recon_fast.viz.reconstruction import TOKENS, Seen

_BLOCKS = 4  # rows of the picture of the attention, at most
_SIDE = 2.4  # inches of a view


def write_pictures(picked: Sequence[Picked], seen: Sequence[Seen], folder: Path) -> list[Path]:
    """NAME.png with the reconstruction and NAME-attention.png of each cloud, as far as the model has them.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = folder.expanduser()
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for i, (cloud, one) in enumerate(zip(picked, seen, strict=True)):
            stem = f"{i:02d}-" + re.sub(r"[^\w.-]+", "-", cloud.name)[-60:].strip("-.")
            if one.rebuilt is not None:
                written.append(folder / f"{stem}.png")
                reconstruction_figure(cloud.name, one).savefig(written[-1], dpi=130)
            if one.attention is not None:
                written.append(folder / f"{stem}-attention.png")
                attention_figure(cloud.name, one).savefig(written[-1], dpi=110)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return written


def _axes(figure: Any, rows: int, columns: int, index: int, title: str) -> Any:
    axes = figure.add_subplot(rows, columns, index, projection="3d", computed_zorder=False)
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_axis_off()
    axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.8, 0.8))
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    axes.view_init(elev=22, azim=-58)
    return axes


def _draw(axes: Any, points: NDArray, **style: Any) -> Any:
    """points [..., 3] with y up, as matplotlib's z."""
    x, y, z = points.reshape(-1, 3).T
    return axes.scatter(x, -z, y, **({"s": 3, "linewidths": 0, "depthshade": False} | style))


def reconstruction_figure(name: str, seen: Seen) -> Any:
    """Input, visible and masked groups, rebuilt and true points, of a cloud with a reconstruction."""
    from matplotlib.figure import Figure

    assert seen.masked is not None
    assert seen.rebuilt is not None
    assert seen.chamfer is not None
    visible = seen.points[np.delete(seen.groups, seen.masked, 0)]
    true = seen.points[seen.groups[seen.masked]]  # [M, K, 3]
    value = np.repeat(seen.chamfer, true.shape[1])
    figure = Figure(figsize=(5 * _SIDE, _SIDE + 0.6), layout="constrained")
    figure.suptitle(name, fontsize=10, parse_math=False)
    _draw(_axes(figure, 1, 5, 1, "input"), seen.points, c="#30343c")
    _draw(_axes(figure, 1, 5, 2, f"visible, {len(seen.groups) - len(true)} groups"), visible, c="#0072b2")
    _draw(_axes(figure, 1, 5, 3, f"masked, {len(true)} groups"), true, c="#d55e00")
    views = []
    for index, title, points in ((4, "rebuilt", seen.rebuilt), (5, "true", true)):
        views.append(_axes(figure, 1, 5, index, title))
        _draw(views[-1], visible, c="#c4c8d0", s=1.5)
        drawn = _draw(views[-1], points, c=value, cmap="cividis", s=5)
    figure.colorbar(drawn, ax=views, shrink=0.7, label="squared Chamfer distance")
    return figure


def attention_figure(name: str, seen: Seen) -> Any:
    """Mean of the heads, a row for each of up to 4 blocks, a column for each query."""
    from matplotlib.figure import Figure

    assert seen.attention is not None
    mean = seen.attention.mean(1)  # [blocks, 3, G]
    rows = spread(np.arange(len(mean)), _BLOCKS)
    figure = Figure(figsize=(3 * _SIDE, len(rows) * _SIDE + 0.5), layout="constrained")
    figure.suptitle(f"cross-attention, mean of the heads: {name}", fontsize=10, parse_math=False)
    for i, block in enumerate(rows):
        for j, token in enumerate(TOKENS):
            weight = np.zeros(len(seen.points))
            np.maximum.at(weight, seen.groups, mean[block, j][:, None])
            axes = _axes(figure, len(rows), 3, 3 * i + j + 1, f"block {block + 1}, {token}")
            _draw(axes, seen.points, c=weight, cmap="cividis", s=5)
    return figure
