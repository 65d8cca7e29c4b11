"""Results as one HTML page with inline SVG: for each device its ratios and their history, bars of each input,
lines of time against size.
"""

import math
from html import escape

from benchmarks.history import by_device, commit, overview, table
from benchmarks.report import OURS, Results, Row, duration, exponents, groups, headline, ratios

# Okabe and Ito's colours, which the colour-blind tell apart; where they repeat, dashes differ.
_COLORS = ("#009e73", "#8d99ae", "#d55e00", "#56b4e9", "#cc79a7", "#e69f00", "#0072b2")
_DASHES = ("none", "6 4", "2 3", "9 3 2 3")
_STYLE = """
:root { --back: #fff; --ink: #1b1b1b; --soft: #555; --line: #ddd; --won: #00734f; --lost: #b34700;
  color-scheme: light dark }
@media (prefers-color-scheme: dark) {
  :root { --back: #14161a; --ink: #e9ebef; --soft: #a9b0bd; --line: #3a3f49; --won: #4fd3a5;
    --lost: #ff9a5c } }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--back); color: var(--ink) }
h2, h3, p { overflow-wrap: anywhere } h3 { margin: 1.6rem 0 .2rem; font-size: 1rem }
.key { color: var(--soft) } .wide { overflow-x: auto } .wide svg { max-width: none }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
table { border-collapse: collapse } td:first-child { min-width: 11rem }
td, th { text-align: left; padding: .15rem .9rem .15rem 0; min-width: 3rem; vertical-align: top;
  border-bottom: 1px solid var(--line) }
table i { display: inline-block; height: .7rem; background: var(--won) } i.lost { background: var(--lost) }
.won { color: var(--won) } .lost { color: var(--lost) } summary { font-weight: 600; margin: 1rem 0 }
"""
_BAR, _LEFT, _WIDTH = 18, 230, 520  # pixels


def _scale(values: list[float]) -> tuple[float, float]:
    """Logarithms of the powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _open(height: int) -> str:
    """The start of an SVG that scrolls sideways where it is too wide."""
    svg = f'<svg viewBox="0 0 920 {height}" width="920" height="{height}" role="img">'
    return f'<div class="wide" tabindex="0">{svg}'


def _bars(rows: list[Row]) -> str:
    """Medians on a logarithmic axis, quartiles as a line, the ratio to ours behind the time."""
    low, high = _scale([row["median"] for row in rows])
    low -= 0.3  # the shortest bar is seen too
    height = _BAR * len(rows) + 4

    def x(seconds: float) -> float:
        return _LEFT + _WIDTH * max(0.0, min(1.0, (math.log10(seconds) - low) / (high - low)))

    parts = [_open(height)]
    for i, (row, ratio) in enumerate(zip(rows, ratios(rows), strict=True)):
        y, end = _BAR * i + 2, x(row["median"])
        color = _COLORS[0] if row["provider"] == OURS else _COLORS[1]
        label = duration(row["median"]) + ("" if ratio is None else f", ratio {ratio:.2f}")
        parts += [
            _text(_LEFT - 8, y + 12, str(row["provider"]), "end"),
            f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR - 5}" fill="{color}"/>',
            f'<path d="M{x(row["low"]):.1f} {y + 6.5}H{x(row["high"]):.1f}" stroke="var(--ink)"/>',
            _text(max(end, x(row["high"])) + 6, y + 12, label),
        ]
    return "".join(parts) + "</svg></div>"


def _lines(name: str, members: dict[str, list[Row]], slopes: dict[str, float]) -> str:
    """Seconds against size, both logarithmic, a line for each provider."""
    rows = [row for line in members.values() for row in line]
    left, right = _scale([row["size"] for row in rows])
    low, high = _scale([row["median"] for row in rows])

    def at(row: Row) -> tuple[float, float]:
        across = (math.log10(row["size"]) - left) / (right - left)
        up = (math.log10(row["median"]) - low) / (high - low)
        return 70 + 480 * across, 300 - 280 * up

    parts = [_open(330)]
    for power in range(int(left), int(right) + 1):
        across = 70 + 480 * (power - left) / (right - left)
        parts += [
            f'<path d="M{across:.1f} 20V300" stroke="var(--line)"/>',
            _text(across, 318, f"1e{power}", "middle"),
        ]
    for power in range(int(low), int(high) + 1):
        y = 300 - 280 * (power - low) / (high - low)
        parts += [
            f'<path d="M70 {y:.1f}H550" stroke="var(--line)"/>',
            _text(62, y + 4, f"1e{power} s", "end"),
        ]
    for i, (provider, line) in enumerate(members.items()):
        number = i + (i > 0)  # grey is for bars
        color = _COLORS[number % len(_COLORS)]
        points = [at(row) for row in sorted(line, key=lambda row: row["size"])]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = f'stroke="{color}" stroke-dasharray="{_DASHES[number // len(_COLORS) % len(_DASHES)]}"'
        parts.append(f'<polyline points="{path}" fill="none" stroke-width="2" {stroke}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        parts.append(f'<rect x="570" y="{20 + 20 * i}" width="12" height="12" fill="{color}"/>')
        slope = f", exponent {slopes[provider]:.2f}" if provider in slopes else ""
        parts.append(_text(588, 31 + 20 * i, provider + slope))
    return f"<h3>{escape(name)}</h3>" + "".join(parts) + "</svg></div>"


def _scaling(rows: list[Row]) -> list[str]:
    fits = {(name, provider): slope for name, provider, slope, *_ in exponents(rows)}
    series: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.get("series"):
            series.setdefault(row["series"], {}).setdefault(row["provider"], []).append(row)
    return [
        _lines(
            name, members, {provider: fits[key] for provider in members if (key := (name, provider)) in fits}
        )
        for name, members in series.items()
    ]


def page(every: list[Results]) -> str:
    """The whole document."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>recon-fast benchmarks</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style><h1>Benchmarks</h1>",
        "<p class='key'>Medians, logarithmic axis; the thin line spans the quartiles. A ratio is a median",
        " over ours: above 1 ours is faster.</p>",
    ]
    for name, files in by_device(every).items():
        parts += [f"<h2>{escape(name)}</h2>", overview(files), table(files)]
        for results in reversed(files):  # the newest is open
            is_open = " open" if results is files[-1] else ""
            parts.append(f"<details{is_open}><summary>{escape(commit(results))}</summary>")
            parts.append(f"<p class='key'>{'<br>'.join(map(escape, headline(results.head)))}</p>")
            for key, rows in groups([row for row in results.rows if not row.get("series")]):
                parts += [f"<h3>{escape(', '.join(filter(None, key)))}</h3>", _bars(rows)]
            parts += [*_scaling(results.rows), "</details>"]
    return "\n".join(parts)
