"""More that drives, floats and flies, x to the front. One unit is about a metre."""

import math

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, curve, family, spaced
from recon_fast.procedural.vehicles import wheels


@family("spacecraft")
def spacecraft(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["fighter", "saucer", "cruiser", "shuttle", "racer"])
    words.adjectives.append({"saucer": "disc-shaped", "fighter": "winged"}.get(style, style))
    long, w = d.real(1.5, 3.0), d.real(0.3, 0.6)
    words.measure(w / long, 0.15, "slender", 0.28, "broad")
    if style == "saucer":
        r = long * 0.6
        for low, high, k in ((-1, 0, d.real(0.15, 0.35)), (0, 1, d.real(0.1, 0.3))):
            b.ball((0, 0, 0), (r, r * k, r), low=low, high=high)
        b.ball((0, r * 0.1, 0), (r * d.real(0.3, 0.5), r * 0.35, r * 0.4), low=0)
        b.ring((0, 0, 0), r, r * 0.05)
        for c, s in around(words.count(d.whole(3, 8), "lamp")):
            b.ball((c * r * 0.8, -0.08 * r, s * r * 0.8), r * 0.08)
        for c, s in around(3) if words.feature(d.chance(), "landing legs") else ():
            b.rod((c * r * 0.4, 0, s * r * 0.4), (c * r * 0.7, -r * 0.5, s * r * 0.7), r * 0.04)
        return
    size, nose = (w * 1.4, long * 0.55, w * 0.9), (w * d.real(0.1, 0.6), w * d.real(0.2, 0.7))
    b.box((0, 0, 0), size, nose, axis=(1, 0, 0))
    b.box((0, 0, 0), (w * 1.4, long * 0.45, w * 0.9), (w * d.real(0.6, 1.2), w), axis=(-1, 0, 0))
    b.ball((long * 0.1, w * 0.6, 0), (long * d.real(0.12, 0.25), w * 0.4, w * 0.35))
    span, sweep = long * d.real(0.3, 0.7), d.real(-0.4, 0.9) * long * 0.5
    pairs = 2 if style == "fighter" and d.chance(0.4) else 1
    words.feature(pairs == 2, "crossed wings")
    for sz in (-1, 1):
        for k in range(pairs):
            lift = (0.4 * (-1) ** k) if pairs == 2 else d.real(-0.25, 0.4)
            chord = long * d.real(0.25, 0.5)
            tip = (chord * d.real(0.2, 0.8), 0.03)
            b.box((-long * 0.2, 0, sz * w * 0.3), (chord, span, 0.08), tip, (-sweep, 0), axis=(0, lift, sz))
            end = (-long * 0.2 - sweep, lift * span, sz * (w * 0.3 + span))
            if style in ("fighter", "racer"):
                b.rod(
                    (end[0] - 0.2, end[1], end[2]), (end[0] + long * d.real(0.2, 0.5), end[1], end[2]), 0.05
                )
        engine = (-long * 0.45, 0.0, sz * w * d.real(0.5, 1.0))
        b.rod(engine, (engine[0] + long * 0.3, 0, engine[2]), w * 0.28, w * 0.22)
        b.rod((engine[0] - 0.12, 0, engine[2]), engine, w * 0.32, w * 0.2, caps=False)
    if style == "cruiser":
        for i in range(words.count(d.whole(2, 4), "deck")):
            at = (-long * (0.1 + 0.07 * i), w * (0.4 + 0.35 * i), 0)
            b.box(at, (long * (0.5 - 0.1 * i), w * 0.4, w * 0.7))
        b.cylinder((-long * 0.3, w * 0.8, 0), w * 1.6, 0.03)
    if words.feature(style == "shuttle" or d.chance(0.35), "a tail fin"):
        size = (long * 0.2, w * d.real(0.8, 1.6), 0.06)
        b.box((-long * 0.38, w * 0.4, 0), size, (long * 0.1, 0.03), (-0.2, 0))


@family("satellite")
def satellite(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["box", "station", "drone", "probe"])
    words.adjectives.append({"box": "box-shaped", "station": "modular"}.get(style, f"{style}-like"))
    r, long = d.real(0.25, 0.5), d.real(0.5, 1.2)
    if style == "drone":
        b.ball((0, 0, 0), (r * 1.3, r * 0.5, r))
        for c, s in around(words.count(d.pick([4, 6]), "rotor"), 0.785):
            tip = (c * long, 0.05, s * long)
            b.rod((0, 0, 0), tip, 0.04)
            b.cylinder(tip, 0.12, 0.06)
            b.ring((tip[0], 0.15, tip[2]), long * 0.35, 0.02)
            b.box((tip[0], 0.15, tip[2] - long * 0.3), (0.05, 0.02, long * 0.6))
        for sz in (-1, 1):
            b.path([(0, 0, sz * r * 0.5), (0, -r, sz * r), (r, -r, sz * r)], 0.025)
        words.feature(r > 0.37, "a wide body", "a narrow body")
        return
    if d.chance(0.5) and style != "probe":
        b.box((0, -r, 0), (r * 1.6, 2 * r, r * 1.6))
    else:
        sides = [(0.02, -r * 1.2), (r, -r * 1.2), (r, r * 1.2), (0.02, r * 1.2)]
        b.prism((0, 0, 0), sides, 6)
    panels = d.whole(1, 3)
    words.count(2 * panels, "solar panel")
    tilt = d.real(-0.6, 0.6)
    for sz in (-1, 1):
        b.rod((0, 0, 0), (0, 0, sz * (r + panels * long)), 0.03)
        for i in range(panels):
            z = sz * (r * 1.3 + (i + 0.5) * long)
            b.box((0, 0, z), (0.03, long * 0.45, long * 0.9), axis=(1, tilt, 0))
            b.box((0, 0, z), (0.03, long * 0.45, long * 0.9), axis=(-1, -tilt, 0))
    if style == "station":
        for x in spaced(words.count(d.whole(2, 4), "module"), 4 * r * 2):
            b.rod((x - r * 0.9, 0, 0), (x + r * 0.9, 0, 0), r * d.real(0.6, 1.0))
        if words.feature(d.chance(0.4), "a wheel around it"):
            b.ring((0, 0, 0), r * 3.5, r * 0.4, (1, 0, 0))
    else:
        y = r * 1.2
        b.cylinder((0, y, 0), r * 0.5, 0.04)
        b.revolve((0, y + r * 0.4, 0), [(0.02, 0), (r * 0.7, r * 0.12), (r * d.real(1, 1.6), r * 0.5)])
        b.rod((0, y, 0), (0, y + r * 1.3, 0), 0.02)
    if words.feature(style == "probe" or d.chance(0.4), "long antennas"):
        for c, s in around(d.whole(2, 4), d.real(0, 3)):
            b.rod((0, -r, 0), (c * long * 1.2, -r - long * 0.5, s * long * 1.2), 0.02)


@family("tank")
def tank(b: Parts, d: Dice, words: Words) -> None:
    long, w, h, track = d.real(2.4, 3.6), d.real(0.9, 1.4), d.real(0.4, 0.7), d.real(0.3, 0.5)
    words.measure(long, 2.7, "short", 3.3, "long")
    b.box((0, h * 0.5, 0), (long * 0.9, h, w), (long * d.real(0.6, 0.9), w * d.real(0.8, 1.1)))
    wheel_count, r = words.count(d.whole(3, 7), "road wheel"), h * 0.42
    for sz in (-1, 1):
        z = sz * (w + track) / 2
        b.box((0, h * 0.45, z), (long, h * 0.5, track), (long * 0.94, track))
        b.box((0, h * 0.45, z), (long, h * 0.45, track), (long * 0.7, track), axis=(0, -1, 0))
        for x in spaced(wheel_count, long * 0.85):
            b.rod((x, h * 0.4, z), (x, h * 0.4, z + sz * track * 0.6), min(r, long * 0.4 / wheel_count))
    y = h * 1.5
    turret, x = d.pick(["a round turret", "a sloped turret", "a square turret", "rockets"]), d.real(-0.4, 0.2)
    words.features.append(turret if turret != "rockets" else "a rack of rockets")
    if turret == "rockets":
        for i in range(6):
            start = (x - 0.5, y + 0.2 + 0.2 * (i // 3), (i % 3 - 1) * 0.3)
            b.rod(start, (start[0] + long * 0.5, start[1] + 0.5, start[2]), 0.08, 0.05)
        b.box((x, y, 0), (0.6, 0.25, w * 0.7))
        return
    tall, r = d.real(0.3, 0.5), w * d.real(0.35, 0.5)
    if turret == "a round turret":
        b.cylinder((x, y, 0), tall, r, r * d.real(0.6, 1.0))
    else:
        k = 0.6 if turret == "a sloped turret" else 0.95
        b.box((x, y, 0), (r * 2.4, tall, r * 2), (r * 2.4 * k, r * 2 * k))
    lift = d.real(0, 0.35)
    end = (x + r + long * d.real(0.3, 0.6), y + tall * 0.5 + lift, 0.0)
    b.rod((x, y + tall * 0.5, 0), end, 0.09, 0.07)
    if words.feature(d.chance(), "a muzzle brake"):
        b.ball(end, (0.16, 0.11, 0.11))
    b.cylinder((x - 0.1, y + tall, r * 0.3), 0.12, 0.2)


@family("train carriage")
def train_carriage(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["steam engine", "passenger", "tank", "open", "box", "tram"])
    words.adjectives.append({"steam engine": "locomotive", "open": "open-topped"}.get(style, style))
    long, w, r = d.real(2.6, 4.5), d.real(0.9, 1.2), d.real(0.2, 0.3)
    words.measure(long, 3.2, "short", 4.0, "long")
    y, h = r * 1.5, d.real(0.8, 1.3)
    axles = words.count(d.whole(2, 5), "axle")
    wheels(b, spaced(axles, long * 0.9), w * 0.8, r, 0.1)
    b.box((0, y, 0), (long, 0.15, w))
    for sx in (-1, 1):
        b.rod((sx * long / 2, y, 0), (sx * (long / 2 + 0.2), y, 0), 0.06, 0.12)
    if style == "steam engine":
        b.rod((-long * 0.15, y + w * 0.55, 0), (long * 0.48, y + w * 0.55, 0), w * 0.4)
        b.box((-long * 0.32, y, 0), (long * 0.3, h * 1.2, w))
        b.box((-long * 0.32, y + h * 1.2, 0), (long * 0.36, 0.1, w * 1.15), (long * 0.3, w * 0.6))
        b.cylinder((long * 0.38, y + w * 0.9, 0), d.real(0.3, 0.6), 0.1, d.real(0.1, 0.25))
        b.ball((long * 0.12, y + w * 0.95, 0), 0.18)
        if words.feature(d.chance(0.6), "a cow-catcher"):
            b.box((long / 2, r * 0.2, 0), (0.4, y, w), (0.05, w * 0.6), (-0.15, 0))
    elif style == "tank":
        b.rod((-long * 0.47, y + w * 0.6, 0), (long * 0.47, y + w * 0.6, 0), w * 0.5)
        b.cylinder((0, y + w, 0), 0.25, 0.18)
    elif style == "open":
        for sz in (-1, 1):
            b.box((0, y, sz * w / 2), (long, h * 0.7, 0.06), shift=(0, sz * 0.1))
            b.box((sz * long / 2, y, 0), (0.06, h * 0.7, w))
        for x in spaced(d.whole(3, 5), long) if words.feature(d.chance(), "a load of coal") else ():
            b.ball((x, y + h * 0.5, 0), (long * 0.15, h * 0.4, w * 0.45))
    else:
        b.box((0, y, 0), (long, h, w), (long * d.real(0.85, 1.0), w * 0.97))
        b.box((0, y + h, 0), (long * 0.98, 0.25, w * 1.02), (long * 0.9, w * 0.4))
        for x in spaced(d.whole(4, 7) if style != "box" else 1, long * 0.9):
            up, tall = (0.15, 0.75) if style == "box" else (0.5, 0.3)
            b.box((x, y + h * up, 0), (long * 0.1, h * tall, w * 1.04))
        if words.feature(style == "tram", "a pantograph"):
            b.path([(0, y + h + 0.25, 0), (0.3, y + h + 0.5, 0), (0, y + h + 0.8, 0)], 0.03)
            b.rod((0, y + h + 0.8, -w * 0.4), (0, y + h + 0.8, w * 0.4), 0.03)


@family("cart")
def cart(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["hand", "wheelbarrow", "covered", "mine", "shopping", "sledge"])
    words.adjectives.append({"wheelbarrow": "single-wheeled", "sledge": "sledge-like"}.get(style, style))
    long, w, r, h = d.real(0.9, 1.6), d.real(0.6, 0.9), d.real(0.2, 0.45), d.real(0.25, 0.5)
    words.measure(long, 1.1, "short", 1.4, "long")
    y, flare = r * 1.1, d.real(0.0, 0.25)
    b.box((0, y, 0), (long, 0.05, w))
    for sign in (-1, 1):
        b.box((0, y, sign * w / 2), (long, h, 0.05), (long + 2 * flare, 0.05), (0, sign * flare))
        if style != "sledge":
            b.box((sign * long / 2, y, 0), (0.05, h, w), (0.05, w + 2 * flare), (sign * flare, 0))
    if style == "wheelbarrow":
        b.rod((long * 0.6, r, -0.06), (long * 0.6, r, 0.06), r)
        for sz in (-1, 1):
            b.rod((long * 0.6, r, sz * 0.08), (-long, y + 0.25, sz * w * 0.45), 0.03)
            b.cylinder((-long * 0.4, 0, sz * w * 0.35), y, 0.03)
    elif style == "sledge":
        for sz in (-1, 1):
            line = [(-0.6, 0.0), (0.4, 0.0), (0.65, r * 0.5), (0.7, r * 1.3)]
            b.path([(long * x, up, sz * w * 0.4) for x, up in line], 0.035)
            for x in (-0.35, 0.25):
                b.cylinder((long * x, 0, sz * w * 0.4), y, 0.03)
    else:
        for x in (0.0,) if style == "hand" else (-0.35, 0.35):
            for sz in (-1, 1):
                if style in ("mine", "shopping"):
                    b.rod((long * x, r * 0.4, sz * w * 0.4), (long * x, r * 0.4, sz * w * 0.5), r * 0.4)
                    b.cylinder((long * x, r * 0.4, sz * w * 0.4), r * 0.7, 0.03)
                    continue
                b.ring((long * x, r, sz * w * 0.6), r, 0.035, (0, 0, 1))
                for c, s in around(6):
                    b.rod((long * x, r, sz * w * 0.6), (long * x + c * r, r + s * r, sz * w * 0.6), 0.02)
            b.rod((long * x, r, -w * 0.6), (long * x, r, w * 0.6), 0.035)
    if style == "covered":
        rows: list[list[Point]] = []
        for x in spaced(5, long * 1.2):
            bows = [(0.6 * c, 0.9 * s) for c, s in around(16)[:9]]
            rows.append([(x, y + h + w * s, w * c) for c, s in bows])
        b.sheet(rows)
    if style in ("hand", "covered"):
        for sz in (-1, 1):
            end = (long * d.real(1.0, 1.3), y * d.real(0.3, 1.2), sz * w * 0.3)
            b.rod((long / 2, y, sz * w * 0.35), end, 0.03)
    if style == "shopping":
        b.rod((-long * 0.6, y + h * 1.3, -w / 2), (-long * 0.6, y + h * 1.3, w / 2), 0.03)
        for sz in (-1, 1):
            b.rod((-long * 0.5, y, sz * w / 2), (-long * 0.6, y + h * 1.3, sz * w / 2), 0.025)
    if words.feature(style != "covered" and d.chance(0.4), "a load"):
        for _ in range(5):
            at = (d.real(-0.35, 0.35) * long, y + h * d.real(0.4, 1), d.real(-0.3, 0.3) * w)
            b.ball(at, w * d.real(0.15, 0.25))


@family("rowing boat")
def rowing_boat(b: Parts, d: Dice, words: Words) -> None:
    long, w, h = d.real(1.2, 2.2), d.real(0.35, 0.6), d.real(0.3, 0.5)
    words.measure(w / long, 0.22, "narrow", 0.36, "broad")
    style = d.pick(["pointed", "canoe", "flat-sterned", "raft", "inflatable"])
    words.adjectives.append({"canoe": "canoe-like"}.get(style, style))
    if style == "raft":
        for z in spaced(words.count(d.whole(4, 8), "log"), w * 3):
            b.rod((-long * d.real(0.7, 0.8), 0.1, z), (long * d.real(0.7, 0.8), 0.1, z), w * 0.2)
        for x in (-0.5, 0.5):
            b.box((long * x, 0.2, 0), (0.1, 0.06, w * 3))
        if words.feature(d.chance(0.6), "a sail"):
            b.cylinder((0, 0.1, 0), long * 1.2, 0.04)
            b.box((0.05, long * 0.5, 0), (0.03, long * 0.6, w * 2), (0.03, w * 1.6))
    elif style == "inflatable":
        for sz in (-1, 1):
            b.rod((-long * 0.6, h * 0.5, sz * w), (long * 0.6, h * 0.5, sz * w), h * 0.4)
        for sx in (-1, 1):
            b.ring((sx * long * 0.6, h * 0.5, 0), w, h * 0.4, (0, 1, 0), (-90, 90) if sx > 0 else (90, 270))
        b.box((0, h * 0.2, 0), (long * 1.3, 0.05, w * 2))
    else:
        for k in (1.0, 0.9):
            rows: list[list[Point]] = []
            for i in range(9):
                s = i / 4 - 1
                blunt = style == "flat-sterned" and s < 0
                wide = w * k * (1 - (0.35 if blunt else 1.0) * abs(s) ** 2.4)
                rise = h * (0.6 if style == "canoe" else 0.25) * s * s * (0.4 if blunt else 1)
                depth = h * (0.15 + 0.8 * abs(s) ** 4) if not blunt else h * 0.15
                low = depth + rise + (0 if k == 1 else 0.05)
                x, half, rim = long * s * k, wide * 0.6, h + rise
                line = [(rim, -wide), (low, -half), (low - 0.03, 0.0), (low, half), (rim, wide)]
                rows.append([(x, y, z) for y, z in line])
            b.sheet(rows)
        if style == "flat-sterned":
            b.box((-long, h * 0.2, 0), (0.04, h, w), (0.04, w * 1.3))
    for x in spaced(d.whole(1, 3), long) if style != "raft" else ():
        b.box((x, h * 0.75, 0), (0.18, 0.04, w * 1.7))
    if words.feature(style != "raft" and d.chance(0.7), "oars"):
        drop = d.real(-0.3, 0.5)
        for sz in (-1, 1):
            tip = (d.real(-0.4, 0.1), h - drop, sz * w * 2.6)
            b.rod((0, h * 1.2, sz * w * 0.4), tip, 0.025)
            b.box(tip, (0.14, 0.35, 0.02), (0.12, 0.02), axis=(0, -drop * 0.5, sz))


@family("hot-air balloon")
def balloon(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["round", "pear-shaped", "airship", "bunch"])
    words.adjectives.append({"bunch": "bunched", "airship": "airship-like"}.get(style, style))
    r, gap, basket = d.real(0.8, 1.2), d.real(0.4, 1.0), d.real(0.2, 0.35)
    words.measure(gap, 0.55, "low-hung", 0.85, "high-hung")
    if style == "airship":
        b.ball((0, 0, 0), (r * d.real(1.8, 2.6), r * 0.7, r * 0.7))
        for c, s in around(4, 0.785):
            at = (-r * 1.3, c * r * 0.4, s * r * 0.4)
            b.box(at, (r * 0.8, r * 0.7, 0.05), (r * 0.4, 0.03), (-r * 0.2, 0), axis=(0, c, s))
        b.box((0, -r * 0.95, 0), (r * d.real(0.8, 1.4), r * 0.3, r * 0.35), (r, r * 0.4))
        for sz in (-1, 1):
            b.rod((-r * 0.3, -r * 0.75, sz * r * 0.3), (r * 0.1, -r * 0.75, sz * r * 0.3), r * 0.1)
        return
    top = gap + basket
    if style == "bunch":
        for i in range(words.count(d.whole(3, 8), "balloon")):
            a, size = 2.4 * i, r * d.real(0.3, 0.45)
            at = (r * 0.5 * math.cos(a), top + r * d.real(0.6, 1.6), r * 0.5 * math.sin(a))
            b.ball(at, (size, size * 1.15, size))
            b.rod((0, basket, 0), at, 0.015)
    elif style == "round":
        b.ball((0, top + r, 0), (r, r * d.real(0.9, 1.1), r), low=-0.93)
    else:
        b.revolve((0, top, 0), curve(12, [r * 0.3, r * 0.75, r, r * 0.85, 0.0], r * d.real(2.0, 2.6)))
    if words.feature(style != "bunch" and d.chance(0.4), "a skirt"):
        b.cylinder((0, top - 0.1, 0), 0.25, r * 0.25, r * 0.38, caps=False)
    square = words.feature(d.chance(0.6), "a square basket", "a round basket")
    if square:
        for sign in (-1, 1):
            b.box((0, 0, sign * basket), (2 * basket, basket * 1.3, 0.05))
            b.box((sign * basket, 0, 0), (0.05, basket * 1.3, 2 * basket))
    else:
        b.cylinder((0, 0, 0), basket * 1.3, basket * 0.8, basket, caps=False)
    b.box((0, 0, 0), (1.5 * basket, 0.04, 1.5 * basket))
    for sx, sz in CORNERS:
        foot = (sx * basket * 0.75, basket, sz * basket * 0.75)
        b.rod(foot, (sx * r * 0.22, top + r * 0.1, sz * r * 0.22), 0.018)
