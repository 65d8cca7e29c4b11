"""A sheet of thumbnails, as a picture or as a page."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.errors import InputError
from recon_fast.kernels import farthest_point_sample, knn
from recon_fast.procedural.surface import render

SIDE = 180  # pixels of a thumbnail
_POINTS = 4096  # drawn of a cloud
_NEAR = 12  # points that a normal is estimated from
_VIEW = (0.6, 0.35)  # azimuth and elevation of the camera
_COLOR = (170.0, 210.0, 250.0)
_COLUMNS, _TEXT, _GAP = 5, 18, 8


@dataclass
class Cell:
    """One thumbnail."""

    content: NDArray  # a cloud [N, 3], y up; or a picture uint8 [H, W, 3]
    text: str


def draw_cloud(cloud: NDArray) -> NDArray[np.uint8]:
    """A cloud [N, 3], y up, as a shaded picture [SIDE, SIDE, 3]: sparse ones are drawn with larger dots."""
    points = unit_sphere(torch.from_numpy(np.array(cloud, np.float64))[None]).float()
    if points.shape[1] > _POINTS:
        points = points[:, farthest_point_sample(points, _POINTS)[0]]
    near = knn(points, points, min(_NEAR, points.shape[1]))[1][0]
    patches = points[0][near]
    patches = patches - patches.mean(1, keepdim=True)
    normals = torch.linalg.eigh(patches.mT @ patches).eigenvectors[..., 0]  # of the least spread
    surface = torch.cat([points[0], normals, torch.zeros(points.shape[1], 1)], 1).numpy()
    # `render` draws dots of 2 x 2 pixels: in a picture of 3 sqrt(N) they close to a surface
    size = int(min(max(3 * points.shape[1] ** 0.5, SIDE / 4), SIDE))
    picture = render(surface[None], np.array([_VIEW]), np.array([_COLOR]), size)[0]
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _thumbnail(cell: Cell) -> Image.Image:
    if cell.content.ndim == 3:
        return ImageOps.pad(Image.fromarray(cell.content), (SIDE, SIDE), color="white")
    return Image.fromarray(draw_cloud(cell.content))


def check_sheet(path: Path) -> None:
    """Raise InputError unless `path` may become a sheet."""
    if path.suffix.lower() not in (".png", ".html"):
        raise InputError(f"sheet must be a file .png or .html, got {path}")
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"sheet must be a file in a folder that exists, got {path}")


def write_sheet(path: Path, title: str, cells: Sequence[Cell]) -> None:
    """Write thumbnails with their texts, five in a row, as .png or .html; an older sheet is replaced.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    check_sheet(path)
    try:
        if path.suffix.lower() == ".html":
            path.write_text(_page(title, cells), encoding="utf-8")
        else:
            _picture(title, cells).save(path)
    except OSError as error:
        raise InputError(f"sheet {path} cannot be written: {error.strerror or error}") from error


def _picture(title: str, cells: Sequence[Cell]) -> Image.Image:
    rows = -(-len(cells) // _COLUMNS)
    width, height = SIDE + _GAP, SIDE + _TEXT + _GAP
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _TEXT + 2 * _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.text((_GAP, _GAP), _fit(title, _COLUMNS * width), "black", font)
    for i, cell in enumerate(cells):
        x, y = _GAP + i % _COLUMNS * width, _TEXT + 2 * _GAP + i // _COLUMNS * height
        sheet.paste(_thumbnail(cell), (x, y))
        draw.text((x, y + SIDE), _fit(cell.text, SIDE), "black", font)
    return sheet


def _fit(text: str, width: int) -> str:
    """The text, cut in the middle where it is wider than so many pixels."""
    font = ImageFont.load_default(12)
    short, keep = text, len(text)
    while font.getlength(short) > width and keep > 2:
        keep -= 1
        short = f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
    return short


def _page(title: str, cells: Sequence[Cell]) -> str:
    figures = []
    for cell in cells:
        content = io.BytesIO()
        _thumbnail(cell).save(content, "PNG")
        source = base64.b64encode(content.getvalue()).decode()
        figures.append(
            f'<figure><img src="data:image/png;base64,{source}" width="{SIDE}" height="{SIDE}" '
            f'alt=""><figcaption>{html.escape(cell.text)}</figcaption></figure>'
        )
    style = (
        "body{font:14px sans-serif;margin:16px}main{display:flex;flex-wrap:wrap;gap:8px}"
        f"figure{{margin:0;width:{SIDE}px;overflow-wrap:anywhere}}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style><h1>{html.escape(title)}</h1><main>{''.join(figures)}</main></html>\n"
    )
