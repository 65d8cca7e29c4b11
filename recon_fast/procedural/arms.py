"""Things to fight with and to wear. One unit is about a decimetre, of cannons about half a metre."""

import math

from recon_fast.procedural.family import Dice, Parts, Point, Words, around, family, spaced
from recon_fast.procedural.vessels import hollow


@family("gun")
def gun(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["pistol", "revolver", "rifle", "machine", "blaster", "flintlock"])
    words.adjectives.append(f"{style}-like" if style != "machine" else "short automatic")
    barrel = d.real(1.4, 2.6) if style in ("rifle", "flintlock") else d.real(0.5, 1.1)
    h, t, r = d.real(0.18, 0.3), d.real(0.1, 0.2), d.real(0.04, 0.09)
    words.measure(barrel / h, 3, "stubby", 8, "long-barrelled")
    b.box((0, 0, 0), (0.9, h, t), (0.85, t * 0.8))
    b.rod((0.4, h * 0.65, 0), (0.4 + barrel, h * 0.65, 0), r, r * d.real(0.8, 1.2))
    b.box((-0.3, h * 0.3, 0), (0.28, d.real(0.45, 0.7), t * 0.9), (0.3, t * 0.9), axis=(-0.3, -1, 0))
    b.ring((-0.02, -0.05, 0), 0.13, 0.02, (0, 0, 1))
    if style == "revolver":
        b.rod((-0.05, h * 0.5, 0), (0.35, h * 0.5, 0), h * 0.65)
    elif style == "pistol":
        b.box((0.3, h * 0.4, 0), (barrel * 1.5, h * 0.6, t))
    elif style == "blaster":
        for x in spaced(words.count(d.whole(2, 4), "ring"), barrel * 0.8):
            b.ring((0.4 + barrel / 2 + x, h * 0.65, 0), r * 1.5, r * 0.6, (1, 0, 0))
        b.ball((0.4 + barrel, h * 0.65, 0), r * 1.8)
        b.ball((-0.35, h * 0.6, 0), (0.35, h * 0.7, t))
    else:
        drop = d.real(0.05, 0.3)
        b.box(
            (-0.4, h * 0.5, 0), (h * 0.7, d.real(0.7, 1.2), t * 0.8), (h * 1.5, t * 0.8), axis=(-1, -drop, 0)
        )
        b.box((0.4 + barrel * 0.3, 0, 0), (barrel * 0.6, h * 0.5, t * 0.9))
        if style == "flintlock":
            b.rod((0.4, -0.02, 0), (0.4 + barrel * 0.95, h * 0.3, 0), r * 0.5)
            b.path([(-0.1, h, t * 0.5), (-0.2, h * 1.6, t * 0.5), (-0.05, h * 1.8, t * 0.5)], 0.03)
    if words.feature(style in ("machine", "rifle") and d.chance(0.7), "a magazine"):
        b.box((0.25, 0.05, 0), (0.2, d.real(0.3, 0.7), t * 0.7), shift=(0.12, 0), axis=(0, -1, 0))
    if words.feature(d.chance(0.35), "a scope"):
        b.rod((-0.25, h * 1.5, 0), (0.35, h * 1.5, 0), 0.07, 0.09)
        b.cylinder((0.05, h * 0.9, 0), h * 0.6, 0.03)


@family("bow")
def bow(b: Parts, d: Dice, words: Words) -> None:
    h, deep, r = d.real(0.8, 1.4), d.real(0.25, 0.6), d.real(0.03, 0.06)
    words.measure(deep / h, 0.3, "straight", 0.48, "strongly bent")
    recurved, cross = words.feature(d.chance(0.5), "curled tips"), d.chance(0.35)
    pull = d.real(0.0, 0.7) if d.chance(0.5) else 0.0
    limb: list[Point] = []
    for i in range(-6, 7):
        s = i / 6
        x = deep * (1 - s * s) + (deep * 0.9 * max(0.0, abs(s) - 0.75) if recurved else 0.0)
        limb.append((x, 0.0, h * s) if cross else (x, h * s, 0.0))
    b.path(limb[6:], r, r * 0.4)
    b.path(limb[6::-1], r, r * 0.4)
    b.path([limb[0], (-pull, 0, 0), limb[-1]], 0.01)
    if words.feature(cross, "a stock"):
        words.adjectives.insert(0, "cross")
        b.box((deep * 0.1 - 0.4, -0.1, 0), (d.real(1.4, 2.2), 0.12, 0.14))
        b.box((-0.4, -0.05, 0), (0.12, 0.35, 0.1), axis=(-0.3, -1, 0))
        b.ring((deep + 0.15, 0, 0), 0.12, 0.02)
    else:
        b.box((deep, -h * 0.12, 0), (r * 2.6, h * 0.24, r * 2.6))
    if words.feature(pull or d.chance(0.3), "an arrow"):
        tip = (deep + d.real(0.1, 0.6), 0.03, 0.0)
        b.rod((-pull, 0.03, 0), tip, 0.015)
        b.rod(tip, (tip[0] + 0.15, 0.03, 0), 0.05, 0.0)
        for c, s in around(3):
            b.box((-pull, 0.03, 0), (0.2, 0.08, 0.01), (0.1, 0.01), axis=(0, c, s))


@family("shield")
def shield(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["round", "kite-shaped", "heater", "tower", "oval"])
    words.adjectives.append({"heater": "pointed"}.get(style, style))
    w, h, bulge = d.real(0.6, 0.9), d.real(0.9, 1.3), d.real(0.02, 0.3)
    words.measure(bulge, 0.1, "flat", 0.2, "domed")
    n = 8
    oval = [math.sqrt(max(0.0, 1 - (2 * i / n - 1) ** 2)) for i in range(n + 1)]
    widths = {
        "tower": [1.0] * (n + 1),
        "heater": [1, 1, 1, 0.98, 0.92, 0.8, 0.6, 0.33, 0],
        "kite-shaped": [0, 0.6, 0.85, 0.9, 0.8, 0.62, 0.43, 0.22, 0],
    }.get(style, oval)
    h = w if style == "round" else h
    rows: list[list[Point]] = []
    for i, k in enumerate(widths):
        y = h * (1 - 2 * i / n)
        line: list[Point] = []
        for j in range(-3, 4):
            s = j / 3
            across = 1 - (k * s) ** 2 - (0 if style == "tower" else 0.8 * (y / h) ** 2)
            line.append((k * w * s, y, bulge * 2 * across))
        rows.append(line)
    b.sheet(rows)
    b.path([row[0] for row in rows], 0.03)
    b.path([row[-1] for row in rows], 0.03)
    crest = d.pick(["a boss", "a cross", "a spike", "studs"])
    words.features.append(crest)
    if crest in ("a boss", "a spike"):
        b.ball((0, 0, bulge * 2), d.real(0.12, 0.25))
        if crest == "a spike":
            b.rod((0, 0, bulge * 2), (0, 0, bulge * 2 + d.real(0.3, 0.6)), 0.1, 0.0)
    elif crest == "a cross":
        b.path([(x, y, z + 0.02) for x, y, z in (row[3] for row in rows)], 0.05)
        b.path([(x, y, z + 0.02) for x, y, z in rows[3]], 0.05)
    else:
        for row in rows[1:-1:2]:
            for at in row[1::2]:
                b.ball(at, 0.06)
    b.ring((0, 0, bulge - 0.15), 0.25, 0.03, (0, 1, 0))


@family("helmet")
def helmet(b: Parts, d: Dice, words: Words) -> None:
    r, tall = d.real(0.5, 0.7), d.real(0.85, 1.3)
    words.measure(tall, 0.98, "low", 1.15, "high")
    style = d.pick(["soldier's", "knight's", "horned", "crested", "space", "hard-hat"])
    words.adjectives.append(style)
    for k in (1.0, 0.92):
        b.ball((0, 0, 0), (r * k, r * tall * k, r * 0.85 * k), low=-0.6 if style == "space" else 0)
    if style in ("knight's", "crested"):
        b.revolve((0, -r * 0.9, 0), [(r * d.real(0.75, 1.05), 0), (r * 0.98, r * 0.9)])
        for y in spaced(words.count(d.whole(1, 4), "visor slit"), r * 0.6):
            b.box((r * 0.85, y - r * 0.45, 0), (r * 0.3, r * 0.06, r))
        b.box((r * 0.9, -r * 0.7, 0), (r * 0.25, r * 0.7, r * 0.1))
    elif style in ("soldier's", "hard-hat"):
        b.revolve((0, -r * 0.15, 0), [(r * 1.2, 0), (r * 0.95, r * 0.2)])
        b.ball((r * (0.5 if style == "hard-hat" else 0.2), 0, 0), (r * 0.9, r * 0.1, r * 0.8))
    elif style == "space":
        b.ring((0, -r * tall * 0.6, 0), r * 0.8, r * 0.12)
        b.ball((r * 0.35, r * 0.05, 0), (r * 0.75, r * 0.6, r * 0.7))
        for sz in (-1, 1):
            b.rod((0, 0, sz * r * 0.7), (0, 0, sz * r * 1.05), r * 0.25)
    else:
        b.ring((0, 0, 0), r * 0.92, r * 0.1)
        b.box((r * 0.9, -r * 0.5, 0), (r * 0.1, r * 0.6, r * 0.15))
        long = d.real(0.5, 1.0)
        for sz in (-1, 1):
            horn: list[Point] = [
                (0, r * 0.4, sz * r * 0.7),
                (0, r * 0.55, sz * r * (1 + long * 0.7)),
                (0, r * (0.7 + long), sz * r * (1.1 + long * 0.8)),
            ]
            b.path(horn, r * 0.2, r * 0.03)
    if style == "crested" or words.feature(d.chance(0.25), "a plume"):
        for i in range(6):
            a = 0.4 + 0.4 * i
            at = (r * math.cos(a), r * tall * math.sin(a), 0.0)
            b.box(at, (r * 0.45, r * 0.45, r * 0.12), axis=(math.cos(a), math.sin(a), 0))


@family("hat")
def hat(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["top", "cowboy", "witch's", "cap", "straw", "crown", "bowler", "woollen"])
    words.adjectives.append(style)
    r, h, brim = d.real(0.4, 0.55), d.real(0.35, 0.8), d.real(0.25, 0.6)
    words.measure(h / r, 0.9, "low", 1.4, "high")
    if style == "crown":
        hollow(b, [(r, 0), (r * d.real(1, 1.2), h * 0.6)], 0.03)
        for c, s in around(words.count(d.whole(4, 9), "point")):
            at = (c * r * 1.02, h * 0.5, s * r * 1.02)
            b.box(at, (0.1, h * 0.5, 0.1), (0.01, 0.01), axis=(c * 0.2, 1, s * 0.2))
            b.ball((c * r * 1.1, h, s * r * 1.1), 0.05)
        return
    if style == "cap":
        b.ball((0, 0, 0), (r, h * 0.8, r), low=0)
        b.ball((r * 0.9, 0.02, 0), (brim + r * 0.3, 0.05, r * 0.75), low=-0.5)
        b.ball((0, h * 0.8, 0), 0.05)
        return
    if style == "woollen":
        b.ball((0, 0.1, 0), (r, h * 1.1, r), low=0)
        b.ring((0, 0.08, 0), r, 0.1)
        if words.feature(d.chance(0.7), "a bobble"):
            b.ball((0, h * 1.2, 0), r * d.real(0.2, 0.35))
        return
    curl = brim * {"cowboy": 0.6}.get(style, d.real(-0.1, 0.2))
    rows: list[list[Point]] = []
    for k in (r, r + brim * 0.5, r + brim):
        out = (k - r) / brim
        rows.append([(k * c * 1.1, curl * out * out * s * s, k * s) for c, s in [*around(14), (1.0, 0.0)]])
    b.sheet(rows)
    if style == "witch's":
        lean = d.real(0, 0.5)
        b.path([(0, 0, 0), (lean * 0.1, h, 0), (lean * 0.6, h * 1.7, 0), (lean * 1.4, h * 2.1, 0)], r, 0.02)
    elif style in ("bowler", "straw"):
        b.ball((0, 0, 0), (r, h, r), low=0)
    elif style == "cowboy":
        b.box((0, h, 0), (r * 1.8, h, r * 0.7), (r * 2.1, r * 1.7), axis=(0, -1, 0))
    else:
        b.rod((0, h * 1.3, 0), (0, 0, 0), r * d.real(0.85, 1.15), r)
    if words.feature(d.chance(0.6), "a band"):
        b.ring((0, 0.05, 0), r * 0.98, 0.05)


@family("shoe")
def shoe(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["trainer", "boot", "high-heeled", "sandal", "slipper"])
    words.adjectives.append(
        {"trainer": "sports", "boot": "high-shafted", "slipper": "slip-on"}.get(style, style)
    )
    long, w, t = d.real(0.9, 1.2), d.real(0.3, 0.42), d.real(0.04, 0.16)
    words.measure(t, 0.07, "thin-soled", 0.12, "thick-soled")
    heel = d.real(0.3, 0.6) if style == "high-heeled" else 0.0
    feet = spaced(2, w * 3) if words.feature(d.chance(0.35), "its partner beside it") else [0.0]
    shaft = {"boot": d.real(0.5, 1.3), "trainer": d.real(0.15, 0.35)}.get(style, 0.0)
    for z in feet:
        b.ball((long * 0.27, t / 2, z), (long * 0.26, t * 0.6, w / 2))
        back = (-long * 0.3, heel + t / 2, z)
        b.box((long * 0.3, t / 2, z), (t, long * 0.62, w * 0.85), (t, w * 0.7), axis=(-1, heel * 1.6, 0))
        if style == "sandal":
            for x in (0.3, 0.1, -0.25):
                b.ring((long * x, t, z), w * 0.42, 0.025, (1, 0, 0), (90, 270))
            continue
        b.ball((long * 0.25, t, z), (long * 0.28, d.real(0.16, 0.26), w * 0.5), low=0)
        b.rod((long * 0.2, t + 0.04, z), (back[0], back[1] + 0.05, z), w * 0.42, w * 0.36)
        if shaft:
            x, up = back[0] + 0.08, t + shaft + 0.15
            b.rod((x, up, z), (x, t, z), w * d.real(0.4, 0.6), w * 0.42, caps=False)
        if heel:
            b.rod((back[0], heel, z), (back[0] + 0.05, 0, z), w * 0.22, d.real(0.03, 0.1))
        if style == "trainer":
            for x in spaced(4, long * 0.3):
                at = (long * 0.1 + x, 0.22 + t - x * 0.4)
                b.rod((*at, z - w * 0.25), (*at, z + w * 0.25), 0.02)


@family("cannon")
def cannon(b: Parts, d: Dice, words: Words) -> None:
    long, r, tilt = d.real(1.4, 2.6), d.real(0.18, 0.35), d.real(0.0, 0.6)
    words.measure(long / r, 6, "stubby", 9, "long")
    y = d.real(0.5, 0.9)
    end: Point = (long * 0.7, y + long * 0.7 * tilt, 0.0)
    tail: Point = (-long * 0.3, y - long * 0.3 * tilt, 0.0)
    b.rod(tail, end, r, r * d.real(0.6, 1.1), caps=False)
    b.rod(tail, end, r * 0.5, caps=False)
    b.ball(tail, r)
    b.ball((tail[0] - r * 1.1, tail[1] - r * tilt, 0), r * 0.3)
    for k in (0.3, 0.65, 1.0):
        at = (tail[0] + (end[0] - tail[0]) * k, tail[1] + (end[1] - tail[1]) * k, 0.0)
        b.ring(at, r * 0.85, r * 0.2, (1, tilt, 0))
    style = d.pick(["two large wheels", "a ship's carriage", "a fixed stand"])
    words.features.append(style)
    if style == "two large wheels":
        for sz in (-1, 1):
            b.ring((0, y, sz * r * 1.6), y, y * 0.08, (0, 0, 1))
            for c, s in around(d.whole(5, 8)):
                b.rod((0, y, sz * r * 1.6), (c * y, y + s * y, sz * r * 1.6), 0.035)
        b.rod((0, y, -r * 1.7), (0, y, r * 1.7), 0.06)
        b.rod((0, y, 0), (-long * 0.8, 0.05, 0), 0.1)
    elif style == "a ship's carriage":
        for sz in (-1, 1):
            b.box((-long * 0.1, y * 0.3, sz * r * 1.1), (long * 0.6, y * 0.7, r * 0.3), (long * 0.3, r * 0.3))
            for x in (-0.3, 0.1):
                b.rod((long * x, y * 0.25, sz * r), (long * x, y * 0.25, sz * r * 1.6), y * 0.25)
    else:
        b.box((0, 0, 0), (r * 4, y * 0.3, r * 4), (r * 3, r * 3))
        for sz in (-1, 1):
            b.box((0, y * 0.3, sz * r * 1.1), (r * 2, y * 0.8, r * 0.3), (r, r * 0.3))
    if words.feature(d.chance(0.35), "a pile of balls"):
        for x, up, z in ((0, 0, 0), (2, 0, 0), (1, 0, 1.7), (1, 1.6, 0.6)):
            b.ball((long * 0.3 + x * r * 0.7, r * (0.7 + 0.7 * up), r * (3 + 0.7 * z)), r * 0.7)
