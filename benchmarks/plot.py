"""Results as one HTML page with inline SVG: bars of each input, lines of time against size."""

import math
from html import escape

from benchmarks.report import OURS, Results, Row, duration, exponents, groups, headline, ratios

_COLORS = ("#0b6e4f", "#8d99ae", "#bc6c25", "#457b9d", "#9d4edd", "#c1121f", "#606c38", "#e09f3e", "#2a9d8f")
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h3 { margin: 1.6rem 0 .2rem; font-size: 1rem } svg { max-width: 100%; height: auto } .key { color: #555 }
svg text { font: 12px system-ui, sans-serif }
"""
_BAR, _LEFT, _WIDTH = 18, 230, 520  # pixels


def _scale(values: list[float]) -> tuple[float, float]:
    """Logarithms of the powers of ten around the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _bars(rows: list[Row]) -> str:
    """Medians on a logarithmic axis, quartiles as a line, the ratio to ours behind the time."""
    low, high = _scale([row["median"] for row in rows])
    low -= 0.3  # the shortest bar is seen too
    height = _BAR * len(rows) + 4

    def x(seconds: float) -> float:
        return _LEFT + _WIDTH * max(0.0, min(1.0, (math.log10(seconds) - low) / (high - low)))

    parts = [f'<svg viewBox="0 0 920 {height}" width="920" height="{height}" role="img">']
    for i, (row, ratio) in enumerate(zip(rows, ratios(rows), strict=True)):
        y, end = _BAR * i + 2, x(row["median"])
        color = _COLORS[0] if row["provider"] == OURS else _COLORS[1]
        label = duration(row["median"]) + ("" if ratio is None else f", ratio {ratio:.2f}")
        parts += [
            _text(_LEFT - 8, y + 12, str(row["provider"]), "end"),
            f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR - 5}" fill="{color}"/>',
            f'<path d="M{x(row["low"]):.1f} {y + 6.5}H{x(row["high"]):.1f}" stroke="#1b1b1b"/>',
            _text(max(end, x(row["high"])) + 6, y + 12, label),
        ]
    return "".join(parts) + "</svg>"


def _lines(name: str, members: dict[str, list[Row]], slopes: dict[str, float]) -> str:
    """Seconds against size, both logarithmic, a line for each provider."""
    rows = [row for line in members.values() for row in line]
    left, right = _scale([row["size"] for row in rows])
    low, high = _scale([row["median"] for row in rows])

    def at(row: Row) -> tuple[float, float]:
        across = (math.log10(row["size"]) - left) / (right - left)
        up = (math.log10(row["median"]) - low) / (high - low)
        return 70 + 480 * across, 300 - 280 * up

    parts = ['<svg viewBox="0 0 920 330" width="920" height="330" role="img">']
    for power in range(int(left), int(right) + 1):
        across = 70 + 480 * (power - left) / (right - left)
        parts += [
            f'<path d="M{across:.1f} 20V300" stroke="#ddd"/>',
            _text(across, 318, f"1e{power}", "middle"),
        ]
    for power in range(int(low), int(high) + 1):
        y = 300 - 280 * (power - low) / (high - low)
        parts += [f'<path d="M70 {y:.1f}H550" stroke="#ddd"/>', _text(62, y + 4, f"1e{power} s", "end")]
    for i, (provider, line) in enumerate(members.items()):
        color = _COLORS[(i + (i > 0)) % len(_COLORS)]
        points = [at(row) for row in sorted(line, key=lambda row: row["size"])]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        parts.append(f'<rect x="570" y="{20 + 20 * i}" width="12" height="12" fill="{color}"/>')
        slope = f", exponent {slopes[provider]:.2f}" if provider in slopes else ""
        parts.append(_text(588, 31 + 20 * i, provider + slope))
    return f"<h3>{escape(name)}</h3>" + "".join(parts) + "</svg>"


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
    parts = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>recon-fast benchmarks</title>"]
    parts += [f"<style>{_STYLE}</style><h1>Benchmarks</h1>"]
    parts += [
        "<p class='key'>Medians, logarithmic axis; the thin line spans the quartiles. A ratio is a median"
    ]
    parts += [" over ours: above 1 ours is faster.</p>"]
    for results in every:
        device, *rest = headline(results.head)
        parts += [f"<h2>{escape(device)}</h2><p class='key'>{'<br>'.join(map(escape, rest))}</p>"]
        for key, rows in groups([row for row in results.rows if not row.get("series")]):
            parts += [f"<h3>{escape(', '.join(filter(None, key)))}</h3>", _bars(rows)]
        parts += _scaling(results.rows)
    return "\n".join(parts)
