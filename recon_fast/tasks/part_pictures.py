"""A sheet of segmented clouds: truth beside prediction, for some test shapes of each category."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.labelled import PartedShapes
from recon_fast.tasks.part_scores import PartScores

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_NO_PART = "#BBBBBB"
_YAW, _PITCH = 0.6, 0.35  # the camera's, in radians


def project(points: NDArray[np.float32], up: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points [N, 3] seen from the front, a little from the side and from above: places [N, 2], depth [N].

    Larger depths are nearer. `up` "unknown" counts as y.
    """
    i = "xyz".index(up if up in ("x", "y", "z") else "y")
    height, right, front = points[:, i], points[:, (i + 2) % 3], points[:, (i + 1) % 3]
    side = np.cos(_YAW) * right - np.sin(_YAW) * front
    near = np.sin(_YAW) * right + np.cos(_YAW) * front
    place = np.stack([side, np.cos(_PITCH) * height - np.sin(_PITCH) * near], 1)
    return place, np.sin(_PITCH) * height + np.cos(_PITCH) * near


def draw_sheet(
    file: Path,
    shapes: PartedShapes,
    rows: Tensor,
    found: Tensor,
    scores: PartScores,
    class_names: Sequence[str],
    class_parts: Sequence[Sequence[int]],
    up: str,
) -> None:
    """Draw clouds as a PNG: a line for each category, truth and what was found side by side.

    Args:
        file: the picture.
        shapes: S shapes that were tested.
        rows: which of them [R] int64.
        found: their parts [R, N].
        scores: of all S.
        class_names: of the C categories.
        class_parts: parts of each category; the i-th of a category has the i-th colour.
        up: which axis is up in the clouds.
    """
    from matplotlib.figure import Figure

    label = scores.category[rows.numpy()]
    lines = [np.flatnonzero(label == c) for c in np.unique(label)]
    columns = 2 * max(len(line) for line in lines)
    figure = Figure(figsize=(1.6 * columns, 1.8 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, i in ((line, i) for line, of_line in enumerate(lines) for i in of_line.tolist()):
        row, column = int(rows[i]), 2 * int((label[:i] == label[i]).sum())
        points, truth = (x[0].cpu().numpy() for x in shapes.tested(rows[i : i + 1]))
        place, depth = project(points, up)
        order = np.argsort(depth)
        color = {part: _COLORS[k % len(_COLORS)] for k, part in enumerate(class_parts[label[i]])}
        said = f"found, IoU {100 * scores.iou[row]:.0f} %"
        for shift, parts, title in ((0, truth, class_names[label[i]]), (1, found[i].numpy(), said)):
            axis = axes[line, column + shift]
            tones = [color.get(int(part), _NO_PART) for part in parts[order]]
            axis.scatter(*place[order].T, c=tones, s=1.5, linewidths=0)
            axis.set_title(title, fontsize=8)
            axis.set_aspect("equal")
    figure.savefig(file, dpi=130)
