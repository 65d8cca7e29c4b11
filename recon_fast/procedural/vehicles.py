"""Things that drive, float and fly, x to the front. One unit is about a metre."""

import math

from recon_fast.procedural.family import Dice, Parts, Words, around, family


def wheels(b: Parts, xs: list[float], track: float, r: float, width: float) -> None:
    """A pair of wheels at each x, their axle at height r."""
    for x in xs:
        for sz in (-1, 1):
            z = sz * track / 2
            b.rod((x, r, z - sz * width / 2), (x, r, z + sz * width / 2), r)


@family("car", parts=("body", "cabin", "wheels"))
def car(b: Parts, d: Dice, words: Words) -> None:
    length, w, r = d.real(3.2, 4.8), d.real(1.5, 1.9), d.real(0.28, 0.42)
    body, cabin = d.real(0.45, 0.7), d.real(0.4, 0.6)
    words.measure(length, 3.6, "short", 4.4, "long")
    b.part("body")
    b.box((0, r * 0.7, 0), (length, body, w), top=(length * d.real(0.92, 0.99), w * 0.95))
    style = d.pick(["saloon", "hatchback", "pick-up", "convertible", "estate"])
    top = r * 0.7 + body
    b.part("cabin")
    if style == "saloon":
        b.box((-0.1, top, 0), (length * 0.55, cabin, w * 0.9), top=(length * 0.3, w * 0.75))
    elif style == "hatchback":
        b.box((-length * 0.14, top, 0), (length * 0.62, cabin, w * 0.9), (length * 0.4, w * 0.75), (-0.25, 0))
    elif style == "estate":
        b.box((-length * 0.13, top, 0), (length * 0.7, cabin, w * 0.9), (length * 0.6, w * 0.78), (-0.1, 0))
    elif style == "pick-up":
        b.box((length * 0.08, top, 0), (length * 0.3, cabin, w * 0.9), top=(length * 0.2, w * 0.78))
        b.part("body")
        for sz in (-1, 1):
            b.box((-length * 0.28, top, sz * w * 0.45), (length * 0.4, 0.25, 0.06))
    else:
        b.box((length * 0.12, top, 0), (0.06, cabin * 0.8, w * 0.8), shift=(-0.25, 0))
        for sz in (-1, 1):
            b.box((-length * 0.05, top - 0.1, sz * w * 0.22), (0.15, 0.5, 0.4), shift=(-0.12, 0))
    words.adjectives.insert(0, style)
    b.part("wheels")
    wheels(b, [-length * 0.31, length * 0.31], w * 0.95, r, 0.22)
    b.part("body")
    if words.feature(d.chance(0.25), "a spoiler"):
        b.box((-length * 0.46, top + 0.15, 0), (0.2, 0.05, w * 0.9))
    b.part("cabin")
    if words.feature(d.chance(0.2) and style in ("saloon", "estate", "hatchback"), "a roof box"):
        b.box((-0.2, top + cabin + 0.05, 0), (1.0, 0.15, w * 0.6))


@family("truck")
def truck(b: Parts, d: Dice, words: Words) -> None:
    length, w, r = d.real(5.0, 10.0), d.real(1.9, 2.5), d.real(0.4, 0.55)
    height = d.real(1.5, 2.8)
    cab = d.real(1.4, 2.2)
    words.measure(length, 6.2, "short", 8.5, "long")
    front = length / 2 - cab / 2
    b.box((front, r * 0.8, 0), (cab, d.real(1.5, 2.1), w), top=(cab * d.real(0.6, 1.0), w * 0.92))
    b.box((0, r, 0), (length, 0.2, w * 0.5))
    back, rear = length - cab - 0.2, -cab / 2 - 0.1
    style = d.pick(["box", "tank", "flat bed", "tipper"])
    if style == "box":
        b.box((rear, r + 0.25, 0), (back, height, w))
    elif style == "tank":
        b.rod((rear - back / 2, r + 0.3 + w * 0.4, 0), (rear + back / 2, r + 0.3 + w * 0.4, 0), w * 0.45)
    else:
        b.box((rear, r + 0.25, 0), (back, 0.12, w))
        wall = 0.3 if style == "flat bed" else d.real(0.7, 1.1)
        for sz in (-1, 1):
            b.box((rear, r + 0.3, sz * w / 2), (back, wall, 0.06), shift=(0, sz * 0.2))
        b.box((rear + back / 2, r + 0.3, 0), (0.06, wall, w))
    words.features.append(f"a {style}")
    axles = [front, *(-length * 0.4 + i * 2.3 * r for i in range(d.whole(1, 3)))]
    words.count(len(axles), "axle")
    wheels(b, axles, w * 0.92, r, 0.3)


@family("bus")
def bus(b: Parts, d: Dice, words: Words) -> None:
    length, w, r = d.real(6.0, 12.0), d.real(2.1, 2.6), d.real(0.4, 0.5)
    double = d.chance(0.3)
    height = d.real(3.6, 4.2) if double else d.real(2.0, 2.8)
    words.measure(length, 7.5, "short", 10.5, "long")
    if double:
        words.adjectives.insert(0, "double-decker")
    b.box((0, r * 0.8, 0), (length, height, w), top=(length * d.real(0.94, 1.0), w * 0.95))
    for level in range(2 if double else 1):
        y = r + (0.75 if double else 0.45) * height - level * height * 0.45
        count = d.whole(4, 7)
        for i in range(count):
            x = (i + 0.5) / count * length * 0.94 - length * 0.47
            for sz in (-1, 1):
                b.box((x, y, sz * w * 0.49), (length * 0.8 / count, height * 0.15, 0.06))
    axles = [-length * 0.3, length * 0.34]
    if words.feature(d.chance(0.3), "three axles"):
        axles.append(-length * 0.3 + 2.4 * r)
    wheels(b, axles, w * 0.9, r, 0.3)
    if words.feature(d.chance(0.3), "a roof unit"):
        b.box((-length * 0.1, r * 0.8 + height, 0), (length * 0.35, 0.25, w * 0.6))
    if words.feature(d.chance(0.4), "wing mirrors"):
        for sz in (-1, 1):
            root, end = (length / 2, r + height * 0.7), (length / 2 + 0.2, r + height * 0.6)
            b.rod((*root, sz * w * 0.5), (*end, sz * w * 0.62), 0.06)


@family("tractor")
def tractor(b: Parts, d: Dice, words: Words) -> None:
    r, small, w = d.real(0.65, 0.95), d.real(0.3, 0.5), d.real(0.6, 0.8)
    b.box((0.7, small * 1.3, 0), (d.real(1.4, 2.0), 0.7, w), top=(1.3, w * 0.8))
    words.measure(r / small, 1.7, "compact", 2.3, "large-wheeled")
    if words.feature(d.chance(0.65), "a cab", "an open seat"):
        b.box((-0.6, r, 0), (1.1, d.real(1.0, 1.4), w * 1.5), top=(0.9, w * 1.4))
    else:
        b.box((-0.7, r, 0), (0.5, 0.12, 0.5))
        b.box((-0.95, r, 0), (0.08, 0.55, 0.5))
    b.rod((0.9, small + 1.0, 0.1), (0.9, small + d.real(1.4, 2.0), 0.1), 0.06)
    words.features.append("an exhaust pipe")
    wheels(b, [-0.7], w * 2.1, r, 0.4)
    wheels(b, [1.25], w * 1.9, small, 0.25)


@family("aeroplane", parts=("body", "wings", "tail", "engines"))
def aeroplane(b: Parts, d: Dice, words: Words) -> None:
    length, r = d.real(6, 12), d.real(0.4, 0.8)
    span, sweep, chord = d.real(3.0, 7.0), d.real(-0.3, 2.2), d.real(0.9, 2.0)
    words.measure(span / length, 0.45, "short-winged", 0.62, "long-winged")
    b.part("body")
    b.rod((-length * 0.3, 0, 0), (length * 0.35, 0, 0), r, caps=False)
    b.ball((length * 0.35, 0, 0), (length * d.real(0.08, 0.16), r, r))
    b.rod((-length * 0.3, 0, 0), (-length * 0.5, r * 0.4, 0), r, r * 0.2)
    y = d.pick([-0.5, 0.0, 0.9]) * r
    words.features.append({-0.5: "low wings", 0.0: "middle wings", 0.9: "high wings"}[round(y / r, 1)])
    decks = 2 if words.feature(d.chance(0.12), "two decks of wings") else 1
    tip = (chord * d.real(0.35, 0.9), 0.06)
    b.part("wings")
    for deck in range(decks):
        for sz in (-1, 1):
            b.box((0.2, y + deck * r * 2.2, 0), (chord, span, 0.14), tip, (-sweep, 0), axis=(0, 0.06, sz))
    if sweep > 1.2:
        words.adjectives.append("swept-wing")
    b.part("tail")
    tail = length * -0.46
    high = words.feature(d.chance(0.35), "a T-tail")
    fin = length * d.real(0.12, 0.18)
    b.box((tail, r * 0.4, 0), (chord * 0.7, fin, 0.12), (chord * 0.4, 0.06), (-fin * 0.5, 0))
    for sz in (-1, 1):
        root = (tail - fin * 0.5, fin + r * 0.3, 0.0) if high else (tail, r * 0.4, 0.0)
        end = (chord * 0.35, 0.05)
        b.box(root, (chord * 0.6, span * 0.35, 0.1), end, (-sweep * 0.3, 0), axis=(0, 0, sz))
    b.part("engines")
    engine = d.pick(["propeller", "two jets", "four jets", "rear jets"])
    words.features.append({"propeller": "a propeller"}.get(engine, engine))
    if engine == "propeller":
        for sy in (-1, 1):
            b.box((length * 0.48, 0, 0), (0.05, r * 2, 0.2), axis=(0, sy, 0.001))
    elif engine == "rear jets":
        for sz in (-1, 1):
            b.rod((tail + 0.4, r * 0.6, sz * r * 1.4), (tail + 2.0, r * 0.6, sz * r * 1.4), 0.3)
    else:
        for i in range(1 if engine == "two jets" else 2):
            for sz in (-1, 1):
                z = sz * span * (0.33 + 0.28 * i)
                x = 0.5 - sweep * abs(z) / span
                b.rod((x - 0.6, y - 0.35, z), (x + 0.8, y - 0.35, z), 0.26, 0.3)


@family("helicopter")
def helicopter(b: Parts, d: Dice, words: Words) -> None:
    r, tail = d.real(0.7, 1.1), d.real(2.0, 3.8)
    words.measure(tail, 2.5, "short-tailed", 3.2, "long-tailed")
    b.ball((0, 0, 0), (r * d.real(1.2, 1.8), r, r * 0.85))
    b.rod((-r, r * 0.3, 0), (-r - tail, r * 0.5, 0), r * 0.3, 0.08)
    b.box((-r - tail, r * 0.5, 0), (0.4, 0.8, 0.08), (0.2, 0.05), (-0.2, 0))
    b.cylinder((0, r * 0.9, 0), 0.5, 0.1)
    blades, span = words.count(d.whole(2, 5), "blade"), d.real(2.2, 3.6)
    for c, s in around(blades, d.real(0, 1.5)):
        b.box((0, r + 0.4, 0), (0.22, span, 0.22), (0.16, 0.04), axis=(c, 0, s))
    if words.feature(d.chance(), "skids", "wheels"):
        for sz in (-1, 1):
            b.rod((-r, -r * 1.35, sz * r * 0.8), (r * 1.2, -r * 1.35, sz * r * 0.8), 0.06)
            for x in (-0.5, 0.5):
                b.rod((x * r, -r * 1.35, sz * r * 0.8), (x * r, -r * 0.6, sz * r * 0.4), 0.05)
    else:
        for x, z in ((r * 0.8, 0.0), (-r * 0.6, r * 0.8), (-r * 0.6, -r * 0.8)):
            b.rod((x, -r * 1.2, z - 0.1), (x, -r * 1.2, z + 0.1), 0.25)
            b.rod((x, -r * 1.2, z), (x, -r * 0.5, z * 0.6), 0.06)


@family("rocket")
def rocket(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(2.5, 5.0), d.real(0.25, 0.5)
    words.measure(r / h, 0.08, "slim", 0.14, "stout")
    waist = d.real(0.7, 1.0)
    b.cylinder((0, 0, 0), h * 0.6, r, r * waist)
    b.cylinder((0, h * 0.6, 0), h * 0.15, r * waist, r * waist * d.real(0.7, 1.0), caps=False)
    b.cylinder((0, h * 0.75, 0), h * d.real(0.15, 0.35), r * waist * 0.85, 0.02)
    b.cylinder((0, -0.25, 0), 0.25, r * 0.8, r * 0.5, caps=False)
    fins = words.count(d.whole(3, 5), "fin")
    reach = r * d.real(0.8, 2.0)
    for c, s in around(fins):
        root, out = r * 0.8, (c, -d.real(0.2, 0.9), s)
        b.box((root * c, h * 0.1, root * s), (0.06, reach, 0.06), (0.04, 0.04), axis=out)
        b.box((r * c, 0, r * s), (0.05, h * 0.2, 0.05))
    if words.feature(d.chance(0.4), "two boosters"):
        for sz in (-1, 1):
            b.cylinder((0, 0, sz * r * 1.5), h * 0.5, r * 0.5)
            b.cylinder((0, h * 0.5, sz * r * 1.5), h * 0.1, r * 0.5, 0.02)


@family("ship")
def ship(b: Parts, d: Dice, words: Words) -> None:
    length, w, h = d.real(5, 10), d.real(1.2, 2.2), d.real(0.6, 1.3)
    words.measure(w / length, 0.19, "slender", 0.29, "broad")
    b.box((-length * 0.1, 0, 0), (length * 0.7, h, w * 0.7), (length * 0.8, w))
    bow, top = (h, length * 0.25, w * 0.65), (h * 0.9, 0.1)
    b.box((length * 0.25, 0, 0), bow, top, (-h * 0.3, 0), axis=(1, 0.05, 0))
    style = d.pick(["sails", "funnels", "containers"])
    if style == "sails":
        masts = words.count(d.whole(1, 3), "sail")
        for i in range(masts):
            x = (i + 0.5) / masts * length * 0.7 - length * 0.4
            tall = d.real(2.5, 4.5)
            b.cylinder((x, h, 0), tall, 0.07)
            b.box((x, h + 0.4, 0), (0.05, tall * 0.75, w * 1.5), top=(0.05, w * d.real(0.05, 1.2)))
    else:
        x, house = (-length * 0.3, length * 0.2) if style == "containers" else (-length * 0.05, length * 0.45)
        for i in range(d.whole(1, 3)):
            b.box((x, h + i * 0.6, 0), (house * 0.85**i, 0.6, w * 0.75 * 0.9**i))
        if style == "funnels":
            funnels = words.count(d.whole(1, 3), "funnel")
            for i in range(funnels):
                foot = x + (i - (funnels - 1) / 2) * 0.9
                b.rod((foot, h + 0.6, 0), (foot - 0.2, h + 2.4, 0), 0.25)
        else:
            for i in range(d.whole(2, 4)):
                b.box((-length * 0.08 + i * length * 0.13, h, 0), (length * 0.11, d.real(0.4, 1.3), w * 0.8))
            words.features.append("stacked containers")


@family("bicycle")
def bicycle(b: Parts, d: Dice, words: Words) -> None:
    r, base = d.real(0.28, 0.38), d.real(0.9, 1.15)
    tube = d.real(0.015, 0.035)
    words.measure(tube, 0.02, "light", 0.03, "sturdy")
    for x in (0.0, base):
        b.ring((x, r, 0), r, tube * 0.9, axis=(0, 0, 1))
        for i in range(6):
            a = math.pi * i / 6
            c, s = r * math.cos(a), r * math.sin(a)
            b.rod((x - c, r - s, 0), (x + c, r + s, 0), 0.005)
    crank, saddle, head = (base * 0.45, r * 0.9, 0.0), (base * 0.3, r * 2.5, 0.0), (base * 0.85, r * 2.5, 0.0)
    step = d.chance(0.35)
    b.rod(crank, saddle, tube)
    b.rod(crank, head, tube)
    if words.feature(not step, "a top tube", "a low frame"):
        b.rod((base * 0.32, r * 2.3, 0), (base * 0.86, r * 2.3, 0), tube)
    b.rod(head, (base, r, 0), tube)
    b.rod((0, r, 0), crank, tube * 0.8)
    b.rod((0, r, 0), saddle, tube * 0.6)
    b.box((saddle[0] - 0.02, saddle[1], 0), (0.24, 0.05, 0.13), top=(0.2, 0.08))
    bar = d.real(0.2, 0.32)
    b.rod((head[0], head[1] + 0.08, -bar), (head[0], head[1] + 0.08, bar), tube * 0.8)
    if words.feature(d.chance(0.3), "a basket"):
        b.box((base + 0.02, r * 2.1, 0), (0.2, 0.2, 0.28), top=(0.26, 0.34))
