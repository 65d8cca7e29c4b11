"""Things that stand on the ground and are entered or climbed. One unit is about three metres."""

from itertools import pairwise

from recon_fast.procedural.family import Dice, Parts, Words, around, family, spaced


def windows(b: Parts, d: Dice, w: float, h: float, depth: float) -> None:
    """Rows of panes on the front and back."""
    columns, rows = d.whole(2, 4), max(1, round(h / 0.8))
    for row in range(rows):
        for x in spaced(columns, w):
            for sz in (-1, 1):
                at = (x, (row + 0.4) / rows * h, sz * depth / 2)
                b.box(at, (w / columns * 0.4, h / rows * 0.4, 0.05))


@family("house")
def house(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth = d.real(1.2, 2.4), d.real(0.7, 1.8), d.real(1.0, 1.8)
    words.measure(h, 0.95, "low", 1.4, "tall")
    b.box((0, 0, 0), (w, h, depth))
    windows(b, d, w, h, depth)
    roof = d.pick(["gabled", "hipped", "flat", "lean-to"])
    rise = d.real(0.4, 1.0)
    if roof == "gabled":
        b.box((0, h, 0), (w * 1.1, rise, depth * 1.15), top=(w * 1.1, 0))
    elif roof == "hipped":
        b.box((0, h, 0), (w * 1.12, rise, depth * 1.12), top=(w * 0.5, 0.05))
    elif roof == "flat":
        b.box((0, h, 0), (w * 1.08, 0.12, depth * 1.08))
    else:
        b.box((0, h, 0), (w * 1.1, rise, depth * 1.1), (w * 1.1, 0), (0, -depth * 0.55))
    words.features.append(f"a {roof} roof")
    if words.feature(d.chance() and roof != "flat", "a chimney"):
        b.box((w * 0.3, h + rise * 0.3, 0), (0.18, rise, 0.18))
    if words.feature(d.chance(0.3), "an annex"):
        b.box((w * 0.75, 0, 0), (w * 0.5, h * 0.6, depth * 0.7))


@family("church")
def church(b: Parts, d: Dice, words: Words) -> None:
    length, w, h = d.real(2.0, 3.4), d.real(0.9, 1.4), d.real(0.8, 1.4)
    words.measure(length, 2.4, "short", 3.0, "long")
    b.box((0, 0, 0), (length, h, w))
    b.box((0, h, 0), (length, d.real(0.4, 0.8), w * 1.1), top=(length, 0))
    tower, side = d.real(1.6, 2.8), d.real(0.5, 0.8)
    x = length / 2 if d.chance(0.7) else 0.0
    b.box((x, 0, 0), (side, tower, side))
    spire = d.pick(["pointed spire", "dome", "flat top"])
    if spire == "pointed spire":
        b.box((x, tower, 0), (side * 1.1, d.real(0.8, 1.6), side * 1.1), top=(0, 0))
    elif spire == "dome":
        b.ball((x, tower, 0), side * 0.55, low=0)
    words.features.append(f"a {spire}")
    if words.feature(d.chance(0.35), "a transept"):
        b.box((-length * 0.15, 0, 0), (w, h, w * 2.2))
        b.box((-length * 0.15, h, 0), (w * 1.1, 0.5, w * 2.2), top=(0, w * 2.2))
    if words.feature(d.chance(0.4), "an apse"):
        b.cylinder((-length / 2, 0, 0), h, w * 0.45)


@family("castle")
def castle(b: Parts, d: Dice, words: Words) -> None:
    w, h, r = d.real(1.8, 3.0), d.real(0.7, 1.2), d.real(0.25, 0.45)
    words.measure(h / w, 0.34, "wide", 0.48, "high-walled")
    tall, pointed = h * d.real(1.2, 1.9), d.chance()
    for sx, sz in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        b.cylinder((sx * w / 2, 0, sz * w / 2), tall, r)
        if pointed:
            b.cylinder((sx * w / 2, tall, sz * w / 2), r * 2, r * 1.2, 0.0)
        else:
            for c, s in around(5):
                b.box((sx * w / 2 + r * c, tall, sz * w / 2 + r * s), (0.14, 0.16, 0.14))
    words.feature(pointed, "pointed towers", "battlements")
    for sign in (-1, 1):
        b.box((0, 0, sign * w / 2), (w, h, 0.15))
        b.box((sign * w / 2, 0, 0), (0.15, h, w))
    if words.feature(d.chance(0.6), "a keep"):
        b.box((0, 0, 0), (w * 0.35, h * d.real(1.3, 2.2), w * 0.35))
    if words.feature(d.chance(0.5), "a gatehouse"):
        b.box((0, 0, w / 2), (w * 0.28, h * 1.2, 0.45))


@family("skyscraper")
def skyscraper(b: Parts, d: Dice, words: Words) -> None:
    w, depth, h = d.real(0.6, 1.2), d.real(0.6, 1.2), d.real(2.5, 5.0)
    words.measure(h / max(w, depth), 2.8, "broad", 4.5, "slender")
    steps = d.whole(1, 4)
    y = 0.0
    for i in range(steps):
        rise, k = h / steps * d.real(0.7, 1.3), 0.82**i
        b.box((0, y, 0), (w * k, rise, depth * k))
        for j in range(3):
            b.box((0, y + rise * (j + 0.5) / 3, 0), (w * k * 1.04, 0.06, depth * k * 1.04))
        y += rise
    if steps > 1:
        words.count(steps, "setback")
    if words.feature(d.chance(), "an antenna"):
        b.cylinder((0, y, 0), d.real(0.4, 1.0), 0.05, 0.01)
    if words.feature(d.chance(0.4), "a plinth"):
        b.box((0, 0, 0), (w * 1.7, 0.5, depth * 1.7))


@family("lighthouse")
def lighthouse(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(2.0, 4.0), d.real(0.4, 0.7)
    words.measure(r / h, 0.15, "slender", 0.24, "stout")
    top = r * d.real(0.5, 0.85)
    b.cylinder((0, 0, 0), h, r, top)
    b.cylinder((0, h, 0), 0.1, top * 1.4)
    b.ring((0, h + 0.35, 0), top * 1.3, 0.03)
    words.features.append("a gallery")
    b.cylinder((0, h + 0.1, 0), 0.5, top * 0.7)
    if words.feature(d.chance(), "a dome", "a pointed roof"):
        b.ball((0, h + 0.6, 0), top * 0.75, low=0)
    else:
        b.cylinder((0, h + 0.6, 0), 0.5, top * 0.9, 0.0)
    if words.feature(d.chance(0.5), "a keeper's hut"):
        b.box((r * 1.4, 0, 0), (1.0, 0.5, 0.7))
        b.box((r * 1.4, 0.5, 0), (1.05, 0.35, 0.75), top=(1.05, 0))


@family("windmill")
def windmill(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(1.8, 3.6), d.real(0.3, 0.8)
    slim = r < 0.45
    words.adjectives.append("slim" if slim else "broad")
    b.cylinder((0, 0, 0), h, r * 0.4 if slim else r, r * (0.25 if slim else 0.65))
    if words.feature(not slim, "a rounded cap"):
        b.ball((0, h, 0), r * 0.7, low=0)
    else:
        b.box((0, h, 0), (0.35, 0.3, 0.8))
    blades, reach = (3, d.real(1.0, 1.9)) if slim else (d.pick([4, 4, 6]), d.real(1.0, 1.7))
    turn, hub = d.real(0, 1.5), 0.5 if slim else r * 0.8
    for c, s in around(blades, turn):
        if slim:
            b.box((0, h + 0.15, hub), (0.16, reach, 0.16), (0.05, 0.03), axis=(c, s, 0.0))
        else:
            b.rod((0, h, hub), (c * reach, h + s * reach, hub), 0.03)
            b.box((c * 0.3, h + s * 0.3, hub), (0.3, reach * 0.75, 0.04), axis=(c, s, 0.0))
    words.count(blades, "sail")


@family("bridge")
def bridge(b: Parts, d: Dice, words: Words) -> None:
    length, w = d.real(3.0, 6.0), d.real(0.6, 1.1)
    deck = d.real(0.6, 1.2)
    words.measure(length, 3.8, "short", 5.2, "long")
    b.box((0, deck, 0), (length, 0.12, w))
    style = d.pick(["arch", "suspension", "beam", "truss"])
    words.adjectives.insert(0, style)
    if style == "arch":
        for sz in (-1, 1):
            b.ring((0, deck - length * 0.45, sz * w * 0.45), length * 0.5, 0.08, (0, 0, 1), (-155, -25))
    elif style == "beam":
        for i in range(d.whole(2, 4)):
            b.box((-length * 0.3 + i * length * 0.2, 0, 0), (0.2, deck, w * 0.8))
    for sz in (-1, 1):
        z = sz * w * 0.48
        if style == "suspension":
            for x in (-length * 0.25, length * 0.25):
                b.box((x, 0, z), (0.14, deck + 1.3, 0.14))
            cable = [(-0.5, 0.0), (-0.25, 1.25), (0.0, 0.25), (0.25, 1.25), (0.5, 0.0)]
            for (x0, y0), (x1, y1) in pairwise(cable):
                b.rod((x0 * length, deck + y0, z), (x1 * length, deck + y1, z), 0.03)
            for i in range(8):
                x = -length * 0.22 + i * length * 0.44 / 7
                b.rod((x, deck, z), (x, deck + 0.25 + abs(x) / length * 4, z), 0.012)
        elif style == "truss":
            b.box((0, deck + 0.7, z), (length * 0.9, 0.08, 0.08))
            for i in range(6):
                x0, x1 = (i / 6 - 0.5) * length * 0.9, ((i + 1) / 6 - 0.5) * length * 0.9
                b.rod((x0, deck + (0.7 if i % 2 else 0), z), (x1, deck + (0 if i % 2 else 0.7), z), 0.03)
        else:
            b.box((0, deck + 0.3, z), (length, 0.05, 0.05))
            for i in range(7):
                b.cylinder(((i / 6 - 0.5) * length * 0.97, deck, z), 0.3, 0.02)
