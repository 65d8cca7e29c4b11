"""Pieces that towns, castles and yards are put together from. One unit is about a metre."""

import math

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, curve, family, spaced
from recon_fast.procedural.vessels import arch


def battlements(b: Parts, d: Dice, w: float, y: float, depth: float, t: float) -> None:
    """Merlons along the front and the back edge of a roof at height y."""
    for x in spaced(d.whole(3, 5), w):
        for sz in (-1, 1):
            b.box((x, y, sz * (depth - t) / 2), (w * 0.11, w * 0.12, t))


@family("wall")
def wall(b: Parts, d: Dice, words: Words) -> None:
    w, h, t = d.real(1.2, 3.0), d.real(1.0, 2.4), d.real(0.08, 0.35)
    words.measure(h / w, 0.6, "low", 1.1, "high")
    words.measure(t, 0.14, "thin", 0.27, "thick")
    hole = d.pick(["", "door", "window", "arch", "two windows"])
    if hole == "":
        for y in spaced(words.count(d.whole(2, 5), "course"), h):
            b.box((d.real(-0.02, 0.02), y + h / 2, 0), (w, h / 6, t * d.real(0.9, 1.1)))
        b.box((0, 0, 0), (w, h, t * 0.9))
    else:
        words.features.append(hole if hole == "two windows" else f"{'an' if hole == 'arch' else 'a'} {hole}")
        gaps = 2 if hole == "two windows" else 1
        wide, low = w * d.real(0.25, 0.5) / gaps, h * (d.real(0.25, 0.45) if "window" in hole else 0.0)
        tall = h * d.real(0.4, 0.5) if low else h * d.real(0.6, 0.8)
        for x in spaced(gaps, w):
            for sx in (-1, 1):
                b.box((x + sx * (w / gaps + wide) / 4, 0, 0), ((w / gaps - wide) / 2, h, t))
            b.box((x, low + tall, 0), (wide, h - low - tall, t))
            if low:
                b.box((x, 0, 0), (wide, low, t))
                b.box((x, low, 0), (wide * 1.15, 0.05, t * 1.4))
                b.box((x, low, 0), (0.04, tall, 0.04))
            elif hole == "arch":
                arch(b, (-wide / 2, tall - wide / 3, 0), (wide / 2, tall - wide / 3, 0), wide / 3, t * 0.5)
            elif words.feature(d.chance(0.6), "an open door leaf"):
                b.box((wide * 0.5, 0, wide * 0.35), (0.05, tall, wide * 0.7))
    top = d.pick(["", "battlements", "a coping", "posts", "a corner"])
    if words.feature(top == "battlements", top):
        battlements(b, d, w, h, t, t * 0.9)
    elif words.feature(top == "a coping", top):
        b.box((0, h, 0), (w * 1.03, 0.1, t * 1.5), (w * 1.03, t * d.real(0, 1.5)))
    elif words.feature(top == "posts", "a post at each end"):
        for sx in (-1, 1):
            b.box((sx * w / 2, 0, 0), (t * 1.6, h * 1.1, t * 1.6))
    elif words.feature(top == "a corner", top):
        b.box((w / 2 - t / 2, 0, w * 0.35), (t, h, w * 0.7))


@family("tower")
def tower(b: Parts, d: Dice, words: Words) -> None:
    h, r, is_round = d.real(1.6, 4.0), d.real(0.4, 0.8), d.chance()
    words.measure(r / h, 0.17, "slender", 0.32, "stout")
    words.adjectives.append("round" if is_round else "square")
    top, sides = r * d.real(0.75, 1.05), d.whole(6, 8)
    wide, side = top * d.real(1.05, 1.35), r * 2
    if is_round:
        b.cylinder((0, 0, 0), h, r, top)
        b.cylinder((0, h, 0), 0.25, top, wide)
    else:
        b.box((0, 0, 0), (side, h, side), (top * 2, top * 2))
        b.box((0, h, 0), (top * 2, 0.25, top * 2), (wide * 2, wide * 2))
    roof = d.pick(["a pointed roof", "battlements", "an open belfry", "a dome"])
    words.features.append(roof)
    y, rise = h + 0.25, d.real(0.5, 1.6)
    if roof == "battlements":
        if is_round:
            for c, s in around(sides):
                b.box((wide * 0.9 * c, y, wide * 0.9 * s), (wide * 0.3, 0.25, wide * 0.3))
        else:
            battlements(b, d, wide * 2, y, wide * 2, 0.15)
    else:
        if roof == "an open belfry":
            for sx, sz in CORNERS:
                b.box((sx * wide * 0.6, y, sz * wide * 0.6), (0.1, 0.6, 0.1))
            y += 0.6
        if roof == "a dome":
            b.ball((0, y, 0), (wide, rise * 0.8, wide), low=0)
        elif is_round:
            b.cylinder((0, y, 0), rise, wide * 1.15, 0.0)
        else:
            b.box((0, y, 0), (wide * 2.2, rise, wide * 2.2), (0, d.pick([0.0, wide * 2.2])))
    if words.feature(d.chance(0.6), "slits"):
        for i in range(d.whole(2, 4)):
            a = 1.6 * i if is_round else math.pi / 2 * i
            b.box((r * math.cos(a), h * (0.3 + 0.15 * i), r * math.sin(a)), (0.15, 0.35, 0.15))
    if words.feature(d.chance(0.35), "a sloped foot"):
        b.box((0, 0, 0), (r * 2.8, h * 0.2, r * 2.8), (r * 1.9, r * 1.9))


@family("staircase")
def staircase(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["solid", "open", "spiral", "corner"])
    words.adjectives.append(style)
    n, w = words.count(d.whole(3, 10), "step"), d.real(0.7, 1.6)
    rise, run = d.real(0.14, 0.24), d.real(0.22, 0.4)
    words.measure(rise / run, 0.5, "flat", 0.85, "steep")
    turn, r = d.real(0.25, 0.6), d.real(0.06, 0.15)
    for i in range(n):
        y = i * rise
        if style == "spiral":
            c, s = math.cos(i * turn), math.sin(i * turn)
            b.box((r * c, y, r * s), (0.06, w, 0.12), (0.06, w * turn), axis=(c, 0, s), level=True)
        elif style == "open":
            b.box((i * run, y + rise * 0.8, 0), (run * 1.1, 0.05, w))
        elif style == "solid" or i < n / 2:
            b.box((i * run, y + rise, 0), (run, y + rise, w), axis=(0, -1, 0))
        else:
            at = (n / 2 * run + w * 0.4, y + rise, (i - n / 2) * run + w / 2)
            b.box(at, (w, y + rise, run), axis=(0, -1, 0))
    if style == "spiral":
        b.cylinder((0, 0, 0), n * rise + 0.5, r)
        return
    top = (n * run, n * rise)
    if style == "open":
        for sz in (-1, 1):
            b.rod((-run, 0, sz * w / 2), (*top, sz * w / 2), 0.05)
    sides = [(), (1,), (-1, 1)][d.whole(0, 2)] if style != "corner" else ()
    if words.feature(sides, "a railing" if len(sides) < 2 else "railings on both sides"):
        for sz in sides:
            b.rod((0, 0.8, sz * w / 2), (top[0], top[1] + 0.8, sz * w / 2), 0.035)
            for i in range(0, n, 2):
                b.cylinder((i * run, i * rise, sz * w / 2), 0.8, 0.02)


@family("column")
def column(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(1.6, 3.6), d.real(0.15, 0.4)
    words.measure(r / h, 0.08, "slender", 0.15, "stout")
    style = d.pick(["round", "square", "fluted", "broken", "twisted"])
    words.adjectives.append(style)
    b.box((0, -0.2, 0), (r * 2.8, 0.2, r * 2.8), (r * d.real(2.2, 2.8),) * 2)
    tall = h * d.real(0.35, 0.7) if style == "broken" else h
    taper = d.real(0.7, 1.0)
    if style == "square":
        b.box((0, 0, 0), (2 * r, h, 2 * r), (2 * r * taper, 2 * r * taper))
    elif style == "fluted":
        for c, s in around(8):
            x, z = r * 0.8 * c, r * 0.8 * s
            b.rod((x, 0, z), (x * taper, h, z * taper), r * 0.36, r * 0.3)
    elif style == "twisted":
        for k in (0.0, math.pi):
            turns = [(r * 0.5 * math.cos(k + i), h * i / 12, r * 0.5 * math.sin(k + i)) for i in range(13)]
            b.path(turns, r * 0.55)
    else:
        b.revolve((0, 0, 0), curve(6, [r, r * d.real(0.95, 1.1), r * taper], tall))
    if style == "broken":
        b.ball((0, tall, 0), (r * taper, r * 0.4, r * taper))
        if words.feature(d.chance(0.6), "a fallen drum"):
            b.rod((r * 2, r, -0.4), (r * 2.5, r, d.real(0.1, 0.7)), r)
        return
    b.ring((0, 0.05, 0), r * 1.05, r * 0.2)
    if words.feature(d.chance(0.7), "a flared capital"):
        b.box((0, h, 0), (r * 1.6, r * 0.6, r * 1.6), (r * 3, r * 3))
    else:
        b.cylinder((0, h, 0), r * 0.5, r * taper, r * 1.5)
    if words.feature(d.chance(0.3), "a piece of beam"):
        b.box((0, h + r * 0.5, 0), (d.real(1, 2), r, r * 2))


@family("gate")
def gate(b: Parts, d: Dice, words: Words) -> None:
    w, h, t = d.real(0.8, 2.0), d.real(1.0, 2.2), d.real(0.15, 0.5)
    words.measure(h / w, 0.9, "wide", 1.6, "tall")
    style = d.pick(["round arch", "lintel", "ring", "bar gate", "tiled roof"])
    words.features.append(f"a {style}")
    if style == "ring":
        r = w * 0.6
        b.ring((0, r, 0), r, t * 0.5, (0, 0, 1))
        b.box((0, 0, 0), (w * 1.5, 0.12, t * 2.5))
        return
    for sx in (-1, 1):
        post: Point = (sx * (w + t) / 2, 0.0, 0.0)
        b.box(post, (t, h, t), (t * 0.9, t * 0.9))
        if style == "bar gate":
            b.ball((post[0], h + t * 0.5, 0), t * 0.55)
            swing = d.real(0.0, 0.7) * w * 0.5
            for y in spaced(d.whole(2, 5), h * 0.7):
                b.rod((sx * w / 2, y + h * 0.4, 0), (sx * 0.02, y + h * 0.4, swing), 0.03)
            for k in (0.1, 0.5, 0.9):
                b.cylinder((sx * w / 2 * k, h * 0.08, swing * (1 - k)), h * 0.75, 0.03)
    if style == "round arch":
        b.ring((0, h, 0), (w + t) / 2, t * 0.5, (0, 0, 1), (180, 360))
        if words.feature(d.chance(), "a keystone"):
            b.box((0, h + w / 2, 0), (t * 0.6, t * 1.2, t * 1.2), (t, t * 1.2))
    elif style == "lintel":
        b.box((0, h, 0), (w + t * d.real(2.2, 5), t * d.real(0.6, 1.2), t * 1.2))
        if words.feature(d.chance(), "a second beam"):
            b.box((0, h * 0.8, 0), (w + t, t * 0.5, t * 0.6))
    elif style == "tiled roof":
        b.box((0, h, 0), (w + 2 * t, 0.1, t * 1.2))
        b.box((0, h + 0.1, 0), (w + 3.5 * t, d.real(0.2, 0.6), t * 4), (w + 3 * t, 0))


@family("fence")
def fence(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["picket", "rail", "iron", "wire", "plank", "broken"])
    words.adjectives.append(style)
    posts, h, step = d.whole(2, 5), d.real(0.6, 1.4), d.real(0.6, 1.1)
    words.measure(h, 0.8, "low", 1.15, "high")
    words.count(posts, "post")
    t, w = d.real(0.04, 0.1), (posts - 1) * step
    for i in range(posts):
        b.box((i * step - w / 2, 0, 0), (t, h * 1.1, t), (t, t) if d.chance() else (0.01, 0.01))
    rails = d.whole(2, 4) if style in ("rail", "wire", "broken") else 2
    for y in spaced(rails, h * 0.9):
        droop = -d.real(0.1, 0.5) * h if style == "broken" and d.chance(0.4) else 0.0
        r = 0.012 if style == "wire" else t * 0.35
        b.rod((-w / 2, y + h / 2, t * 0.5), (w / 2, max(y + h / 2 + droop, 0), t * 0.5), r)
    if style in ("picket", "iron", "plank"):
        count = (posts - 1) * {"picket": 5, "iron": 7, "plank": 6}[style]
        for x in spaced(count, w):
            if style == "iron":
                b.cylinder((x, 0.05, 0), h * d.real(0.98, 1.02), 0.015)
                b.cylinder((x, h, 0), 0.1, 0.03, 0.0)
            else:
                size = w / count * (0.6 if style == "picket" else 0.95)
                b.box((x, 0.04, t), (size, h, 0.03))
                if style == "picket":
                    b.box((x, h + 0.04, t), (size, size, 0.03), (0, 0.03))
    if words.feature(d.chance(0.2), "a corner"):
        for y in spaced(2, h * 0.9):
            b.rod((w / 2, y + h / 2, 0), (w / 2, y + h / 2, step), t * 0.35)
        b.box((w / 2, 0, step), (t, h * 1.1, t))


@family("pipe")
def pipe(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["straight", "bent", "T-shaped", "cross-shaped", "zigzag", "U-shaped"])
    words.adjectives.append(style)
    r, long = d.real(0.1, 0.35), d.real(0.7, 1.6)
    words.measure(r / long, 0.16, "thin", 0.3, "thick")
    ends: list[Point] = [(-long, 0, 0), (long, 0, 0)]
    if style == "straight":
        b.path(ends, r)
    elif style in ("bent", "U-shaped"):
        bow, sweep = long * 0.6, 90 if style == "bent" else 180
        b.ring((0, 0, 0), bow, r, (0, 0, 1), (0, sweep))
        b.rod((bow, 0, 0), (bow, long, 0), r, caps=False)
        ends = [(bow, long, 0), (0, -bow, 0) if style == "bent" else (-bow, long, 0)]
        if style == "U-shaped":
            b.rod((-bow, 0, 0), ends[1], r, caps=False)
    elif style == "zigzag":
        y = long * d.real(0.3, 0.9)
        ends = [(-long, 0, 0), (long, y, 0)]
        b.path([ends[0], (-long * 0.2, 0, 0), (long * 0.2, y, 0), ends[1]], r)
        for sx in (-1, 1):
            b.ball((sx * long * 0.2, y if sx > 0 else 0, 0), r * 1.05)
    else:
        b.path(ends, r)
        extra = [(0.0, long * 0.8, 0.0), (0.0, -long * 0.8, 0.0)][: 1 if style == "T-shaped" else 2]
        for end in extra:
            b.rod((0, 0, 0), end, r, caps=False)
        ends += extra
    if words.feature(d.chance(0.7), "flanges"):
        for x, y, z in ends:
            up = abs(y) > abs(x) and not (style == "bent" and y < 0)
            b.ball((x, y, z), (r * 1.4, r * 0.35, r * 1.4) if up else (r * 0.35, r * 1.4, r * 1.4))
    if words.feature(d.chance(0.3), "a valve wheel"):
        x = ends[0][0] * 0.6
        b.rod((x, ends[0][1], 0), (x, ends[0][1], r * 2.2), r * 0.2)
        b.ring((x, ends[0][1], r * 2.2), r * 0.9, r * 0.12, (0, 0, 1))


@family("platform")
def platform(b: Parts, d: Dice, words: Words) -> None:
    w, depth, h = d.real(1.0, 2.4), d.real(0.8, 2.0), d.real(0.1, 1.0)
    words.measure(h, 0.25, "flat", 0.7, "high")
    style = d.pick(["block", "tiles", "planks", "stilts", "hexagon", "ramp"])
    words.features.append(
        {"block": "a solid body", "hexagon": "six sides", "ramp": "a ramp"}.get(style, style)
    )
    if style in ("block", "ramp"):
        b.box((0, 0, 0), (w, h, depth), (w * d.real(0.7, 1.1), depth * d.real(0.7, 1.1)))
        b.box((0, h, 0), (w * 1.1, d.real(0.05, 0.2), depth * 1.1))
        if style == "ramp":
            b.box((w, 0, 0), (w, h, depth * 0.8), (0.02, depth * 0.8), (-w / 2, 0))
    elif style == "hexagon":
        b.prism((0, 0, 0), [(0.01, 0), (w * 0.8, 0), (w, h), (0.01, h)], 6)
    elif style == "tiles":
        rows = d.whole(2, 4)
        b.box((0, 0, 0), (w, h, depth))
        for x in spaced(rows, w):
            for z in spaced(rows, depth):
                u, v = w / rows * 0.9, depth / rows * 0.9
                b.box((x, h, z), (u, 0.06, v), (u * 0.9, v * 0.9))
    else:
        planks = d.whole(4, 8)
        for x in spaced(planks, w):
            b.box((x, h, 0), (w / planks * 0.85, 0.06, depth * d.real(0.9, 1.1)))
        for sx, sz in CORNERS:
            b.cylinder((sx * w * 0.42, 0, sz * depth * 0.42), h * d.real(1, 1.5), 0.06)
            if style == "planks":
                b.box((0, h - 0.1, sz * depth * 0.35), (w, 0.1, 0.1))
    if words.feature(d.chance(0.25) and style != "ramp", "a railing"):
        for sz in (-1, 1):
            b.rod((-w / 2, h + 0.5, sz * depth / 2), (w / 2, h + 0.5, sz * depth / 2), 0.03)
            for x in spaced(4, w):
                b.cylinder((x, h, sz * depth / 2), 0.5, 0.02)


@family("road")
def road(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["straight", "curved", "crossing", "T-junction", "sloping", "rail"])
    words.adjectives.append("railway" if style == "rail" else style)
    w, kerb, t = d.real(0.8, 1.4), d.real(0.1, 0.3), d.real(0.05, 0.15)
    words.measure(w, 0.95, "narrow", 1.25, "wide")
    long = d.real(1.5, 3.0) if style not in ("crossing", "T-junction") else w * d.real(1.6, 2.4)
    rise = d.real(0.2, 0.7) if style == "sloping" else 0.0
    n, bow = 9, d.real(0.8, 1.4) * w
    lines: dict[float, list[Point]] = {}
    for side in (-1 - kerb, -1.0, 1.0, 1 + kerb):
        for i in range(n + 1):
            s = i / n
            a, r = s * math.pi / 2, bow + side * w / 2
            y = rise * (1 - math.cos(math.pi * s)) / 2
            bent = (r * math.cos(a), 0.0, r * math.sin(a))
            point = bent if style == "curved" else (long * (s - 0.5), y, side * w / 2)
            lines.setdefault(side, []).append(point)
    outer, left, right, last = lines.values()
    if style in ("crossing", "T-junction"):
        b.box((0, -t, 0), (long, t, long))
        for sx, sz in CORNERS:
            size = (long - w) / 2
            b.box((sx * (long + w) / 4, 0, sz * (long + w) / 4), (size, t, size))
        if style == "T-junction":
            b.box((0, 0, -(long + w) / 4), (long, t, (long - w) / 2))
        return
    b.sheet([left, right])
    up = [[(x, y + t, z) for x, y, z in line] for line in (outer, left, right, last)]
    if style == "rail":
        for side in (1, 2):
            b.path([(x, y + t, z * 0.6) for x, y, z in (left, right)[side - 1]], 0.04)
        for x in spaced(9, long):
            b.box((x, 0, 0), (long * 0.05, t, w * 0.95))
        return
    b.sheet([outer, up[0], up[1], left])
    b.sheet([right, up[2], up[3], last])
    if words.feature(d.chance(0.4), "a barrier"):
        b.path([(x, y + 0.35, z) for x, y, z in outer], 0.05)
        for x, y, z in outer[::3]:
            b.cylinder((x, y, z), 0.35, 0.03)
    if words.feature(d.chance(0.4), "lane markings"):
        for (x, _, z), (u, v, q) in list(zip(left, right, strict=True))[1::2]:
            b.box(((x + u) / 2, v, (z + q) / 2), (0.12, 0.02, 0.12))
