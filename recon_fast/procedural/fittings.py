"""What furnishes, lights and decorates a room. One unit is about a metre."""

import math

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, curve, family, spaced
from recon_fast.procedural.furniture import legs
from recon_fast.procedural.vessels import arch, hollow


@family("dresser")
def dresser(b: Parts, d: Dice, words: Words) -> None:
    columns, rows = d.whole(1, 3), d.whole(1, 5)
    w, h, depth = columns * d.real(0.4, 0.55), rows * d.real(0.15, 0.24) + 0.1, d.real(0.35, 0.5)
    words.measure(h / w, 0.6, "low", 1.2, "tall")
    words.features.append(f"{rows} by {columns} drawers")
    foot = d.real(0.08, 0.3) if words.feature(d.chance(0.6), "feet", "a plinth") else 0.0
    if foot:
        legs(b, d, w, depth, foot, Words())
    b.box((0, foot, 0), (w, h, depth))
    b.box((0, foot + h, 0), (w * 1.05, 0.03, depth * 1.06))
    pulled, knob = d.whole(0, 2 * rows * columns), d.pick(["knobs", "bars", "rings"])
    words.features.append(knob)
    for i in range(rows * columns):
        x, y = spaced(columns, w)[i % columns], foot + (i // columns + 0.08) / rows * h
        out = depth * 0.5 if i == pulled else 0.02
        z = depth / 2 + out
        b.box((x, y, z - out / 2), (w / columns * 0.92, h / rows * 0.84, out))
        y += h / rows * 0.42
        if knob == "knobs":
            b.ball((x, y, z + 0.02), 0.022)
        elif knob == "bars":
            b.rod((x - 0.08, y, z + 0.03), (x + 0.08, y, z + 0.03), 0.012)
        else:
            b.ring((x, y, z + 0.01), 0.035, 0.01, (0, 0, 1))
    if words.feature(d.chance(0.25), "a mirror on top"):
        b.ball((0, foot + h + w * 0.4, -depth * 0.4), (w * 0.35, w * 0.42, 0.02))


@family("bookcase")
def bookcase(b: Parts, d: Dice, words: Words) -> None:
    w, depth, rows, step = d.real(0.6, 1.2), d.real(0.2, 0.35), d.whole(2, 4), d.real(0.3, 0.42)
    words.measure(w, 0.75, "narrow", 1.05, "wide")
    words.count(rows, "row of books" if rows == 1 else "book row")
    fill = d.real(0.4, 1.0)
    words.measure(fill, 0.6, "half-empty", 0.85, "full")
    for sx in (-1, 1):
        b.box((sx * w / 2, 0, 0), (0.03, rows * step + 0.05, depth))
    b.box((0, 0, -depth / 2), (w, rows * step, 0.02))
    b.box((0, rows * step, 0), (w * 1.04, 0.05, depth * 1.05))
    for row in range(rows):
        y, x = row * step, -w * 0.48
        b.box((0, y, 0), (w, 0.03, depth))
        while x < w * (fill - 0.55):
            t, tall = d.real(0.03, 0.08), step * d.real(0.5, 0.85)
            lean = tall * 0.3 if d.chance(0.1) else 0.0
            b.box((x + t / 2, y + 0.03, 0.02), (t * 0.9, tall, depth * d.real(0.6, 0.85)), shift=(lean, 0))
            x += t + lean


@family("pillow")
def pillow(b: Parts, d: Dice, words: Words) -> None:
    w, depth, t = d.real(0.4, 0.8), d.real(0.35, 0.6), d.real(0.06, 0.16)
    words.measure(t, 0.09, "flat", 0.13, "plump")
    style = d.pick(["square", "round", "bolster", "stacked"])
    words.adjectives.append(style)
    n, y = 4, 0.0
    if style == "round":
        b.ball((0, t, 0), (w / 2, t, w / 2))
        b.ring((0, t, 0), w / 2, t * 0.2)
        b.ball((0, t * 1.9, 0), 0.03)
    elif style == "bolster":
        b.rod((-w / 2, t, 0), (w / 2, t, 0), t)
        for sx in (-1, 1):
            b.ball((sx * w / 2, t, 0), (t * 0.5, t, t))
    else:
        for _ in range(words.count(d.whole(2, 3), "layer") if style == "stacked" else 1):
            turn, pinch = d.real(-0.3, 0.3), d.real(0.05, 0.2)
            for side in (-1, 1):
                rows: list[list[Point]] = []
                for i in range(n + 1):
                    u = 2 * i / n - 1
                    line = [
                        (u * (1 - pinch * (1 - v * v)), v * (1 - pinch * (1 - u * u)))
                        for v in (2 * k / n - 1 for k in range(n + 1))
                    ]
                    bulge = [
                        side * t * ((1 - u * u) * (1 - (2 * k / n - 1) ** 2)) ** 0.5 for k in range(n + 1)
                    ]
                    rows.append(
                        [
                            (w / 2 * (p - turn * q), y + t + h, depth / 2 * (q + turn * p))
                            for (p, q), h in zip(line, bulge, strict=True)
                        ]
                    )
                b.sheet(rows)
            y += t * 1.7
    if words.feature(style != "bolster" and d.chance(0.4), "tassels"):
        for sx, sz in CORNERS:
            b.rod(
                (sx * w * 0.48, t, sz * depth * 0.48), (sx * w * 0.56, t * 0.4, sz * depth * 0.56), 0.01, 0.03
            )


@family("curtain")
def curtain(b: Parts, d: Dice, words: Words) -> None:
    w, h, folds, deep = d.real(0.6, 1.4), d.real(1.0, 2.2), d.real(2, 6), d.real(0.03, 0.1)
    words.measure(h / w, 1.2, "short", 2.2, "long")
    style = d.pick(["closed", "parted", "tied", "rolled"])
    words.adjectives.append(style)
    b.rod((-w * 0.6, h, 0), (w * 0.6, h, 0), 0.025)
    for sx in (-1, 1):
        b.ball((sx * w * 0.62, h, 0), 0.05)
    if style == "rolled":
        low = h * d.real(0.2, 0.7)
        b.box((0, low, 0), (w, h - low, 0.015))
        b.rod((-w / 2, low, 0), (w / 2, low, 0), 0.03)
        return
    n, left, right = 14, -w / 2, w / 2
    for side in (0,) if style == "closed" else (-1, 1):
        rows: list[list[Point]] = []
        for t in (0.0, 0.25, 0.5, 0.62, 0.8, 1.0):
            pinch = 1 - 0.75 * math.exp(-30 * (t - 0.6) ** 2) if style == "tied" else 1.0
            row: list[Point] = []
            for i in range(n + 1):
                s = i / n
                x = left + s * (right - left) if side == 0 else side * w / 2 * (1 - s * 0.75 * pinch)
                z = deep * (0.5 + t) * math.sin(folds * 2 * math.pi * s)
                row.append((x, h * (1 - t), z))
            rows.append(row)
        b.sheet(rows)
    if words.feature(d.chance(0.35), "a valance"):
        b.box((0, h - 0.18, 0.08), (w * 1.2, 0.22, 0.03))


@family("ceiling fan")
def ceiling_fan(b: Parts, d: Dice, words: Words) -> None:
    r, drop, blades = d.real(0.5, 0.9), d.real(0.1, 0.5), words.count(d.whole(3, 6), "blade")
    words.measure(drop, 0.2, "flush", 0.38, "hanging")
    b.cylinder((0, drop, 0), 0.06, 0.07, 0.12)
    b.cylinder((0, 0, 0), drop, 0.025)
    b.revolve((0, -0.15, 0), [(0.05, 0), (0.13, 0.03), (0.14, 0.12), (0.06, 0.17)])
    w, tip = d.real(0.08, 0.16), d.real(0.08, 0.22)
    for c, s in around(blades, d.real(0, 1)):
        b.rod((c * 0.1, -0.08, s * 0.1), (c * 0.25, -0.1, s * 0.25), 0.02)
        size = (w * 0.15, r - 0.2, w)
        b.box((c * 0.2, -0.1, s * 0.2), size, (w * 0.1, tip), axis=(c, d.real(-0.02, 0.02), s), level=True)
    lights = d.pick(["", "a globe light", "three lights"])
    if words.feature(lights == "a globe light", lights):
        b.ball((0, -0.22, 0), d.real(0.08, 0.15), high=0.5)
    elif words.feature(lights, lights):
        for c, s in around(3):
            b.rod((0, -0.14, 0), (c * 0.12, -0.2, s * 0.12), 0.015)
            b.rod((c * 0.12, -0.2, s * 0.12), (c * 0.2, -0.3, s * 0.2), 0.03, 0.07, caps=False)


@family("speaker")
def speaker(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["tower", "bookshelf", "radio", "horn", "gramophone"])
    words.adjectives.append(style)
    w, depth = d.real(0.25, 0.45), d.real(0.2, 0.4)
    h = w * {"tower": d.real(2.2, 3.5), "radio": d.real(0.45, 0.7)}.get(style, d.real(1.2, 1.6))
    words.measure(depth, 0.26, "shallow", 0.34, "deep")
    if style in ("horn", "gramophone"):
        bell, y = d.real(0.2, 0.4), w * 0.4
        b.box((0, 0, 0), (w, y, w), (w * 0.9, w * 0.9))
        end = (0.3, y + 0.45, 0.0) if style == "gramophone" else (0.25, y + 0.2, 0.0)
        b.path([(-0.1, y, 0), (-0.12, y + 0.2, 0), end], 0.02, bell * 0.3)
        b.rod(end, (end[0] + 0.2, end[1] + 0.12, 0), bell * 0.3, bell, caps=False)
        if style == "gramophone":
            b.cylinder((0.05, y, 0), 0.02, w * 0.42)
            b.rod((0, y * 0.5, w * 0.4), (0, y * 0.5, w * 0.8), 0.015)
        return
    wide = w * (2.2 if style == "radio" else 1.0)
    b.box((0, 0, 0), (wide, h, depth), (wide * d.real(0.85, 1), depth * d.real(0.7, 1)))
    cones = 2 if style == "radio" else words.count(d.whole(1, 4) if style == "tower" else 2, "cone")
    for i in range(cones):
        r = min(w, h / cones) * 0.4 * (1 if style == "radio" else 1 - 0.18 * i)
        at = (wide * 0.3 * (2 * i - 1), h * 0.45) if style == "radio" else (0.0, (i + 0.5) / cones * h)
        b.ring((*at, depth * 0.47), r, 0.018, (0, 0, 1))
        b.ball((*at, depth * 0.46), (r * 0.4, r * 0.4, 0.03))
    if style == "radio":
        if words.feature(d.chance(0.7), "a carrying handle"):
            arch(b, (-wide * 0.35, h, 0), (wide * 0.35, h, 0), h * 0.25, 0.015)
        end = (wide * d.real(0.4, 0.8), h * d.real(1.6, 2.4), -depth * 0.3)
        b.rod((wide * 0.4, h, -depth * 0.3), end, 0.008)
        b.box((0, h * 0.6, depth * 0.47), (wide * 0.25, h * 0.2, 0.02))
    elif words.feature(d.chance(0.4), "spikes"):
        for sx, sz in CORNERS:
            b.rod(
                (sx * w * 0.4, 0, sz * depth * 0.4), (sx * w * 0.45, -0.08, sz * depth * 0.45), 0.025, 0.005
            )


@family("clock")
def clock(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["wall", "alarm", "grandfather", "mantel", "pocket"])
    words.adjectives.append(style)
    r, t = d.real(0.12, 0.25), d.real(0.03, 0.09)
    words.measure(t, 0.045, "thin", 0.075, "thick")
    y = r * 5 if style == "grandfather" else r * 1.2
    if style == "grandfather":
        b.box((0, 0, 0), (r * 2.4, r * 1.3, r * 1.2))
        b.box((0, r * 1.3, 0), (r * 1.7, r * 2.6, r * 0.9))
        b.box((0, r * 3.9, 0), (r * 2.5, r * 2.2, r * 1.1))
        b.box((0, r * 6.1, 0), (r * 2.7, r * d.real(0.4, 0.9), r * 1.2), (0, r * 1.2))
        b.rod((0, r * 3.6, r * 0.5), (0, r * 2, r * 0.5), 0.01)
        b.ball((0, r * 2, r * 0.5), (r * 0.3, r * 0.3, 0.02))
        t = r * 0.55
    elif style == "mantel":
        b.box((0, 0, 0), (r * 3.4, r * 0.4, r * 1.2))
        b.box((0, 0.3 * r, 0), (r * 3, r * 1.5, r), (r * 1.8, r * 0.9))
        t = r * 0.5
    b.rod((0, y, -t), (0, y, t), r)
    b.ring((0, y, t), r, r * d.real(0.05, 0.12), (0, 0, 1))
    if style == "alarm":
        for sx in (-1, 1):
            b.ball((sx * r * 0.55, y + r * 0.95, 0), r * 0.4, low=-0.2)
            b.rod((sx * r * 0.4, y - r * 0.8, 0), (sx * r * 0.7, y - r * 1.3, 0), 0.02)
        arch(b, (-r * 0.4, y + r * 1.2, 0), (r * 0.4, y + r * 1.2, 0), r * 0.4, 0.012)
    elif style == "pocket":
        b.cylinder((0, y + r, 0), r * 0.2, r * 0.12)
        b.ring((0, y + r * 1.4, 0), r * 0.22, r * 0.05, (0, 0, 1))
    for long, width in ((0.55, 0.08), (0.8, 0.05)):
        a = d.real(0, 2 * math.pi)
        b.box((0, y, t + 0.01), (r * width, r * long, 0.012), axis=(math.cos(a), math.sin(a), 0.0))
    if words.feature(d.chance(0.6), "hour marks"):
        for c, s in around(d.pick([4, 12])):
            b.box((c * r * 0.72, y + s * r * 0.72, t), (r * 0.05, r * 0.18, 0.015), axis=(c, s, 0))


@family("picture frame")
def picture_frame(b: Parts, d: Dice, words: Words) -> None:
    w, h, rim, t = d.real(0.4, 1.0), d.real(0.4, 1.2), d.real(0.03, 0.13), d.real(0.02, 0.07)
    words.measure(w / h, 0.75, "upright", 1.3, "wide")
    words.measure(rim, 0.06, "thin-rimmed", 0.1, "broad-rimmed")
    style = d.pick(["square", "square", "oval", "easel", "standing", "window"])
    words.adjectives.append({"easel": "easel-mounted", "window": "cross-barred"}.get(style, style))
    y, lean = (0.5, 0.15) if style == "easel" else (0.0, 0.0)
    if style == "oval":
        b.ball((0, h / 2, 0), (w / 2, h / 2, t * 0.5))
        n = 20
        b.path([(w / 2 * c, h / 2 * (1 + s), 0) for c, s in [*around(n), (1.0, 0.0)]], rim * 0.6)
        return
    b.box((0, y, -lean * 0.4), (w, h, t * 0.4), shift=(0, -lean))
    for sx in (-1, 1):
        b.box((sx * w / 2, y, 0), (rim, h, t), shift=(0, -lean))
    for k in (0, 1):
        b.box((0, y + k * h - rim / 2, -lean * k), (w + rim, rim, t))
    if style == "window":
        b.box((0, 0, 0), (rim * 0.5, h, t * 0.8))
        b.box((0, h * d.real(0.4, 0.65), 0), (w, rim * 0.5, t * 0.8))
    elif style == "standing":
        b.rod((0, h * 0.7, 0), (0, 0, -h * 0.35), rim * 0.3)
    elif style == "easel":
        for sx in (-1, 1):
            b.rod((0, y + h + 0.3, -0.15), (sx * w * 0.55, 0, 0.1), 0.025)
        b.rod((0, y + h + 0.2, -0.15), (0, 0, -0.6), 0.025)
        b.box((0, y - 0.06, 0.05), (w * 1.1, 0.04, 0.1))
    if words.feature(d.chance(0.35) and style == "square", "a hanging cord"):
        for sx in (-1, 1):
            b.rod((0, h * 1.25, -t), (sx * w * 0.3, h, -t), 0.01)


@family("candle")
def candle(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["plain", "stick", "candelabrum", "group", "lantern", "torch"])
    words.features.append(
        {"plain": "no holder", "group": "others beside it", "torch": "a long shaft"}.get(style, f"a {style}")
    )
    r, h = d.real(0.06, 0.25), d.real(0.3, 1.0)
    words.measure(h / r, 3, "stout", 7, "slender")
    feet: list[tuple[Point, float]] = [((0.0, 0.0, 0.0), h)]
    if style == "group":
        feet = [((0.45 * c, 0.0, 0.45 * s), h * d.real(0.4, 1.3)) for c, s in around(d.whole(3, 5))]
    elif style == "stick":
        tall = d.real(0.2, 0.9)
        b.revolve((0, 0, 0), curve(12, [r * 2.5, r * 0.5, r * d.real(0.6, 1.5), r * 0.5, r * 1.5], tall))
        feet = [((0.0, tall, 0.0), h)]
    elif style == "candelabrum":
        arms, reach, tall = words.count(d.whole(2, 5), "arm"), d.real(0.35, 0.7), d.real(0.5, 1.0)
        r = min(r, 0.09)
        b.revolve((0, 0, 0), curve(8, [0.3, 0.06, 0.1, 0.05], tall))
        feet = [((0.0, tall, 0.0), h * 0.6)]
        for c, s in around(arms):
            tip = (c * reach, tall, s * reach)
            b.path([(0, tall * 0.6, 0), (tip[0] * 0.7, tall * 0.6, tip[2] * 0.7), tip], 0.04)
            b.cylinder(tip, 0.04, 0.06, 0.13)
            feet.append((tip, h * 0.6))
    elif style == "lantern":
        r = min(r, 0.12)
        b.cylinder((0, -0.08, 0), 0.08, 0.4)
        for c, s in around(d.whole(4, 6)):
            b.cylinder((c * 0.35, 0, s * 0.35), h * 1.4, 0.025)
        b.cylinder((0, h * 1.4, 0), 0.3, 0.42, 0.08)
        b.ring((0, h * 1.4 + 0.4, 0), 0.12, 0.025, (0, 0, 1))
    elif style == "torch":
        b.rod((0, -1.0, 0), (0, 0, 0), r * 0.5, r)
        b.cylinder((0, -0.1, 0), 0.2, r * 1.1, r * 1.4)
        h = 0.1
        feet = [((0.0, 0.0, 0.0), h)]
    for at, tall in feet:
        b.cylinder(at, tall, r, r * d.real(0.85, 1.0))
        b.cylinder((at[0], at[1] + tall, at[2]), 0.05, 0.012)
        b.ball((at[0], at[1] + tall + 0.1, at[2]), (r * 0.35, 0.1, r * 0.35))


@family("basket")
def basket(b: Parts, d: Dice, words: Words) -> None:
    r, h = d.real(0.4, 0.8), d.real(0.35, 0.9)
    words.measure(h / r, 0.8, "shallow", 1.3, "deep")
    low, hoops, staves = r * d.real(0.55, 1.0), words.count(d.whole(2, 5), "hoop"), d.whole(8, 14)
    b.cylinder((0, 0, 0), 0.03, low)
    for i in range(hoops):
        t = (i + 1) / hoops
        b.ring((0, h * t, 0), low + (r - low) * t, 0.035)
    for c, s in around(staves):
        b.rod((c * low, 0, s * low), (c * r, h, s * r), 0.025)
    if words.feature(d.chance(0.5), "a woven wall"):
        hollow(b, [(low, 0), (r, h)], 0.02)
    style = d.pick(["", "a high handle", "two ears", "a lid"])
    if words.feature(style == "a high handle", style):
        arch(b, (-r, h, 0), (r, h, 0), r * d.real(0.7, 1.5), 0.035)
    elif words.feature(style == "two ears", style):
        for sx in (-1, 1):
            b.ring((sx * r, h, 0), r * 0.25, 0.03, (0, 0, 1))
    elif words.feature(style == "a lid", style):
        b.cylinder((0, h, 0), r * 0.3, r * 1.05, r * 0.2)
        b.ball((0, h + r * 0.35, 0), 0.07)
    for _ in range(
        d.whole(3, 6) if words.feature(style != "a lid" and d.chance(0.35), "fruit inside") else 0
    ):
        b.ball((d.real(-0.45, 0.45) * r, h * 0.85, d.real(-0.45, 0.45) * r), r * d.real(0.2, 0.3))
