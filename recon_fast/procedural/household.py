"""What rooms, kitchens and bathrooms are filled with. One unit is about a metre."""

import math

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, curve, family, spaced
from recon_fast.procedural.vessels import hollow


def tray(b: Parts, w: float, h: float, depth: float, t: float, flare: float = 0.0) -> None:
    """Four walls and a floor, open at the top; its walls lean out by `flare`."""
    b.box((0, 0, 0), (w, t, depth))
    for sign in (-1, 1):
        b.box((0, 0, sign * (depth - t) / 2), (w, h, t), (w + 2 * flare, t), (0, sign * flare))
        b.box((sign * (w - t) / 2, 0, 0), (t, h, depth), (t, depth + 2 * flare), (sign * flare, 0))


@family("crate")
def crate(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth, t = d.real(0.5, 1.2), d.real(0.4, 1.0), d.real(0.5, 1.0), d.real(0.03, 0.09)
    words.measure(h / w, 0.6, "flat", 1.2, "tall")
    style = d.pick(["framed", "crossed", "slatted", "metal", "pallet"])
    words.adjectives.append(style)
    if style == "pallet":
        for y in (0.0, 0.15):
            for x in spaced(words.count(d.whole(4, 7), "plank"), w * 1.4):
                b.box((x, y, 0), (w * 0.15, 0.04, depth * 1.4))
        for z in spaced(3, depth * 1.4):
            b.box((0, 0.04, z), (w * 1.4, 0.11, 0.1))
    elif style == "slatted":
        b.box((0, 0, 0), (w, t * 0.5, depth))
        slats = words.count(d.whole(2, 5), "slat")
        for y in spaced(slats, h):
            for sign in (-1, 1):
                b.box((0, y + h / 2 - h * 0.3 / slats, sign * depth / 2), (w, h * 0.6 / slats, t * 0.5))
                b.box((sign * w / 2, y + h / 2 - h * 0.3 / slats, 0), (t * 0.5, h * 0.6 / slats, depth))
        for sx, sz in CORNERS:
            b.box((sx * (w - t) / 2, 0, sz * (depth - t) / 2), (t, h, t))
    else:
        b.box((0, t * 0.5, 0), (w, h - t, depth))
        for sx, sz in CORNERS:
            b.box((sx * w / 2, 0, sz * depth / 2), (t, h, t))
        for y in (0.0, h - t):
            for sign in (-1, 1):
                b.box((0, y, sign * depth / 2), (w, t, t))
                b.box((sign * w / 2, y, 0), (t, t, depth))
        for sign in (-1, 1) if style == "crossed" else ():
            b.rod((-w / 2, t, sign * depth / 2), (w / 2, h - t, sign * depth / 2), t * 0.5)
            b.rod((sign * w / 2, t, -depth / 2), (sign * w / 2, h - t, depth / 2), t * 0.5)
        for x in spaced(6, w * 0.9) if style == "metal" else ():
            b.box((x, t, 0), (w * 0.06, h - 2 * t, depth * 1.05))


@family("cardboard box")
def cardboard_box(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth, t = d.real(0.4, 1.0), d.real(0.2, 0.8), d.real(0.3, 0.8), 0.015
    words.measure(h / w, 0.5, "flat", 1.0, "tall")
    if words.feature(d.chance(0.7), "open flaps", "a closed lid"):
        tray(b, w, h, depth, t)
        for sign in (-1, 1):
            lift = d.real(-0.8, 1.2)
            b.box((0, h, sign * depth / 2), (w, depth * 0.45, t), axis=(0, lift, sign))
            b.box((sign * w / 2, h, 0), (t, w * 0.4, depth), axis=(sign, d.real(-0.8, 1.2), 0))
    else:
        b.box((0, 0, 0), (w, h, depth))
        b.box((0, h, 0), (w * 1.005, 0.006, depth * 0.12))
        b.box((0, h * 0.85, 0), (w * 1.03, h * 0.15, depth * 1.03))
        if words.feature(d.chance(0.4), "a ribbon"):
            b.box((0, 0, 0), (w * 0.1, h * 1.02, depth * 1.04))
            for sx in (-1, 1):
                b.ring((sx * w * 0.12, h * 1.1, 0), w * 0.12, 0.015, (0, 0, 1))


@family("chest")
def chest(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth = d.real(0.6, 1.1), d.real(0.25, 0.5), d.real(0.35, 0.6)
    words.measure(h / w, 0.38, "low", 0.55, "deep")
    is_round, swing = d.chance(0.65), d.real(0.5, 1.6) if d.chance(0.4) else 0.0
    words.feature(is_round, "a rounded lid", "a flat lid")
    if words.feature(swing, "its lid open"):
        tray(b, w, h, depth, 0.04)
        up: Point = (0.0, math.sin(swing), math.cos(swing))
        for i in range(4 if is_round else 1):
            k = depth * (0.25 if is_round else 1.0)
            lift = depth * 0.12 * math.sin(math.pi * (i + 0.5) / 4) if is_round else 0.0
            at = (0.0, h + up[1] * k * i + lift * up[2], -depth / 2 + up[2] * k * i - lift * up[1])
            b.box(at, (w, k, 0.05), axis=up)
        for _ in range(6 if words.feature(d.chance(0.4), "treasure inside") else 0):
            b.ball((d.real(-0.4, 0.4) * w, h * 0.9, d.real(-0.35, 0.35) * depth), d.real(0.05, 0.09))
    else:
        b.box((0, 0, 0), (w, h, depth))
        if is_round:
            b.rod((-w / 2, h, 0), (w / 2, h, 0), depth * 0.5)
        else:
            b.box((0, h, 0), (w * 1.04, 0.1, depth * 1.06), (w, depth))
    for x in spaced(words.count(d.whole(2, 3), "band"), w):
        b.box((x, 0, 0), (0.05, h, depth * 1.06))
        if is_round and not swing:
            b.rod((x - 0.025, h, 0), (x + 0.025, h, 0), depth * 0.54)
    b.box((0, h * 0.7, depth / 2), (0.1, 0.14, 0.08))


@family("monitor")
def monitor(b: Parts, d: Dice, words: Words) -> None:
    w, foot = d.real(0.5, 1.4), d.real(0.08, 0.3)
    h, t = w * d.real(0.5, 0.75), d.real(0.02, 0.06)
    words.measure(w, 0.75, "small", 1.1, "large")
    style = d.pick(["flat", "flat", "curved", "box-shaped", "antenna"])
    words.adjectives.append({"antenna": "old"}.get(style, style))
    if style in ("box-shaped", "antenna"):
        w, h = w * 0.7, w * 0.55
        b.box((0, foot, 0), (w, h, w * 0.3))
        b.box((0, foot + h / 2, -w * 0.15), (w * 0.9, w * 0.35, h * 0.9), (w * 0.5, h * 0.5), axis=(0, 0, -1))
        b.box((0, foot + h * 0.12, w * 0.15), (w * 0.8, h * 0.76, 0.02), (w * 0.78, 0.02))
        for sx in (-1, 1) if style == "antenna" else ():
            b.rod((0, foot + h, 0), (sx * w * d.real(0.3, 0.5), foot + h * d.real(1.5, 1.9), 0), 0.012)
    else:
        bow = d.real(0.08, 0.2) if style == "curved" else 0.0
        for x in spaced(4, w) if bow else (0.0,):
            k = (2 * x / w) ** 2 * bow * w
            b.box((x, foot, k), (w * (0.26 if bow else 1), h, t))
        b.box((0, foot + h * 0.25, -0.04), (w * 0.5, h * 0.5, 0.06))
        for y in (foot, foot + h - 0.02) if not bow else ():
            b.box((0, y, t * 0.5), (w * 1.01, 0.02, t))
    base = d.pick(["a round foot", "a square foot", "two feet", "a keyboard before it"])
    words.features.append(base)
    if base == "two feet":
        for sx in (-1, 1):
            b.rod((sx * w * 0.35, foot, 0), (sx * w * 0.4, 0, 0.12), 0.015)
            b.rod((sx * w * 0.35, foot, 0), (sx * w * 0.4, 0, -0.12), 0.015)
        return
    b.box((0, 0, -0.03), (w * 0.12, foot + h * 0.2, 0.04))
    if base == "a round foot":
        b.cylinder((0, 0, 0), 0.02, w * d.real(0.16, 0.28))
    else:
        b.box((0, 0, 0), (w * d.real(0.3, 0.5), 0.02, 0.22))
    if base == "a keyboard before it":
        b.box((0, 0, 0.3), (w * 0.8, 0.03, 0.18))
        for z in spaced(4, 0.16):
            b.box((0, 0.03, 0.3 + z), (w * 0.74, 0.015, 0.03))


@family("laptop")
def laptop(b: Parts, d: Dice, words: Words) -> None:
    w, depth, t, open_by = d.real(0.6, 0.9), d.real(0.4, 0.6), d.real(0.015, 0.05), d.real(0.3, 2.3)
    words.measure(t, 0.025, "thin", 0.04, "thick")
    words.measure(open_by, 0.8, "half-closed", 1.7, "wide open")
    axis = (0.0, math.sin(open_by), math.cos(open_by))
    b.box((0, 0, 0), (w, t, depth))
    hinge = (0.0, t * 1.2, -depth / 2)
    b.box(hinge, (w, depth, t * 0.5), axis=axis)
    y, z = hinge[1] + axis[1] * depth * 0.06, hinge[2] + axis[2] * depth * 0.06
    b.box((0, y, z), (w * 0.9, depth * 0.85, t * 0.7), axis=axis)
    b.rod((-w * 0.4, t, -depth / 2), (w * 0.4, t, -depth / 2), t * 0.5)
    rows = words.count(d.whole(3, 5), "key row")
    for z in spaced(rows, depth * 0.5):
        for x in spaced(8, w * 0.85):
            b.box((x, t, z - depth * 0.12), (w * 0.085, 0.008, depth * 0.4 / rows))
    if words.feature(d.chance(0.7), "a touchpad"):
        b.box((0, t, depth * 0.34), (w * 0.25, 0.006, depth * 0.2))
    if words.feature(d.chance(0.2), "a mouse"):
        b.ball((w * 0.7, 0, depth * 0.2), (0.05, 0.04, 0.08), low=0)


@family("toilet")
def toilet(b: Parts, d: Dice, words: Words) -> None:
    r, h, tall = d.real(0.18, 0.25), d.real(0.35, 0.48), d.real(0.25, 0.5)
    words.measure(tall, 0.32, "low-tanked", 0.43, "high-tanked")
    long = r * d.real(1.0, 1.4)
    b.box((0, 0, -r * 0.2), (r * d.real(1.0, 1.4), h * 0.6, long * 1.6), (r * 0.9, long * 1.3))
    for low, k, y in ((-1.0, 1.0, 1.0), (-0.9, 0.8, 1.02)):
        b.ball((0, h * y, long * 0.3), (r * k, h * 0.6 * k, long * 1.2 * k), low=low, high=0)
    b.ring((0, h * 1.03, long * 0.3), r * 0.85, r * 0.16)
    if d.chance(0.8):
        b.box((0, h * 0.9, -long * 1.1), (r * 2, tall, r * 0.9), (r * 2.2, r))
        b.box((0, h * 0.9 + tall, -long * 1.1), (r * 2.35, 0.04, r * 1.1))
    else:
        b.box((0, 0, -long * 1.2), (r * 2.6, h + tall * 1.6, r * 0.5))
        words.features.append("a hidden tank")
    if words.feature(d.chance(0.5), "a raised lid", "a lowered lid"):
        b.ball((0, h + long * 1.1, -long * 0.65), (r, long * 1.15, 0.03))
    else:
        b.ball((0, h * 1.08, long * 0.3), (r * 1.02, 0.04, long * 1.25))


@family("bathtub")
def bathtub(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth = d.real(1.3, 1.9), d.real(0.4, 0.6), d.real(0.6, 0.8)
    words.measure(w, 1.45, "short", 1.75, "long")
    style = d.pick(["boxed", "free-standing", "claw-footed", "round"])
    words.adjectives.append(style)
    if style == "boxed":
        tray(b, w, h, depth, 0.08)
        b.ball((0, h, 0), (w * 0.46, h * 0.85, depth * 0.42), high=0)
    elif style == "round":
        hollow(b, [(depth * 0.7, 0), (depth * 0.9, h * 0.5), (depth, h)], 0.1)
        b.ring((0, h, 0), depth * 0.95, 0.05)
    else:
        for k in (1.0, 0.9):
            b.ball((0, h, 0), (w / 2 * k, h * 0.9 * k, depth / 2 * k), high=0.0)
        slant = d.real(0, 0.2)
        for sx in (-1, 1):
            b.ball((sx * w * 0.4, h + slant * 0.5, 0), (w * 0.1, 0.05 + slant, depth * 0.3))
        for sx, sz in CORNERS if style == "claw-footed" else ():
            b.rod(
                (sx * w * 0.25, h * 0.4, sz * depth * 0.25), (sx * w * 0.33, 0, sz * depth * 0.33), 0.05, 0.03
            )
            b.ball((sx * w * 0.33, 0.03, sz * depth * 0.33), 0.045)
        if style == "free-standing":
            b.box((0, 0, 0), (w * 0.6, h * 0.3, depth * 0.6))
    if words.feature(d.chance(0.7), "a tap"):
        x = -w * 0.48
        b.path([(x, h, 0), (x, h + 0.2, 0), (x + 0.15, h + 0.2, 0), (x + 0.15, h + 0.12, 0)], 0.025)
    if words.feature(d.chance(0.25), "a shower pole"):
        b.rod((w * 0.48, h * 0.5, 0), (w * 0.48, h + 1.2, 0), 0.02)
        b.cylinder((w * 0.38, h + 1.15, 0), 0.05, 0.12, 0.03)


@family("sink")
def sink(b: Parts, d: Dice, words: Words) -> None:
    w, depth, h = d.real(0.5, 1.2), d.real(0.4, 0.6), d.real(0.7, 0.95)
    style = d.pick(["pedestal", "wall", "cabinet", "bowl", "double"])
    words.adjectives.append({"wall": "hanging", "bowl": "bowl-shaped"}.get(style, style))
    words.measure(w, 0.65, "narrow", 0.95, "wide")
    basins = spaced(2, w) if style == "double" else [0.0]
    if style in ("cabinet", "double", "bowl"):
        b.box((0, 0, 0), (w, h - 0.05, depth))
        for x in spaced(d.whole(1, 3), w):
            b.box((x, 0.1, depth / 2), (w * 0.28, h * 0.7, 0.03))
        b.box((0, h - 0.05, 0), (w * 1.04, 0.05, depth * 1.05))
    else:
        if style == "pedestal":
            b.revolve((0, 0, 0), curve(6, [0.14, 0.08, 0.12], h - 0.1))
        b.box((0, h - 0.2, -depth * 0.1), (w * 0.6, 0.2, depth * 0.6), (w, depth * 0.9))
    r = min(depth * 0.42, w * 0.42 / len(basins))
    for x in basins:
        y = h + r * 0.5 if style == "bowl" else h + 0.02
        for k in (1.0, 0.9):
            b.ball((x, y, 0), (r * k, r * (0.5 if style == "bowl" else 0.15) * k, r * 0.9 * k), high=0)
        b.ring((x, y, 0), r, 0.02)
    tall, z = d.real(0.1, 0.4), -depth * 0.42
    b.path([(0, h, z), (0, h + tall, z), (0, h + tall * 1.1, z * 0.6), (0, h + tall, z * 0.2)], 0.02)
    if words.feature(d.chance(0.6), "two handles"):
        for sx in (-1, 1):
            b.cylinder((sx * 0.12, h, z), 0.07, 0.025)
    if words.feature(d.chance(0.25), "a mirror above"):
        b.box((0, h, z - 0.03), (w * 0.8, d.real(0.7, 1.1), 0.03))


@family("appliance")
def appliance(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["fridge", "stove", "washer", "microwave", "vending", "air-conditioning"])
    words.adjectives.append(f"{style}-like")
    h = {"fridge": d.real(1.3, 2.0), "vending": 1.8, "microwave": 0.35, "air-conditioning": 0.4}.get(
        style, 0.85
    )
    w, depth = d.real(0.55, 0.9), d.real(0.4, 0.7)
    words.measure(w, 0.63, "narrow", 0.82, "wide")
    z = depth / 2
    b.box((0, 0.04, 0), (w, h, depth))
    b.box((0, 0, 0), (w * 0.9, 0.04, depth * 0.85))
    if style == "fridge":
        split = d.real(0.3, 0.7) * h
        for y, tall in ((0.08, split - 0.08), (split + 0.03, h - split - 0.03)):
            b.box((0, y, z), (w * 0.97, tall, 0.06))
            b.rod((w * 0.38, y + tall * 0.3, z + 0.1), (w * 0.38, y + tall * 0.8, z + 0.1), 0.018)
    elif style == "stove":
        for sx, sz in CORNERS:
            b.ring((sx * w * 0.24, h + 0.05, sz * depth * 0.24), w * d.real(0.12, 0.18), 0.02)
        b.box((0, h * 0.15, z), (w * 0.85, h * 0.5, 0.05))
        b.rod((-w * 0.35, h * 0.72, z + 0.08), (w * 0.35, h * 0.72, z + 0.08), 0.018)
        for x in spaced(words.count(d.whole(3, 5), "knob"), w * 0.9):
            b.rod((x, h * 0.88, z), (x, h * 0.88, z + 0.05), 0.035)
        if words.feature(d.chance(), "a splashback"):
            b.box((0, h, -z), (w, d.real(0.15, 0.3), 0.05))
    elif style == "washer":
        r = w * d.real(0.25, 0.36)
        b.ring((0, h * 0.48, z), r, 0.04, (0, 0, 1))
        b.ball((0, h * 0.48, z), (r, r, 0.06))
        b.box((0, h * 0.86, z), (w * 0.9, h * 0.12, 0.03))
        b.rod((w * 0.3, h * 0.92, z), (w * 0.3, h * 0.92, z + 0.06), 0.05)
    elif style == "microwave":
        b.box((-w * 0.12, 0.08, z), (w * 0.7, h * 0.85, 0.03))
        b.rod((w * 0.25, 0.1, z + 0.05), (w * 0.25, h * 0.9, z + 0.05), 0.012)
        for y in spaced(words.count(d.whole(2, 5), "button"), h * 0.7):
            b.rod((w * 0.4, y + h * 0.55, z), (w * 0.4, y + h * 0.55, z + 0.03), 0.025)
    elif style == "vending":
        b.box((-w * 0.12, h * 0.35, z), (w * 0.65, h * 0.6, 0.03))
        for y in spaced(words.count(d.whole(3, 5), "row"), h * 0.55):
            for x in spaced(4, w * 0.6):
                b.cylinder((x - w * 0.12, y + h * 0.62, z + 0.03), 0.12, 0.03)
        b.box((0, h * 0.12, z), (w * 0.7, h * 0.12, 0.05))
    else:
        b.ring((-w * 0.15, h * 0.55, z), h * 0.38, 0.015, (0, 0, 1))
        for c, s in around(words.count(d.whole(3, 5), "fan blade")):
            b.box((-w * 0.15, h * 0.55, z), (0.06, h * 0.34, 0.02), axis=(c, s, 0))
        for y in spaced(5, h * 0.8):
            b.box((w * 0.36, y + h * 0.55, z), (w * 0.2, 0.02, 0.03))
