"""One HTML file that needs nothing else: a template with its data, scripts and style in it."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from recon_fast.errors import InputError
from recon_fast.files import whole_file

_ASSETS = Path(__file__).parent / "assets"
_TEMPLATES = Environment(
    loader=FileSystemLoader(_ASSETS),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_STEPS = {"i2": 32767, "u2": 65535, "u1": 255}


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
    if values.dtype.kind == "f" and dtype in _STEPS:
        largest = float(np.abs(values).max(initial=0)) or 1.0
        scale = largest / _STEPS[dtype]
        values = np.rint(values / scale)
    out = values.astype(f"<{dtype}")
    if values.dtype.kind in "iu" and not np.array_equal(out, values):
        raise ValueError(f"values must fit {dtype}, got {values.min()} to {values.max()}")
    content = base64.b64encode(out.tobytes()).decode()
    return {"dtype": dtype, "shape": list(values.shape), "scale": scale, "bytes": content}


def data_element(data: Any) -> str:
    """Data as an inert JSON element, null for what is not finite; no text in it can end the element."""
    text = msgspec.json.encode(data, enc_hook=lambda number: number.item()).decode()
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="page-data">{text}</script>'


def page(
    template: str,
    title: str,
    *,
    data: Any = None,
    scripts: Sequence[str] = (),
    plotly: bool = False,
    **values: Any,
) -> str:
    """The whole document.

    Args:
        template: name of a file in `assets`; all texts that come into it are escaped.
        title: plain text.
        data: JSON-able, found by the scripts as `pageData`, and by the template; None embeds none.
        scripts: names of files in `assets`, run in order after base.js.
        plotly: embed plotly.js, 4.8 MB.
        values: what else the template shows.
    """

    def asset(name: str) -> Markup:
        return Markup((_ASSETS / name).read_text(encoding="utf-8"))

    library = Markup("")
    if plotly:
        from plotly.offline import get_plotlyjs

        library = Markup(get_plotlyjs())
    return _TEMPLATES.get_template(template).render(
        title=title,
        data=data,
        element="" if data is None else Markup(data_element(data)),
        scripts=["base.js", *scripts] if scripts else [],
        plotly=library,
        asset=asset,
        **values,
    )


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
