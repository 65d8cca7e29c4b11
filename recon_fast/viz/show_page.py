"""`recon-fast show`: what a model rebuilds of clouds and what its queries look at, as a page and as PNGs."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from recon_fast.config import ShowConfig
from recon_fast.console import ProgressBars, say
from recon_fast.errors import InputError
from recon_fast.tasks.embed import PointEncoder, load
from recon_fast.viz.attention import TOKENS
from recon_fast.viz.captions import MOST, nearest_captions
from recon_fast.viz.clouds import Picked, pick_clouds, spread
from recon_fast.viz.html import packed, page, write_page
from recon_fast.viz.reconstruction import Seen, look, sampled

_CONTROLS = """
<div class="controls">
<label>cloud <select id="cloud"></select></label>
<button id="previous" type="button">previous</button><button id="next" type="button">next</button>
<span role="group" aria-label="camera of all views">
<button type="button" data-turn="left" aria-label="turn left">&#9664;</button>
<button type="button" data-turn="right" aria-label="turn right">&#9654;</button>
<button type="button" data-turn="up" aria-label="tilt up">&#9650;</button>
<button type="button" data-turn="down" aria-label="tilt down">&#9660;</button>
<button type="button" data-turn="in" aria-label="nearer">+</button>
<button type="button" data-turn="out" aria-label="farther">&#8722;</button>
<button type="button" data-turn="reset">reset</button>
</span></div>
<p id="caption" aria-live="polite"></p>
"""
_REBUILT = """
<section id="rebuilding"><h2>Reconstruction</h2>
<p class="soft">Drag to turn, or take the buttons or the keys; all views turn together. Colour of the last
two views: squared Chamfer distance of a rebuilt group to the true one,
<span id="chamfer-low"></span>
<span class="ramp" role="img" aria-label="from blue to yellow"></span> <span id="chamfer-high"></span>.
<span id="chamfer-mean"></span></p>
<div class="grid pairs" id="views"></div></section>
"""
_ATTENTION = """
<section id="attention"><h2>What the global queries look at</h2>
<p class="soft">Weight of the cross-attention on each group, nothing masked; a point has the highest weight of
its groups. Colour from 0 <span class="ramp" role="img" aria-label="from blue to yellow"></span> to the
highest weight of the view.</p>
<div class="controls"><label>block <input id="block" type="range" min="1" value="1" step="1">
<output id="block-value" for="block"></output></label>
<label>head <select id="head"></select></label></div>
<div class="grid" id="queries" style="--cell:300px;--tall:300px"></div></section>
"""


def show(checkpoint: Path, names: list[str], config: ShowConfig, console: Console) -> Path:
    """Write the page, and PNGs if asked for; returns the page's path.

    Raises:
        InputError: the checkpoint, a cloud or the captions cannot be used, or nothing can be written.
    """
    encoder = load(checkpoint, config.device, "fp32")
    picked, captions = pick_clouds(
        names, config.count, config.kind, config.up, lambda text: say(console, text, style="yellow")
    )
    if config.captions is not None:
        captions = read_captions(Path(config.captions))
    seen: list[Seen] = []
    with ProgressBars(console) as bars:
        for i, cloud in enumerate(picked):
            points = sampled(cloud.points, encoder.model, cloud.name)
            seen.append(look(encoder.model, points.to(encoder.device), config.seed))
            bars("looking at clouds", i + 1, len(picked))
    notes = _notes(encoder)
    texts, note = _captions_of(encoder, seen, captions, console)
    notes += [note] if note else []
    for note in notes:
        say(console, note, style="yellow")
    if config.png is not None:
        from recon_fast.viz.pictures import write_pictures

        for path in write_pictures(picked, seen, Path(config.png)):
            say(console, f"wrote {path}")
    return write_page(config.out, show_page(str(checkpoint), picked, seen, texts, notes))


def read_captions(path: Path) -> list[str]:
    """Distinct captions of a text file, one a line. Raises InputError if there are none."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"captions must be a text file in UTF-8, one a line, got {path}: {error}") from error
    captions = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not captions:
        raise InputError(f"captions must be a text file with one a line, got {path}, which is empty")
    return captions


def _notes(encoder: PointEncoder) -> list[str]:
    """What a reader must know of this checkpoint."""
    notes = []
    report = encoder.report
    if report is not None and any(key.startswith("MAE_decoder.") for key in report.missing):
        notes.append("The checkpoint has no decoder: what is rebuilt comes from random weights.")
    if encoder.model.task["kind"] != "pretrain":
        notes.append(f"The checkpoint is a {encoder.model.task['kind']}, which rebuilds nothing.")
    if (encoder.teacher or {}).get("weights") == "random":
        notes.append("The teachers' weights were random: the text token knows words, not what they mean.")
    return notes


def _captions_of(
    encoder: PointEncoder, seen: list[Seen], captions: list[str], console: Console
) -> tuple[list[list[tuple[str, float]]] | None, str | None]:
    """The captions nearest to each cloud's text token, None for none, and what to know of that."""
    tokens = [one.text for one in seen if one.text is not None]
    if not captions or not tokens:
        return None, None
    captions = [captions[i] for i in spread(np.arange(len(captions)), MOST)]
    try:
        texts, centred = nearest_captions(np.stack(tokens), captions, encoder, console)
    except InputError as error:
        return None, f"No nearest captions: {error}"
    note = "Nearest captions: the mean of all clouds was taken off each, as the zero-shot probe does."
    return texts, note if centred else None


def show_page(
    checkpoint: str,
    picked: list[Picked],
    seen: list[Seen],
    texts: list[list[tuple[str, float]]] | None,
    notes: list[str],
) -> str:
    """The HTML of clouds and what was seen of them; coordinates are rounded to 1/32767 of their range."""
    clouds = [
        _cloud(cloud, one, None if texts is None else texts[i])
        for i, (cloud, one) in enumerate(zip(picked, seen, strict=True))
    ]
    parts = [f'<p class="soft">{escape(checkpoint)}</p>']
    parts += [f'<p class="note">{escape(note)}</p>' for note in notes]
    parts.append(_CONTROLS)
    if seen[0].rebuilt is not None:
        parts.append(_REBUILT)
    if seen[0].attention is not None:
        parts.append(_ATTENTION)
    if texts is not None:
        parts.append('<section><h2>Nearest captions of the text token</h2><ol id="nearest"></ol></section>')
    data = {"clouds": clouds, "tokens": list(TOKENS)}
    return page("What the model sees", "".join(parts), data=data, scripts=["show.js"], plotly=True)


def _cloud(cloud: Picked, seen: Seen, texts: list[tuple[str, float]] | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": cloud.name,
        "caption": cloud.caption,
        "label": cloud.label,
        "size": len(cloud.points),
        "points": packed(seen.points, "i2"),
        "groups": packed(seen.groups, "u2"),
        "nearest": texts,
    }
    if seen.rebuilt is not None and seen.chamfer is not None and seen.masked is not None:
        data["masked"] = packed(seen.masked, "u2")
        data["rebuilt"] = packed(seen.rebuilt, "i2")
        data["chamfer"] = packed(seen.chamfer, "f4")
    if seen.attention is not None:
        peak = seen.attention.max(-1)  # a view's colours end there
        data["attention"] = packed(seen.attention / peak[..., None], "u1")
        data["peak"] = packed(peak, "f4")
    return data
