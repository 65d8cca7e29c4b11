"""One HTML file that needs nothing else: skeleton, escaping, embedded data, scripts and style."""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.errors import InputError
from recon_fast.files import whole_file

_ASSETS = Path(__file__).parent / "assets"
_QUANTA = {"i2": 32767, "u2": 65535, "u1": 255}


def asset(name: str) -> str:
    """Text of a file in `assets`."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def packed(values: NDArray, dtype: str) -> dict[str, Any]:
    """An array for `unpack` of base.js: little-endian, in base64.

    Args:
        values: numbers of any shape. For an integer dtype, floats are divided by their largest magnitude and
            rounded to its steps ("i2" signed, "u1" and "u2" not); integers are kept.
        dtype: "f4", "i2", "u2" or "u1".

    Raises:
        ValueError: integers, or negative ones, that the dtype cannot hold.
    """
    values = np.asarray(values)
    scale = 1.0
    if values.dtype.kind == "f" and dtype in _QUANTA:
        largest = float(np.abs(values).max(initial=0)) or 1.0
        scale = largest / _QUANTA[dtype]
        values = np.rint(values / scale)
    out = values.astype(f"<{dtype}")
    if values.dtype.kind in "iu" and not np.array_equal(out, values):
        raise ValueError(f"values must fit {dtype}, got {values.min()} to {values.max()}")
    content = base64.b64encode(np.ascontiguousarray(out).tobytes()).decode()
    return {"dtype": dtype, "shape": list(values.shape), "scale": scale, "bytes": content}


def clean(value: Any) -> Any:
    """JSON-able data with None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def data_element(data: Any, name: str = "page-data") -> str:
    """Data as an inert JSON element; no text in it can end the element."""
    text = json.dumps(clean(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{name}">{text}</script>'


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """A table that scrolls sideways on a narrow screen; escapes texts, puts `numbers` to the right."""

    def cell(tag: str, column: int, value: Any) -> str:
        side = ' class="number"' if column in numbers else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{side}>{escape('' if value is None else str(value))}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(cell("td", i, value) for i, value in enumerate(row)) + "</tr>" for row in rows
    )
    return scrolling(head, body, "table")


def scrolling(head: str, body: str, label: str) -> str:
    """A table of HTML cells `head` and rows `body` that scrolls sideways on a narrow screen."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def page(
    title: str, body: str, *, data: Any = None, scripts: Sequence[str] = (), plotly: bool = False
) -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML; whoever made it has escaped its texts.
        data: JSON-able, found by the scripts as `pageData`; None embeds none.
        scripts: names of files in `assets`, run in order after base.js.
        plotly: embed plotly.js, 4.8 MB.
    """
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title><style>{asset('base.css')}</style></head><body>",
        f"<main><h1>{escape(title)}</h1>",
        "<noscript><p>The pictures on this page are drawn by scripts, which are off.</p></noscript>",
        f"{body}</main>",
    ]
    if data is not None:
        parts.append(data_element(data))
    if plotly:
        from plotly.offline import get_plotlyjs

        parts.append(f"<script>{get_plotlyjs()}</script>")
    parts += [f"<script>{asset(name)}</script>" for name in (["base.js", *scripts] if scripts else [])]
    return "\n".join([*parts, "</body></html>\n"])


def write_page(path: str | Path, text: str) -> Path:
    """Write a page aside and rename it, so that a browser never reads half of one.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
