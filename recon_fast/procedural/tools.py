"""Things to hold, play or climb. One unit is about a decimetre."""

import math

from recon_fast.procedural.family import NUMBERS, Dice, Words, family
from recon_fast.procedural.parts import Parts, around


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
    elif d.chance(0.5):
        b.box((-0.25, length - neck * 1.5, 0), (0.3, neck, 0.22))
        words.features.append("a poll")


@family("screwdriver")
def screwdriver(b: Parts, d: Dice, words: Words) -> None:
    grip, r, shaft = d.real(0.8, 1.3), d.real(0.15, 0.28), d.real(0.6, 2.2)
    words.measure(shaft, 1.0, "stubby", 1.7, "long")
    b.revolve(
        (0, 0, 0),
        [
            (0, 0),
            (r * 0.8, 0.03),
            (r, grip * 0.3),
            (r * d.real(0.6, 1), grip * 0.7),
            (r * 0.9, grip),
            (0, grip),
        ],
    )
    b.cylinder((0, grip, 0), shaft, r * 0.25)
    if d.chance():
        b.box((0, grip + shaft, 0), (r * 0.5, 0.2, r * 0.5), top=(r * 0.7, 0.03))
        words.features.append("a flat tip")
    else:
        b.cylinder((0, grip + shaft, 0), 0.2, r * 0.3, 0.02)
        words.features.append("a pointed tip")
    if d.chance(0.3):
        b.cylinder((0, grip, 0), 0.06, r * 1.2)
        words.features.append("a collar")


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
    kinds = {"open": "an open end", "ring": "a ring end"}
    words.features.append(
        kinds[ends[0]] if len(ends) == 1 else "two open ends" if "ring" not in ends else "two ends"
    )


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
    if d.chance(0.7):
        b.box((0, grip, 0), (2 * guard, 0.12, 0.16), top=(1.8 * guard, 0.1))
        words.features.append("a cross guard")
    else:
        b.cylinder((0, grip, 0), 0.08, guard * 0.6)
        words.features.append("a round guard")
    b.part("blade")
    curved = d.real(0.3, 0.8) if d.chance(0.35) else 0.0
    b.box((0, grip + 0.1, 0), (w, blade * 0.55, 0.06), (w * 0.95, 0.05), (curved * 0.3, 0))
    b.box(
        (curved * 0.3, grip + 0.1 + blade * 0.55, 0),
        (w * 0.95, blade * 0.45, 0.05),
        (0.02, 0.02),
        (curved, 0),
    )
    words.features.append("a curved blade" if curved else "a straight blade")


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
    pegs = d.pick([4, 6])
    for i in range(pegs // 2):
        for sx in (-1, 1):
            b.rod(
                (sx * 0.1, top + neck + 0.1 + i * 0.14, t / 2),
                (sx * 0.26, top + neck + 0.1 + i * 0.14, t / 2),
                0.03,
            )
    words.features.append(f"{NUMBERS[pegs]} pegs")
    b.part("body")
    b.box((0, -lower * 0.4, t / 2), (0.35, 0.07, 0.1))
    if d.chance():
        b.ring((0, lower * 0.75, t / 2), 0.2, 0.03, axis=(0, 0, 1))
        words.features.append("a sound hole")


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
    words.features.append(f"{NUMBERS[rungs]} {'steps' if step else 'rungs'}")
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
    if d.chance(0.65):
        b.ring((0.15, 0, 0), 0.15, 0.035, axis=(0, 0, 1), arc=(0, 190))
        words.features.append("a hooked handle")
    else:
        b.cylinder((0, -0.05, 0), 0.1, 0.35, 0.25)
        words.features.append("a stand")
    ribs = d.whole(4, 8)
    for a in around(ribs):
        b.rod((0, h * 0.6, 0), (r * 0.6 * math.cos(a), h - rise * 0.3, r * 0.6 * math.sin(a)), 0.015)
    words.features.append(f"{NUMBERS[ribs]} ribs")
