"""Things to hold, play or climb. One unit is about a decimetre."""

from recon_fast.procedural.family import Dice, Parts, Words, around, family


def handle(b: Parts, d: Dice, length: float, r: float, words: Words) -> None:
    """A grip along y from 0 to `length`: round, flat, or with a knob."""
    style = d.pick(["round", "flat", "knobbed"])
    if style == "flat":
        b.box((0, 0, 0), (r * 2.4, length, r * 1.2))
    else:
        b.cylinder((0, 0, 0), length, r * d.real(0.9, 1.3), r)
    if style == "knobbed":
        b.ball((0, 0, 0), r * 1.8)
    words.features.append(f"a {style} handle")


@family("hammer", parts=("handle", "head"))
def hammer(b: Parts, d: Dice, words: Words) -> None:
    length, r = d.real(1.8, 3.4), d.real(0.08, 0.14)
    words.measure(length, 2.2, "short", 2.9, "long")
    b.part("handle")
    handle(b, d, length, r, words)
    b.part("head")
    reach, size = d.real(0.35, 0.7), d.real(0.14, 0.3)
    head = d.pick(["square head", "claw", "mallet head"])
    if head == "mallet head":
        b.rod((-reach, length, 0), (reach, length, 0), size * 1.3)
    elif head == "square head":
        b.box((0, length - size, 0), (2 * reach, 2 * size, 2 * size))
    else:
        b.rod((0, length, 0), (reach, length, 0), size * 0.8, size)
        for sz in (-1, 1):
            b.rod((0, length, 0), (-reach, length - reach * 0.4, sz * size * 0.6), size * 0.6, 0.03)
    words.features.append(f"a {head}")


@family("axe")
def axe(b: Parts, d: Dice, words: Words) -> None:
    length, r = d.real(1.8, 4.0), d.real(0.08, 0.14)
    words.measure(length, 2.4, "short", 3.3, "long")
    handle(b, d, length, r, words)
    reach, edge, neck = d.real(0.5, 0.9), d.real(0.5, 1.0), d.real(0.2, 0.35)
    sides = (1, -1) if d.chance(0.3) else (1,)
    for sx in sides:
        b.box((0, length - neck, 0), (neck * 1.4, reach, 0.2), (edge, 0.02), axis=(sx, 0, 0))
    if len(sides) == 2:
        words.adjectives.insert(0, "double-bladed")
    elif words.feature(d.chance(0.5), "a poll"):
        b.box((-0.25, length - neck * 1.5, 0), (0.3, neck, 0.22))


@family("screwdriver")
def screwdriver(b: Parts, d: Dice, words: Words) -> None:
    grip, r, shaft = d.real(0.8, 1.3), d.real(0.15, 0.28), d.real(0.6, 2.2)
    words.measure(shaft, 1.0, "stubby", 1.7, "long")
    waist = (r * d.real(0.6, 1), grip * 0.7)
    b.revolve((0, 0, 0), [(0, 0), (r * 0.8, 0.03), (r, grip * 0.3), waist, (r * 0.9, grip), (0, grip)])
    b.cylinder((0, grip, 0), shaft, r * 0.25)
    if words.feature(d.chance(), "a flat tip", "a pointed tip"):
        b.box((0, grip + shaft, 0), (r * 0.5, 0.2, r * 0.5), top=(r * 0.7, 0.03))
    else:
        b.cylinder((0, grip + shaft, 0), 0.2, r * 0.3, 0.02)
    if words.feature(d.chance(0.3), "a collar"):
        b.cylinder((0, grip, 0), 0.06, r * 1.2)


@family("wrench")
def wrench(b: Parts, d: Dice, words: Words) -> None:
    length, r, t = d.real(1.6, 3.0), d.real(0.28, 0.45), d.real(0.06, 0.12)
    words.measure(length, 2.0, "short", 2.6, "long")
    b.box((0, 0, 0), (r * 0.8, length, t * 1.5))
    ends = d.pick([("open",), ("ring",), ("open", "ring"), ("open", "open")])
    for end, y, sign in zip(ends, (length, 0.0), (1, -1), strict=False):
        gap = d.real(35, 60)
        arc = (0.0, 360.0) if end == "ring" else (sign * -90 + gap, sign * -90 + 360 - gap)
        b.ring((0, y + sign * r * 0.8, 0), r, t, axis=(0, 0, 1), arc=arc)
    if len(ends) == 1:
        words.feature(ends == ("open",), "an open end", "a ring end")
    else:
        words.feature("ring" in ends, "two ends", "two open ends")


@family("sword", parts=("grip", "guard", "blade"))
def sword(b: Parts, d: Dice, words: Words) -> None:
    blade, w = d.real(2.0, 4.5), d.real(0.15, 0.4)
    words.measure(blade, 2.7, "short", 3.8, "long")
    grip = d.real(0.5, 1.0)
    b.part("grip")
    b.cylinder((0, 0, 0), grip, 0.09)
    b.ball((0, -0.08, 0), d.real(0.1, 0.18))
    b.part("guard")
    guard = d.real(0.3, 0.8)
    if words.feature(d.chance(0.7), "a cross guard", "a round guard"):
        b.box((0, grip, 0), (2 * guard, 0.12, 0.16), top=(1.8 * guard, 0.1))
    else:
        b.cylinder((0, grip, 0), 0.08, guard * 0.6)
    b.part("blade")
    curved = d.real(0.3, 0.8) if d.chance(0.35) else 0.0
    b.box((0, grip + 0.1, 0), (w, blade * 0.55, 0.06), (w * 0.95, 0.05), (curved * 0.3, 0))
    bend = (curved * 0.3, grip + 0.1 + blade * 0.55, 0.0)
    b.box(bend, (w * 0.95, blade * 0.45, 0.05), (0.02, 0.02), (curved, 0))
    words.feature(curved, "a curved blade", "a straight blade")


@family("guitar", parts=("body", "neck", "head"))
def guitar(b: Parts, d: Dice, words: Words) -> None:
    lower, upper, t = d.real(0.6, 0.85), d.real(0.4, 0.65), d.real(0.1, 0.4)
    words.measure(t, 0.18, "thin", 0.3, "deep")
    neck = d.real(1.4, 2.2)
    b.part("body")
    for y, r in ((0.0, lower), (lower * 0.95 + upper * 0.2, upper)):
        b.rod((0, y, -t / 2), (0, y, t / 2), r)
    top = lower * 0.95 + upper * 1.2
    b.part("neck")
    b.box((0, top - 0.5, t / 2), (0.16, neck + 0.5, 0.08))
    b.part("head")
    b.box((0, top + neck, t / 2), (0.24, 0.45, 0.07), (0.3, 0.05), (0, -0.12))
    words.measure(neck, 1.6, "short-necked", 2.0, "long-necked")
    pegs = words.count(d.pick([4, 6]), "peg")
    for i in range(pegs // 2):
        y = top + neck + 0.1 + i * 0.14
        for sx in (-1, 1):
            b.rod((sx * 0.1, y, t / 2), (sx * 0.26, y, t / 2), 0.03)
    b.part("body")
    b.box((0, -lower * 0.4, t / 2), (0.35, 0.07, 0.1))
    if words.feature(d.chance(), "a sound hole"):
        b.ring((0, lower * 0.75, t / 2), 0.2, 0.03, axis=(0, 0, 1))


@family("ladder")
def ladder(b: Parts, d: Dice, words: Words) -> None:
    h, w, rungs = d.real(1.5, 4.0), d.real(0.35, 0.8), d.whole(3, 9)
    words.measure(h, 2.2, "short", 3.3, "tall")
    r, lean = d.real(0.03, 0.06), d.real(0, 0.5)
    step = d.chance(0.4)
    taper = d.real(0.6, 1.0)
    for sx in (-1, 1):
        b.rod((sx * w / 2, 0, lean), (sx * w / 2 * taper, h, 0), r)
        if step:
            b.rod((sx * w / 2, 0, -lean - 0.4), (sx * w / 2 * taper, h, 0), r)
    for i in range(rungs):
        s = (i + 0.5) / rungs
        x = w / 2 * (1 + (taper - 1) * s)
        if step:
            b.box((0, h * s, lean * (1 - s)), (2 * x, 0.04, 0.16))
        else:
            b.rod((-x, h * s, lean * (1 - s)), (x, h * s, lean * (1 - s)), r * 0.7)
    words.count(rungs, "step" if step else "rung")
    if step:
        words.adjectives.insert(0, "folding")


@family("umbrella")
def umbrella(b: Parts, d: Dice, words: Words) -> None:
    h, r, rise = d.real(1.4, 2.4), d.real(0.7, 1.2), d.real(0.25, 0.6)
    words.measure(rise / r, 0.35, "flat", 0.55, "domed")
    b.cylinder((0, 0, 0), h, 0.03)
    if d.chance():
        b.ball((0, h - rise, 0), (r, rise, r), low=0)
    else:
        b.cylinder((0, h - rise, 0), rise, r, 0.0, caps=False)
        words.adjectives.append("conical")
    if words.feature(d.chance(0.65), "a hooked handle", "a stand"):
        b.ring((0.15, 0, 0), 0.15, 0.035, axis=(0, 0, 1), arc=(0, 190))
    else:
        b.cylinder((0, -0.05, 0), 0.1, 0.35, 0.25)
    for c, s in around(words.count(d.whole(4, 8), "rib")):
        b.rod((0, h * 0.6, 0), (r * 0.6 * c, h - rise * 0.3, r * 0.6 * s), 0.015)
