"""Things that hold something to drink, to cook or to carry. One unit is about a decimetre."""

import math

from recon_fast.procedural.family import Dice, Parts, Point, Words, curve, family


def arch(b: Parts, start: Point, end: Point, rise: float, r: float, steps: int = 7) -> None:
    """A half-ellipse of rods in the vertical plane from start to end."""
    last = start
    for i in range(1, steps + 1):
        t = i / steps
        s = (1 - math.cos(math.pi * t)) / 2
        x, y, z = (a + s * (c - a) for a, c in zip(start, end, strict=True))
        now = (x, y + rise * math.sin(math.pi * t), z)
        b.rod(last, now, r, caps=False)
        last = now


def side_handle(b: Parts, d: Dice, x: float, y: float, size: float, words: Words) -> None:
    """A handle on the +x side: an ear of a ring, or square."""
    r = size * d.real(0.1, 0.2)
    if words.feature(d.chance(0.7), "a round handle", "a square handle"):
        b.ring((x, y, 0), size, r, axis=(0, 0, 1), arc=(-100, 100))
    else:
        for sy in (-1, 1):
            b.rod((x - 0.05, y + sy * size, 0), (x + size, y + sy * size, 0), r)
        b.rod((x + size, y - size, 0), (x + size, y + size, 0), r)


def hollow(b: Parts, profile: list[tuple[float, float]], wall: float) -> None:
    """A vessel's outside, inside and floor, open at the top."""
    b.revolve((0, 0, 0), [(0.0, 0.0), *profile])
    inner = [(max(r - wall, 0.01), y) for r, y in profile if y > wall]
    if inner:
        b.revolve((0, 0, 0), [(0.0, inner[0][1]), *inner])


@family("mug", parts=("body", "handle"))
def mug(b: Parts, d: Dice, words: Words) -> None:
    r, h = d.real(0.35, 0.55), d.real(0.7, 1.4)
    words.measure(h / r, 1.9, "wide", 2.8, "tall")
    profile = curve(8, [r * d.real(0.7, 1.0), r * d.real(0.85, 1.15), r], h)
    b.part("body")
    hollow(b, profile, 0.05)
    b.part("handle")
    side_handle(b, d, r * 0.95, h * d.real(0.45, 0.6), h * d.real(0.22, 0.32), words)


@family("bucket")
def bucket(b: Parts, d: Dice, words: Words) -> None:
    r, h = d.real(0.4, 0.65), d.real(0.7, 1.3)
    words.measure(h / r, 1.6, "wide", 2.2, "deep")
    low = r * d.real(0.6, 0.95)
    hollow(b, [(low, 0), (r, h)], 0.03)
    b.ring((0, h, 0), r, 0.03)
    swing = d.real(0.3, 1.1)
    arch(b, (-r, h, 0), (r, h, 0), swing * r, 0.02)
    words.feature(swing > 0.7, "a raised bail", "a lowered bail")


@family("flower pot")
def flower_pot(b: Parts, d: Dice, words: Words) -> None:
    r, h = d.real(0.4, 0.7), d.real(0.6, 1.3)
    words.measure(h / r, 1.4, "squat", 2.0, "deep")
    hollow(b, [(r * d.real(0.5, 0.8), 0), (r * 0.95, h * 0.8)], 0.04)
    b.cylinder((0, h * 0.78, 0), h * d.real(0.15, 0.25), r * 1.08, caps=False)
    words.features.append("a thick rim")
    if words.feature(d.chance(), "a saucer"):
        b.cylinder((0, 0, 0), 0.08, r * 0.85, r)


@family("vase")
def vase(b: Parts, d: Dice, words: Words) -> None:
    h = d.real(1.0, 2.0)
    radii = [d.real(0.2, 0.4), d.real(0.35, 0.75), d.real(0.12, 0.3), d.real(0.2, 0.45)]
    words.measure(radii[1] / h, 0.28, "slender", 0.42, "bulbous")
    words.measure(radii[3], 0.27, "narrow-mouthed", 0.38, "flared")
    hollow(b, curve(18, radii, h), 0.04)
    if words.feature(d.chance(0.3), "two ring handles"):
        for sx in (-1, 1):
            b.ring((sx * radii[2] * 1.6, h * 0.68, 0), h * 0.12, 0.03, axis=(0, 0, 1))


@family("bottle")
def bottle(b: Parts, d: Dice, words: Words) -> None:
    h, r, neck = d.real(1.4, 2.4), d.real(0.25, 0.5), d.real(0.08, 0.16)
    shoulder = d.real(0.5, 0.75)
    words.measure(r / h, 0.17, "slim", 0.25, "stout")
    words.measure(shoulder, 0.57, "long-necked", 0.69, "short-necked")
    slope = [(1 + math.cos(math.pi * t / 6)) / 2 for t in range(7)]
    profile = [(neck + (r - neck) * s, h * (shoulder + t * 0.02)) for t, s in enumerate(slope)]
    b.revolve((0, 0, 0), [(0, 0), (r * 0.95, 0.01), (r, 0.08), *profile, (neck, h)])
    if words.feature(d.chance(), "a cap"):
        b.cylinder((0, h, 0), 0.12, neck * 1.25)
    if words.feature(d.chance(0.3), "a label"):
        b.cylinder((0, h * 0.15, 0), h * shoulder * 0.5, r * 1.03, caps=False)


@family("bowl")
def bowl(b: Parts, d: Dice, words: Words) -> None:
    r, h = d.real(0.5, 1.0), d.real(0.3, 0.6)
    words.measure(h / r, 0.45, "shallow", 0.75, "deep")
    foot = r * d.real(0.3, 0.5)
    angles = [math.pi / 2 * t / 8 for t in range(9)]
    profile = [(foot + (r - foot) * math.sin(a), h * (1 - math.cos(a)) + 0.06) for a in angles]
    hollow(b, profile, 0.04)
    b.cylinder((0, 0, 0), 0.08, foot)
    if words.feature(d.chance(0.25), "two ears"):
        for sx in (-1, 1):
            b.ring((sx * r, h, 0), 0.12, 0.03, axis=(0, 1, 0))


@family("wine glass")
def wine_glass(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(1.2, 2.0), d.real(0.25, 0.5)
    stem = d.real(0.3, 0.6)
    words.measure(stem, 0.38, "short-stemmed", 0.5, "long-stemmed")
    words.measure(r / h, 0.2, "narrow", 0.28, "wide")
    b.cylinder((0, 0, 0), 0.05, r * d.real(0.7, 1.0), 0.05)
    b.cylinder((0, 0.04, 0), h * stem, 0.035)
    cup = h * (1 - stem)
    bow = curve(10, [0.04, r, r * d.real(0.6, 1.1)], cup)
    b.revolve((0, h * stem, 0), bow)
    b.revolve((0, h * stem, 0), [(max(x - 0.03, 0.01), y) for x, y in bow[2:]])


@family("teapot", parts=("body", "lid", "spout", "handle"))
def teapot(b: Parts, d: Dice, words: Words) -> None:
    r, squash = d.real(0.5, 0.7), d.real(0.65, 1.1)
    words.measure(squash, 0.8, "flat", 0.98, "tall")
    b.part("body")
    b.ball((0, r * squash, 0), (r, r * squash, r))
    b.part("lid")
    b.cylinder((0, r * squash * 1.85, 0), 0.08, r * 0.45, r * 0.35)
    b.ball((0, r * squash * 2 + 0.1, 0), 0.08)
    y = r * squash
    b.part("spout")
    b.rod((-r * 0.85, y * 0.8, 0), (-r * d.real(1.4, 1.8), y * d.real(1.5, 1.9), 0), 0.14, 0.06, caps=False)
    words.features.append("a long spout")
    b.part("handle")
    if d.chance(0.65):
        side_handle(b, d, r * 0.9, y * 1.1, r * 0.5, words)
    else:
        arch(b, (-r * 0.6, y * 1.7, 0), (r * 0.6, y * 1.7, 0), r * 0.9, 0.04)
        words.features.append("a handle over the lid")


@family("jug")
def jug(b: Parts, d: Dice, words: Words) -> None:
    h = d.real(1.2, 2.0)
    radii = [d.real(0.3, 0.45), d.real(0.45, 0.65), d.real(0.22, 0.38), d.real(0.3, 0.42)]
    words.measure(h / radii[1], 2.5, "squat", 3.3, "tall")
    profile = curve(14, radii, h)
    hollow(b, profile, 0.04)
    b.rod((-radii[3] * 0.7, h * 0.9, 0), (-radii[3] * 1.4, h * 1.02, 0), 0.14, 0.05, caps=False)
    words.features.append("a spout")
    side_handle(b, d, radii[2] * 1.1, h * 0.62, h * d.real(0.2, 0.28), words)


@family("barrel")
def barrel(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(1.0, 1.8), d.real(0.4, 0.65)
    bulge = d.real(1.0, 1.35)
    words.measure(bulge, 1.08, "straight", 1.24, "bulging")
    b.revolve((0, 0, 0), [(0, 0), *curve(8, [r, r * bulge, r], h), (0, h)])
    hoops = words.count(d.whole(2, 4), "hoop")
    for i in range(hoops):
        t = (i + 0.5) / hoops
        b.ring((0, h * t, 0), r * (1 + (bulge - 1) * math.sin(math.pi * t)), 0.03)
    if words.feature(d.chance(0.25), "a tap"):
        b.cylinder((r, h * 0.2, 0), 0.1, 0.04)
        b.rod((r * 0.9, h * 0.2, 0), (r * 1.35, h * 0.2, 0), 0.05)
