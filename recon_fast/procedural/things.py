"""Hardware, and objects that have no name. One unit is about a decimetre."""

import math

from recon_fast.procedural.family import Dice, Parts, Point, Words, around, family, spaced


@family("key")
def key(b: Parts, d: Dice, words: Words) -> None:
    long, r, bow = d.real(0.6, 1.4), d.real(0.03, 0.07), d.real(0.15, 0.3)
    words.measure(long, 0.8, "short", 1.15, "long")
    b.rod((0, 0, 0), (long, 0, 0), r)
    style = d.pick(["ring", "trefoil", "square", "plate"])
    words.features.append({"plate": "a round plate"}.get(style, f"a {style} bow"))
    if style == "trefoil":
        for c, s in around(3):
            b.ring((-bow + c * bow * 0.55, s * bow * 0.55, 0), bow * 0.5, r * 0.8, (0, 0, 1))
    elif style == "ring":
        b.ring((-bow, 0, 0), bow, r, (0, 0, 1))
    elif style == "square":
        corners = [
            (-bow * (1 - 1.4 * c), bow * s * 1.4, 0.0) for c, s in [*around(4, 0.785), (0.7071, 0.7071)]
        ]
        b.path(corners, r)
    else:
        b.rod((-bow, 0, -r), (-bow, 0, r), bow)
    for x in spaced(words.count(d.whole(1, 4), "bit"), long * 0.35):
        b.box((long * 0.8 + x, 0, 0), (long * 0.07, d.real(0.1, 0.28), r * 1.2), axis=(0, -1, 0))
    if words.feature(d.chance(0.5), "a collar"):
        b.ring((long * d.real(0.05, 0.3), 0, 0), r, r * 0.7, (1, 0, 0))


@family("gear")
def gear(b: Parts, d: Dice, words: Words) -> None:
    r, t, teeth = d.real(0.6, 1.0), d.real(0.1, 0.45), d.whole(6, 18)
    words.measure(t, 0.18, "thin", 0.33, "thick")
    words.measure(teeth, 9, "coarse", 14, "fine-toothed")
    tall, width = r * d.real(0.12, 0.3), 2 * math.pi * r / teeth
    pointed = 0.3 if words.feature(d.chance(0.4), "pointed teeth", "square teeth") else 0.75
    size, tip = (t, tall, width * 0.55), (t, width * 0.55 * pointed)
    for c, s in around(teeth):
        b.box((c * r * 0.97, 0, s * r * 0.97), size, tip, axis=(c, 0, s), level=True)
    style = d.pick(["disc", "spokes", "holes"])
    words.features.append({"disc": "a solid disc"}.get(style, style))
    if style == "disc":
        b.cylinder((0, -t / 2, 0), t, r)
    else:
        b.revolve((0, -t / 2, 0), [(r * 0.75, 0), (r, 0), (r, t), (r * 0.75, t), (r * 0.75, 0)])
        for c, s in around(d.whole(3, 6)):
            size = (t * 0.6, r * 0.7, r * (0.15 if style == "spokes" else 0.4))
            b.box((c * r * 0.1, 0, s * r * 0.1), size, axis=(c, 0, s), level=True)
    hub, out = r * d.real(0.15, 0.35), t * d.real(0.6, 1.4)
    b.revolve((0, -out, 0), [(hub * 0.5, 0), (hub, 0), (hub, 2 * out), (hub * 0.5, 2 * out), (hub * 0.5, 0)])


@family("bolt")
def bolt(b: Parts, d: Dice, words: Words) -> None:
    long, r, head = d.real(0.6, 2.0), d.real(0.12, 0.22), d.real(1.6, 2.4)
    words.measure(long / r, 5, "stubby", 9, "long")
    style = d.pick(["hexagonal", "round", "flat", "eye", "wing"])
    words.features.append(f"{'an' if style == 'eye' else 'a'} {style} head")
    if words.feature(d.chance(0.35), "a pointed end"):
        b.cylinder((0, -r * 2, 0), r * 2, 0.01, r)
    b.cylinder((0, 0, 0), long, r)
    for i in range(d.whole(5, 10)):
        b.ring((0, r * 0.5 * (i + 0.5), 0), r, r * 0.14, axis=(0.12, 1, 0))
    if style == "hexagonal":
        rows = [(0.01, 0.0), (r * head, 0.0), (r * head, r * 1.3), (0.01, r * 1.3)]
        b.prism((0, long, 0), rows, 6)
    elif style == "round":
        b.ball((0, long, 0), (r * head, r * 1.4, r * head), low=0)
    elif style == "flat":
        b.cylinder((0, long - r, 0), r, r, r * head)
        b.box((0, long, 0), (r * head * 1.6, 0.03, r * 0.3))
    elif style == "eye":
        b.ring((0, long + r * head * 0.8, 0), r * head * 0.8, r * 0.6, (0, 0, 1))
    else:
        for sx in (-1, 1):
            b.box((sx * r * 0.6, long, 0), (r, r * 2.5, r * 0.5), (r * 1.5, r * 0.3), axis=(sx, 0.8, 0))
    if words.feature(d.chance(0.4), "a nut"):
        y, rows = long * d.real(0.3, 0.7), [(r, 0.0), (r * 1.8, 0.0), (r * 1.8, r * 1.3), (r, r * 1.3)]
        b.prism((0, y, 0), rows, 6)


@family("chain")
def chain(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["hanging", "closed", "lying", "necklace"])
    words.adjectives.append({"closed": "circular", "necklace": "beaded"}.get(style, style))
    n, r, t = words.count(d.whole(4, 10), "link"), d.real(0.12, 0.2), d.real(0.025, 0.06)
    words.measure(t, 0.035, "thin", 0.05, "heavy")
    wave, big = d.real(0, 0.4), n * r * 0.25
    for i in range(n):
        s = i / n
        if style == "hanging":
            b.ring((0, -i * r * 1.45, 0), r, t, (1, 0, 0) if i % 2 else (0, 0, 1))
        elif style == "lying":
            a = wave * math.cos(6 * s)
            flat = (0.0, 1.0, 0.0) if i % 2 else (-a, 0.0, 1.0)
            b.ring((i * r * 1.45, 0, wave * math.sin(6 * s) * 0.4), r, t, flat)
        else:
            c, z = math.cos(2 * math.pi * s), math.sin(2 * math.pi * s)
            at = (c * big, 0.0, z * big)
            if style == "necklace":
                b.ball(at, big * math.sin(math.pi / n) * d.real(0.7, 0.95))
            else:
                b.ring(at, r, t, (0, 1, 0) if i % 2 else (c, 0, z))
    if style == "necklace":
        b.ring((0, 0, 0), big, t * 0.4)
    if words.feature(d.chance(0.4), "a pendant"):
        end = {"hanging": (0.0, -n * r * 1.45, 0.0), "lying": (n * r * 1.45, 0.0, 0.0)}.get(
            style, (big + r, 0, 0)
        )
        b.ball(end, (r * d.real(0.8, 1.5), r, r * d.real(0.4, 1.2)))


@family("wheel")
def wheel(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["tyre", "wagon", "ship's", "disc", "water"])
    words.adjectives.append({"tyre": "tyred", "disc": "solid"}.get(style, style))
    r, t, y = d.real(0.6, 1.0), d.real(0.08, 0.3), 1.1
    words.measure(t, 0.13, "thin", 0.23, "thick")
    spokes = 0 if style == "disc" else words.count(d.whole(4, 10), "spoke")
    if style == "tyre":
        b.ring((0, y, 0), r * 0.85, r * d.real(0.15, 0.28), (0, 0, 1))
        b.rod((0, y, -t), (0, y, t), r * 0.65, caps=False)
    elif style == "disc":
        b.rod((0, y, -t), (0, y, t), r)
        b.ring((0, y, t), r * 0.8, 0.04, (0, 0, 1))
        for c, s in around(words.count(d.whole(3, 8), "stud")):
            b.rod(
                (c * r * 0.5, y + s * r * 0.5, -t - 0.05), (c * r * 0.5, y + s * r * 0.5, t + 0.05), r * 0.06
            )
    else:
        for z in (-t, t) if style == "water" else (0.0,):
            b.ring((0, y, z), r * 0.9, r * d.real(0.05, 0.09), (0, 0, 1))
    for c, s in around(spokes, d.real(0, 1)):
        long = r * (1.3 if style == "ship's" else 0.9)
        b.rod((c * long, y + s * long, 0), (0, y, 0), r * 0.05, r * 0.07)
        if style == "water":
            b.box((c * r * 0.8, y + s * r * 0.8, 0), (0.04, r * 0.3, 2.4 * t), axis=(c, s, 0))
    b.rod((0, y, -t), (0, y, t), r * d.real(0.12, 0.25))
    if words.feature(d.chance(0.3), "an axle"):
        b.rod((0, y, 0), (0, y, -r * d.real(1, 2)), r * 0.08)


@family("anchor")
def anchor(b: Parts, d: Dice, words: Words) -> None:
    h, r, w = d.real(1.2, 2.0), d.real(0.06, 0.13), d.real(0.45, 0.8)
    words.measure(w / h, 0.35, "narrow", 0.5, "wide")
    flat = d.chance(0.6)
    words.feature(flat, "two flukes", "four claws")
    b.rod((0, 0, 0), (0, h, 0), r * 1.3, r)
    b.ring((0, h + w * 0.22, 0), w * 0.2, r * 0.6, (0, 0, 1))
    for c, s in around(2 if flat else 4):
        arm: list[Point] = []
        for i in range(6):
            a = i / 5 * 1.25
            arm.append((c * w * math.sin(a), w * 0.9 * (1 - math.cos(a)), s * w * math.sin(a)))
        b.path(arm, r * 1.2, r * 0.8)
        x, y, z = arm[-1]
        size = (r * 4, w * 0.4, r * 4)
        b.box((x * 0.93, y - 0.12, z * 0.93), size, (0.02, 0.02), axis=(c * 0.35, 1, s * 0.35))
    if words.feature(d.chance(0.75), "a stock"):
        across = (0.0, 0.0, 1.0) if d.chance() else (1.0, 0.0, 0.0)
        k = w * d.real(0.5, 0.9)
        b.rod((-across[0] * k, h * 0.85, -across[2] * k), (across[0] * k, h * 0.85, across[2] * k), r * 0.8)


def primitive(b: Parts, d: Dice, kind: str, at: Point, size: float) -> None:
    """One of the kinds of an assembly, about `at`."""
    x, y, z = at
    w, h, depth = (size * d.real(0.5, 1.5) for _ in range(3))
    if kind == "box":
        b.box((x, y - h / 2, z), (w, h, depth))
    elif kind == "wedge":
        top = (w * d.real(0, 1), depth * d.real(0, 1))
        b.box((x, y - h / 2, z), (w, h, depth), top, (d.real(-0.4, 0.4) * w, 0))
    elif kind == "ball":
        b.ball(at, (w / 2, h / 2, depth / 2))
    elif kind == "dome":
        b.ball((x, y - h / 2, z), (w / 2, h, depth / 2), low=0)
    elif kind in ("cylinder", "cone"):
        axis = d.pick([(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
        start, end = ((x + k * axis[0] * h, y + k * axis[1] * h, z + k * axis[2] * h) for k in (-0.5, 0.5))
        b.rod(start, end, w / 2, w / 2 if kind == "cylinder" else w * d.real(0, 0.25), caps=d.chance(0.8))
    else:
        axis = (d.real(-1, 1), d.real(0.05, 1), d.real(-1, 1))
        b.ring(at, w / 2, w * d.real(0.06, 0.2), axis, (0, d.pick([360.0, 270.0, 180.0])))


@family("assembly")
def assembly(b: Parts, d: Dice, words: Words) -> None:
    rule = d.pick(["stacked", "mirrored", "circular", "gridded", "chained", "random", "branching"])
    words.adjectives.append(rule)
    kinds = ["box", "wedge", "ball", "dome", "cylinder", "cone", "ring"]
    main, mixed, n = d.pick(kinds), d.chance(0.6), d.whole(2, 8)
    size, shrink, last = d.real(0.6, 1.2), d.real(0.75, 1.1), (0.0, 0.0, 0.0)
    words.count(n, "piece")
    words.features.append(f"{main}{'es' if main == 'box' else 's'} {'and others' if mixed else 'alone'}")
    spin, lift, wide = d.real(0, 3), d.real(-0.3, 0.4), d.whole(2, 3)
    for i in range(n):
        kind = main if not mixed or d.chance(0.5) else d.pick(kinds)
        now, a = size * shrink**i, spin + 2 * math.pi * i / n
        if rule == "stacked":
            primitive(b, d, kind, (0.0, last[1], 0.0), now)
            last = (0.0, last[1] + now * d.real(0.6, 1.0), 0.0)
        elif rule == "circular":
            away = 0.25 * n * size
            primitive(b, d, kind, (away * math.cos(a), lift * i, away * math.sin(a)), size)
        elif rule == "gridded":
            at = (i % wide * size * 1.2, i // wide % 2 * size * 1.2, i // wide // 2 * size * 1.2)
            primitive(b, d, kind, at, size)
        elif rule == "branching":
            tip = (d.real(-1, 1) * n * 0.25, d.real(0.2, 1) * n * 0.3, d.real(-1, 1) * n * 0.25)
            b.rod((0, 0, 0), tip, size * 0.08)
            primitive(b, d, kind, tip, now * 0.8)
        elif rule == "mirrored":
            start, y = len(b.rows), size * i * d.real(0.2, 0.6)
            primitive(b, d, kind, (d.real(-0.6, 0.6) * size, y, d.real(0.0, 0.8) * size), now * 0.8)
            b.mirror(start)
        else:
            primitive(b, d, kind, last, now)
            step = now * (0.8 if rule == "chained" else d.real(0.2, 1.2))
            x, y, z = (d.real(-1, 1) for _ in range(3))
            k = step / max(math.hypot(x, y, z), 0.1)
            base = last if rule == "chained" else (0.0, 0.0, 0.0)
            last = (base[0] + x * k, base[1] + y * k, base[2] + z * k)
    if words.feature(d.chance(0.25), "a base plate"):
        b.box((0, -size, 0), (size * n * 0.5, size * 0.1, size * n * 0.5))
