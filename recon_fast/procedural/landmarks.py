"""What stands about in towns, camps, graveyards and bases. One unit is about a metre."""

import math
from itertools import pairwise

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, family, spaced
from recon_fast.procedural.vessels import hollow


@family("tent")
def tent(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["ridge", "cone", "dome", "pavilion", "awning"])
    words.adjectives.append(style)
    w, long, h = d.real(1.2, 2.2), d.real(1.2, 3.0), d.real(0.8, 1.6)
    words.measure(h, 1.0, "low", 1.35, "high")
    if style == "ridge":
        for sx in (-1, 1):
            ends = (-long / 2, long / 2)
            b.sheet([[(0, h, z) for z in ends], [(sx * w / 2, 0, z) for z in ends]])
            b.rod((sx * w * 0.5, 0, long / 2), (-sx * w * 0.06, h * 1.1, long / 2), 0.03)
        b.triangle((-w / 2, 0, -long / 2), (w / 2, 0, -long / 2), (0, h, -long / 2))
        if words.feature(d.chance(), "an open flap"):
            b.triangle((-w / 2, 0, long / 2), (-w * 0.2, 0, long * 0.7), (0, h, long / 2))
    elif style == "cone":
        b.cylinder((0, 0, 0), h * 1.4, w * 0.6, 0.05, caps=False)
        for c, s in around(words.count(d.whole(3, 6), "pole")):
            b.rod((-c * 0.12, h * 1.65, -s * 0.12), (c * w * 0.6, 0, s * w * 0.6), 0.025)
    elif style == "dome":
        b.ball((0, 0, 0), (w * 0.7, h, long * 0.4), low=0)
        b.ball((w * 0.6, 0, 0), (w * 0.3, h * 0.6, 0.4), low=0)
        b.cylinder((0, h * 0.97, 0), 0.08, 0.12)
    else:
        tall = h * d.real(0.7, 1.1)
        for sx, sz in CORNERS:
            b.cylinder((sx * w / 2, 0, sz * long / 2), tall, 0.04)
        b.box((0, tall, 0), (w * 1.1, h * 0.6, long * 1.1), (0, 0) if style == "pavilion" else (w, 0))
        if words.feature(style == "pavilion" and d.chance(0.6), "cloth walls"):
            for sx in (-1, 1):
                b.box((sx * w / 2, 0, 0), (0.03, tall, long))
    if words.feature(d.chance(0.4), "guy ropes"):
        for sx, sz in CORNERS:
            b.rod((sx * w * 0.3, h * 0.6, sz * long * 0.4), (sx * w * 0.9, 0, sz * long * 0.6), 0.012)


@family("hut")
def hut(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["round", "stilted", "market", "doghouse", "igloo"])
    words.adjectives.append({"doghouse": "small"}.get(style, style))
    w, h, depth = d.real(1.2, 2.0), d.real(0.7, 1.2), d.real(0.9, 1.6)
    rise, floor = d.real(0.4, 1.1), d.real(0.4, 0.9) if style == "stilted" else 0.05
    words.measure(rise, 0.6, "flat-roofed", 0.9, "steep-roofed")
    if style == "round":
        b.cylinder((0, 0, 0), h, w / 2)
        b.cylinder((0, h * 0.9, 0), rise * 1.2, w * d.real(0.6, 0.8), d.real(0, 0.1))
        b.box((w / 2, 0, 0), (0.12, h * 0.7, w * 0.3))
    elif style == "igloo":
        b.ball((0, 0, 0), (w * 0.6, h, w * 0.6), low=0)
        b.rod((w * 0.4, h * 0.15, 0), (w, h * 0.15, 0), h * 0.4, caps=False)
        for y in (0.3, 0.6):
            b.ring((0, h * y, 0), w * 0.6 * math.sqrt(1 - y * y), 0.02)
    elif style == "market":
        b.box((0, 0, depth * 0.3), (w, h * 0.5, depth * 0.4))
        for sx, sz in CORNERS:
            b.cylinder((sx * w * 0.48, 0, sz * depth * 0.48), h * (1.2 if sz < 0 else 1), 0.04)
        b.box((0, h, 0), (w * 1.15, 0.06, depth * 1.2), axis=(0, 1, 0.25))
        for x in spaced(words.count(d.whole(2, 5), "ware"), w):
            b.ball((x, h * 0.55, depth * 0.3), w * d.real(0.05, 0.09))
    else:
        if style == "stilted":
            for sx, sz in CORNERS:
                b.cylinder((sx * w * 0.42, 0, sz * depth * 0.42), floor, 0.06)
            b.box((0, floor - 0.05, 0.1), (w * 1.15, 0.08, depth * 1.3))
            for i in range(4):
                b.box((0, floor * (0.2 + 0.2 * i), depth * (1.2 - 0.13 * i)), (w * 0.35, 0.04, 0.12))
        b.box((0, floor, 0), (w * 0.9, h, depth))
        b.box((0, floor + h, 0), (w * 1.15, rise, depth * 1.25), (0, depth * d.real(0.7, 1.25)))
        b.rod((0, floor + h * 0.4, depth * 0.45), (0, floor + h * 0.4, depth * 0.53), h * 0.35)


@family("well")
def well(b: Parts, d: Dice, words: Words) -> None:
    r, h, tall = d.real(0.4, 0.7), d.real(0.4, 0.8), d.real(0.8, 1.3)
    words.measure(h / r, 0.9, "low", 1.4, "high")
    if words.feature(d.chance(0.7), "a round wall", "a square wall"):
        hollow(b, [(r, 0), (r * d.real(0.9, 1.05), h)], r * 0.2)
        b.ring((0, h, 0), r * 0.9, r * 0.15)
    else:
        for sign in (-1, 1):
            b.box((0, 0, sign * r), (2.2 * r, h, r * 0.25))
            b.box((sign * r, 0, 0), (r * 0.25, h, 2 * r))
    frame = d.pick(["a roof", "a roof", "a winch", "a boom"])
    words.features.append(frame)
    if frame == "a boom":
        b.box((r * 1.5, 0, 0), (0.12, tall * 1.4, 0.12))
        b.rod((r * 2.6, tall, 0), (-r * 0.4, tall * 1.9, 0), 0.04)
        b.rod((0, h, 0), (0, tall * 1.75, 0), 0.015)
        return
    for sx in (-1, 1):
        b.box((sx * r * 1.05, 0, 0), (0.12, h + tall, 0.12))
    b.rod((-r * 1.3, h + tall * 0.6, 0), (r * 1.3, h + tall * 0.6, 0), r * 0.12)
    if frame == "a roof":
        b.box((0, h + tall, 0), (r * 3, r * d.real(0.6, 1.2), r * 2.4), (r * 3, 0))
    if words.feature(d.chance(0.7), "a bucket"):
        b.rod((0, h + tall * 0.6, 0), (0, h + 0.2, 0), 0.012)
        b.cylinder((0, h, 0), 0.22, 0.1, 0.14)


@family("fountain")
def fountain(b: Parts, d: Dice, words: Words) -> None:
    tiers, r, y = words.count(d.whole(1, 3), "basin"), d.real(0.8, 1.4), 0.0
    words.measure(r, 0.95, "small", 1.25, "wide")
    for i in range(tiers):
        size, deep = r * 0.55**i, r * d.real(0.15, 0.35)
        if i == 0 and words.feature(d.chance(0.3), "a square pool"):
            for sign in (-1, 1):
                b.box((0, 0, sign * size), (2 * size, deep, 0.12))
                b.box((sign * size, 0, 0), (0.12, deep, 2 * size))
            b.box((0, deep * 0.5, 0), (2 * size, 0.02, 2 * size))
        else:
            rim = [(size, deep), (size * 0.88, deep), (size * 0.8, deep * 0.6), (0, deep * 0.6)]
            b.revolve((0, y, 0), [(size * 0.3 if i else size, 0), *rim])
        b.cylinder((0, y, 0), r * 0.7, size * d.real(0.12, 0.3), size * 0.1)
        y += r * 0.65
    top = d.pick(["a ball on top", "jets of water", "a figure", "a spike"])
    words.features.append(top)
    if top == "jets of water":
        for c, s in around(d.whole(4, 7)):
            k = r * 0.3
            jet = [(0.0, 0.0), (0.5, k), (1.2, k * 0.8), (1.6, -k * 0.2)]
            b.path([(c * k * t, y + up, s * k * t) for t, up in jet], 0.025)
    elif top == "a figure":
        b.cylinder((0, y, 0), r * 0.45, r * 0.14, r * 0.09)
        b.ball((0, y + r * 0.55, 0), r * 0.1)
    elif top == "a spike":
        b.cylinder((0, y, 0), r * d.real(0.3, 0.7), r * 0.1, 0.0)
    else:
        b.ball((0, y + r * 0.1, 0), r * d.real(0.12, 0.22))


@family("gravestone")
def gravestone(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["rounded", "cross", "obelisk", "slab", "broken", "coffin", "celtic"])
    words.adjectives.append({"cross": "cross-shaped", "obelisk": "obelisk-shaped"}.get(style, style))
    w, h, t = d.real(0.4, 0.8), d.real(0.6, 1.2), d.real(0.1, 0.25)
    words.measure(h / w, 1.2, "broad", 2.0, "tall")
    steps = words.count(d.whole(1, 3), "step")
    for i in range(steps):
        k = 1.5 - 0.25 * i / steps
        b.box((0, 0.08 * i, 0), (w * k, 0.08, t * k + 0.2))
    y = 0.08 * steps
    if style in ("cross", "celtic"):
        arm = h * d.real(0.6, 0.75)
        b.box((0, y, 0), (t * 1.2, h * 1.1, t), (t * d.real(0.8, 1.2), t))
        b.box((0, y + arm, 0), (w * d.real(1, 1.3), t * 1.1, t))
        if style == "celtic":
            b.ring((0, y + arm + t * 0.5, 0), w * 0.35, t * 0.3, (0, 0, 1))
    elif style == "obelisk":
        b.box((0, y, 0), (w * 0.6, h * 1.3, w * 0.6), (w * 0.35, w * 0.35))
        b.box((0, y + h * 1.3, 0), (w * 0.35, w * 0.3, w * 0.35), (0, 0))
    elif style == "coffin":
        b.box((0, y, h * 0.4), (w * 0.9, t * 1.5, h * 0.6), (w * 0.95, h * 0.6))
        b.box((0, y + t * 1.5, h * 0.4), (w, t * 0.4, h * 0.7), (w * 0.7, h * 0.5))
        b.box((0, y, -0.05), (w, h * 0.7, t), (w * 0.6, t))
    else:
        b.box((0, y, 0), (w, h * 0.7, t), (w * d.real(0.9, 1.1), t))
        if style == "rounded":
            b.rod((0, y + h * 0.7, -t / 2), (0, y + h * 0.7, t / 2), w / 2)
        elif style == "broken":
            b.box((-w * 0.1, y + h * 0.7, 0), (w * 0.8, h * 0.2, t), (0.05, t), (-w * 0.25, 0))
            b.box((w * 0.6, 0.02, t * 2), (w * 0.5, h * 0.15, h * 0.3))
        b.box((0, y + h * 0.35, 0), (w * 0.6, h * 0.25, t * 1.2))
    if words.feature(d.chance(0.3), "a mound before it"):
        b.ball((0, 0, h * 0.6), (w * 0.6, 0.15, h * 0.6), low=0)


@family("satellite dish")
def satellite_dish(b: Parts, d: Dice, words: Words) -> None:
    r, deep, h = d.real(0.6, 1.2), d.real(0.15, 0.4), d.real(0.4, 1.4)
    words.measure(deep, 0.22, "shallow", 0.33, "deep")
    tilt = d.real(0.2, 1.5)
    n = math.hypot(1, tilt)
    axis: Point = (1 / n, tilt / n, 0.0)
    steps = [(0.02, 0.0), (0.5, 0.25), (0.8, 0.64), (1.0, 1.0)]
    for (k0, y0), (k1, y1) in pairwise(steps):
        start, end = ((axis[0] * y * deep * r, h + axis[1] * y * deep * r, 0.0) for y in (y0, y1))
        b.rod(start, end, k0 * r, k1 * r, caps=False)
    feed = (axis[0] * r * 0.8, h + axis[1] * r * 0.8, 0.0)
    if words.feature(d.chance(), "a feed on three struts", "a feed on one rod"):
        for c, s in around(3):
            rim = (
                axis[0] * deep * r - tilt / n * c * r * 0.9,
                h + axis[1] * deep * r + c * r * 0.9 / n,
                s * r * 0.9,
            )
            b.rod(rim, feed, 0.02)
    else:
        b.rod((0, h, 0), feed, 0.03)
    b.ball(feed, 0.08)
    base = d.pick(["a mast", "a tripod", "a turntable", "a lattice of legs"])
    words.features.append(base)
    if base == "a turntable":
        b.cylinder((0, 0, 0), h * 0.3, r * 0.6, r * 0.5)
        for sz in (-1, 1):
            b.box((0, h * 0.3, sz * r * 0.25), (r * 0.4, h * 0.7, 0.08), (0.1, 0.08))
    elif base == "a mast":
        b.cylinder((0, 0, 0), h, 0.06)
        b.cylinder((0, 0, 0), 0.08, r * 0.4)
    else:
        for c, s in around(3 if base == "a tripod" else 4):
            b.rod((c * r * 0.6, 0, s * r * 0.6), (c * 0.1, h, s * 0.1), 0.035)
        b.ring((0, h * 0.4, 0), r * 0.38, 0.025)


@family("sign")
def sign(b: Parts, d: Dice, words: Words) -> None:
    h, w, tall, t = d.real(0.9, 2.0), d.real(0.4, 1.0), d.real(0.25, 0.6), d.real(0.02, 0.06)
    words.measure(h, 1.2, "low", 1.7, "tall")
    style = d.pick(["board", "arrows", "round", "triangular", "hanging", "billboard"])
    words.adjectives.append({"board": "plain", "arrows": "pointing"}.get(style, style))
    posts = (-0.4, 0.4) if style == "billboard" or d.chance(0.25) else (0.0,)
    for x in posts:
        b.cylinder((x * w, 0, 0), h, d.real(0.025, 0.05))
    if style in ("board", "billboard"):
        k = 1.8 if style == "billboard" else 1.0
        b.box((0, h - tall * 0.7, t), (w * k, tall * k, t))
        if words.feature(d.chance(), "a frame"):
            for y in (h - tall * 0.7, h - tall * 0.7 + tall * k):
                b.box((0, y, t), (w * k * 1.05, 0.04, t * 2.5))
    elif style == "arrows":
        for i in range(words.count(d.whole(1, 4), "arm")):
            side, y = d.pick([-1, 1]), h - 0.22 * i - 0.1
            b.box((side * w * 0.3, y - 0.07, t), (w * 0.7, 0.14, t))
            b.box((side * w * 0.65, y, t), (0.14, 0.15, t), (0.01, t), axis=(side, 0, 0))
    elif style == "round":
        b.rod((0, h, 0), (0, h, t), w * 0.4)
        b.ring((0, h, t), w * 0.4, t * 0.5, (0, 0, 1))
    elif style == "triangular":
        b.box((0, h - tall * 0.5, t), (w, tall * 1.4, t), (0.02, t))
    else:
        b.rod((0, h * 0.95, 0), (w, h * 0.95, 0), 0.025)
        for x in (0.35, 0.85):
            b.rod((w * x, h * 0.95, 0), (w * x, h * 0.95 - 0.1, 0), 0.012)
        b.box((w * 0.6, h * 0.95 - 0.1 - tall, 0), (w * 0.7, tall, t))
    if words.feature(d.chance(0.35), "a heavy foot"):
        b.cylinder((0, 0, 0), 0.08, w * 0.4, w * 0.35)


@family("street lamp")
def street_lamp(b: Parts, d: Dice, words: Words) -> None:
    h, r, arms = d.real(1.8, 4.0), d.real(0.04, 0.09), d.whole(1, 3)
    words.measure(h, 2.4, "low", 3.4, "tall")
    style = d.pick(["curved arm", "lantern", "globes", "floodlight", "hook"])
    words.features.append(style if style == "globes" else f"a {style}")
    b.revolve((0, 0, 0), [(r * 3, 0), (r * 3, 0.12), (r * 1.6, 0.3), (r, 0.4), (r * 0.8, h)])
    if style == "lantern":
        b.box((0, h, 0), (0.2, 0.4, 0.2), (0.35, 0.35))
        b.box((0, h + 0.4, 0), (0.42, 0.18, 0.42), (0.05, 0.05))
    for c, s in around(arms if arms > 1 else d.whole(1, 2)) if style != "lantern" else []:
        reach = d.real(0.3, 0.5) if style == "globes" else d.real(0.5, 1.0)
        x, z = c * reach, s * reach
        if style == "floodlight":
            b.rod((0, h, 0), (x * 0.5, h, z * 0.5), r * 0.6)
            b.box((x * 0.5, h - 0.15, z * 0.5), (0.3, 0.15, 0.3), (0.4, 0.4), axis=(c, -0.6, s))
            continue
        bow = [(0.0, h * 0.98), (0.3, h + 0.25), (0.8, h + 0.28), (1.0, h + 0.1)]
        b.path([(x * k, y, z * k) for k, y in bow], r * 0.6)
        if style == "globes":
            b.ball((x, h + 0.25, z), 0.18)
        elif style == "curved arm":
            b.ball((x, h + 0.1, z), (0.22, 0.07, 0.14))
        else:
            b.rod((x, h + 0.1, z), (x, h - 0.1, z), 0.012)
            b.cylinder((x, h - 0.45, z), 0.35, 0.12, 0.16)
            b.cylinder((x, h - 0.1, z), 0.12, 0.2, 0.0)


@family("flag")
def flag(b: Parts, d: Dice, words: Words) -> None:
    h, w, tall = d.real(1.2, 3.0), d.real(0.5, 1.3), d.real(0.35, 0.9)
    words.measure(h, 1.6, "low", 2.4, "high")
    style = d.pick(["rectangular", "triangular", "swallow-tailed", "hanging"])
    words.adjectives.append(style)
    b.cylinder((0, 0, 0), h, d.real(0.02, 0.045))
    b.ball((0, h, 0), 0.06)
    n, wave, phase = 8, d.real(0.02, 0.2), d.real(0, 6)
    words.measure(wave, 0.06, "stiff", 0.14, "waving")
    upper, lower = [], []
    middle: list[Point] = []
    for i in range(n + 1):
        t = i / n
        z = wave * math.sin(phase + 6 * t) * (0.2 + t)
        if style == "hanging":
            point, across = (0.02 + z, h * 0.97 - tall * 1.8 * t), w * 0.35
            upper.append((point[0], point[1], -across))
            middle.append((point[0], point[1] - (0.3 * w if i == n else 0), 0))
            lower.append((point[0], point[1], across))
            continue
        shrink = t * tall / 2 if style == "triangular" else 0.0
        x = w * t
        upper.append((x, h * 0.97 - shrink, z))
        notch = w * 0.3 if style == "swallow-tailed" and i == n else 0.0
        middle.append((x - notch, h * 0.97 - tall / 2, z))
        lower.append((x, h * 0.97 - tall + shrink, z))
    b.sheet([upper, middle, lower])
    if style == "hanging":
        b.rod((0, h * 0.97, -w * 0.4), (0, h * 0.97, w * 0.4), 0.02)
    if words.feature(d.chance(0.6), "a base"):
        b.cylinder((0, 0, 0), 0.1, d.real(0.15, 0.35), 0.12)


@family("scaffold")
def scaffold(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["tower", "beam", "decked", "pylon", "cube"])
    words.adjectives.append({"tower": "tower-like", "beam": "lying", "cube": "cubic"}.get(style, style))
    w, r = d.real(0.5, 0.9), d.real(0.02, 0.05)
    step, taper = w * d.real(0.7, 1.3), d.real(0.3, 0.6) if style == "pylon" else 1.0
    n = 1 if style == "cube" else words.count(d.whole(2, 5), "bay")
    braces = words.feature(d.chance(0.7), "diagonal braces")

    def at(i: int, k: int) -> Point:
        """Corner k at level i."""
        half = w / 2 * (1 + (taper - 1) * i / n)
        x, z = [(-1, -1), (1, -1), (1, 1), (-1, 1)][k % 4]
        y = i * step
        return (y, half * x, half * z) if style == "beam" else (half * x, y, half * z)

    for k in range(4):
        b.rod(at(0, k), at(n, k), r)
        for i in range(n + 1):
            b.rod(at(i, k), at(i, k + 1), r * 0.8)
            if braces and i < n:
                b.rod(at(i, k), at(i + 1, k + 1), r * 0.6)
    if style == "decked":
        for i in range(1, n + 1):
            b.box((0, i * step, 0), (w * 0.95, 0.04, w * 0.95))
    if style == "pylon":
        for y in (0.7, 0.95):
            b.rod((-w, n * step * y, 0), (w, n * step * y, 0), r)
            for sx in (-1, 1):
                b.rod((sx * w, n * step * y, 0), (sx * w, n * step * y - 0.15, 0), r * 1.5)
