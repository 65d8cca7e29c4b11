"""Ground, stone and what grows on them. One unit is about a metre."""

import math

from recon_fast.procedural.family import Dice, Parts, Point, Words, around, family, spaced


def boulder(b: Parts, d: Dice, at: Point, radii: Point, rough: float, rings: int = 5, sides: int = 7) -> None:
    """A ball of triangles whose corners are off by up to a share `rough` of its radius, from `at` upwards."""
    rows: list[list[Point]] = []
    for i in range(rings + 1):
        polar, row = math.pi * i / rings, []
        for c, s in around(sides, 0.3 * i):
            k = 1.0 if i in (0, rings) else 1 + d.real(-rough, rough)
            out, y = math.sin(polar) * k, 1 + math.cos(polar) * k
            row.append((at[0] + radii[0] * out * c, at[1] + radii[1] * y, at[2] + radii[2] * out * s))
        rows.append([*row, row[0]])
    b.sheet(rows)


@family("rock")
def rock(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["boulder", "cluster", "spire", "slab", "stack"])
    words.features.append({"boulder": "a single boulder"}.get(style, f"a {style} of stone"))
    rough, sides = d.real(0.05, 0.35), d.whole(5, 9)
    words.measure(rough, 0.13, "smooth", 0.26, "rugged")
    r, rings = d.real(0.4, 0.8), d.whole(3, 5)
    tall = {"spire": d.real(1.6, 3.0), "slab": d.real(0.15, 0.35)}.get(style, d.real(0.6, 1.0))
    boulder(b, d, (0, 0, 0), (r, r * tall, r * d.real(0.6, 1.1)), rough, rings, sides)
    y = r * tall * 1.7
    for _ in range({"cluster": d.whole(2, 5), "stack": d.whole(1, 3)}.get(style, 0)):
        size, a = r * d.real(0.25, 0.7), d.real(0, 2 * math.pi)
        at = (r * math.cos(a), 0.0, r * math.sin(a)) if style == "cluster" else (0.0, y, 0.0)
        up = size * d.real(0.6, 1.1)
        y += 1.6 * up
        boulder(b, d, at, (size, up, size * d.real(0.7, 1.2)), rough, 4, 6)


@family("terrain")
def terrain(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["hilly", "mountainous", "sloping", "bowl-shaped", "terraced", "rolling"])
    words.adjectives.append(style)
    n, w, depth = d.whole(4, 8), d.real(0.8, 1.3), d.real(0.8, 1.3)
    h, base = d.real(0.3, 0.8) * (2 if style == "mountainous" else 1), d.real(0.05, 0.3)
    rough, px, pz, waves = d.real(0, 0.3), d.real(-0.5, 0.5), d.real(-0.5, 0.5), d.real(2, 5)
    words.measure(h, 0.45, "low", 0.8, "steep")

    def height(x: float, z: float) -> float:
        away = (x - px) ** 2 + (z - pz) ** 2
        y = {
            "hilly": math.exp(-3 * away),
            "mountainous": max(0.0, 1 - away**0.5 * 0.9),
            "sloping": (x + 1) / 2,
            "bowl-shaped": min(1.0, away * 0.8),
            "terraced": round((x + z * 0.4 + 1.4) * 1.4) / 4,
            "rolling": 0.5 + 0.5 * math.sin(waves * x + px) * math.cos(waves * z * 0.7 + pz),
        }[style]
        return base + h * (y + rough * d.real(-0.5, 0.5))

    xs = [2 * i / n - 1 for i in range(n + 1)]
    rows: list[list[Point]] = [[(x * w, height(x, z), z * depth) for x in xs] for z in xs]
    b.sheet(rows)
    if words.feature(d.chance(0.7), "a solid base"):
        b.box((0, -0.01, 0), (2 * w, 0.01, 2 * depth))
        for edge in (rows[0], rows[-1], [row[0] for row in rows], [row[-1] for row in rows]):
            b.sheet([edge, [(x, 0.0, z) for x, _, z in edge]])
    for _ in range(d.whole(1, 4) if words.feature(d.chance(0.3), "trees") else 0):
        x, y, z = d.pick(d.pick(rows))
        b.cylinder((x, y, z), 0.15, 0.03)
        b.cylinder((x, y + 0.1, z), d.real(0.25, 0.5), 0.13, 0.0)


@family("cliff")
def cliff(b: Parts, d: Dice, words: Words) -> None:
    h, w, columns = d.real(0.8, 2.0), d.real(1.2, 2.4), d.whole(3, 6)
    words.measure(h / w, 0.6, "wide", 1.0, "high")
    words.count(columns, "face")
    style = d.pick(["blocks", "facets", "steps"])
    words.features.append(f"a wall of {style}")
    if style == "facets":
        rows: list[list[Point]] = []
        for i in range(5):
            y, z, k = h * (1 - i / 4), 0.5 + 0.1 * i, 0.1 * (i != 4)
            rows.append([(x, y + k * d.real(-1, 1), z + d.real(-0.2, 0.2)) for x in spaced(columns * 2, w)])
        top: list[Point] = [(x, h + d.real(-0.05, 0.1), -0.7) for x, _, _ in rows[0]]
        b.sheet([[(x, 0.0, -0.7) for x, _, _ in top], top, *rows])
        for side in (0, -1):
            b.sheet([[(x, y, -0.7), (x, y, z)] for x, y, z in (row[side] for row in rows)])
        return
    for x in spaced(columns, w):
        levels = d.whole(2, 4) if style == "steps" else 1
        for i in range(levels):
            tall, depth = h * d.real(0.75, 1.1) * (i + 1) / levels, d.real(0.8, 1.2) * (1 - i / levels / 1.4)
            size = (w / columns * d.real(0.9, 1.3), tall, depth)
            foot = (size[0] * d.real(1, 1.3), depth * d.real(1, 1.25))
            b.box((x, tall, -0.6 + depth / 2), size, foot, axis=(0, -1, 0))
    if words.feature(d.chance(), "rubble at its foot"):
        for x in spaced(3, w):
            boulder(b, d, (x, 0, d.real(0.4, 0.8)), (0.15, d.real(0.08, 0.2), 0.15), 0.3, 3, 5)


@family("log")
def log(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["lying", "stump", "pile", "hollow"])
    r, long = d.real(0.15, 0.35), d.real(0.9, 2.0)
    words.measure(r, 0.2, "thin", 0.29, "thick")
    if words.feature(style == "stump", "a cut top and roots"):
        h = long * d.real(0.2, 0.6)
        b.cylinder((0, 0, 0), h, r * d.real(1.1, 1.4), r)
        for c, s in around(d.whole(3, 6), d.real(0, 1)):
            b.rod((c * r * 0.5, h * 0.35, s * r * 0.5), (c * r * 2.1, 0, s * r * 2.1), r * 0.4, r * 0.1)
        return
    words.adjectives.append(style)
    if style == "pile":
        rows = d.whole(2, 3)
        for row in range(rows):
            for z in spaced(rows - row + 1, 2 * r * (rows - row + 1)):
                half = long * d.real(0.45, 0.55)
                b.rod((-half, r + row * r * 1.75, z), (half, r + row * r * 1.75, z), r * d.real(0.85, 1))
        return
    b.rod((-long / 2, r, 0), (long / 2, r, 0), r, r * d.real(0.7, 1), caps=style != "hollow")
    if style == "hollow":
        b.rod((-long / 2, r, 0), (long / 2, r, 0), r * 0.75, r * 0.65, caps=False)
    for _ in range(words.count(d.whole(1, 3), "branch stub") if d.chance(0.7) else 0):
        x, a = d.real(-0.4, 0.4) * long, d.real(0.3, 2.8)
        tip = (x + d.real(0, 0.3), r + math.sin(a) * r * d.real(1.6, 3.5), math.cos(a) * r * 2.5)
        b.rod((x, r, 0), tip, r * 0.3, r * 0.2)


@family("flower")
def flower(b: Parts, d: Dice, words: Words) -> None:
    h, r, petals = d.real(0.3, 1.0), d.real(0.2, 0.45), words.count(d.whole(4, 10), "petal")
    words.measure(h, 0.5, "short-stemmed", 0.9, "long-stemmed")
    style = d.pick(["flat", "cupped", "tulip-like", "hanging"])
    words.adjectives.append(style)
    lean = d.real(-0.2, 0.2)
    top: Point = (lean, h, 0.0)
    b.path([(0, 0, 0), (lean * 0.3, h * 0.6, 0), top], 0.025, 0.018)
    lift = {"flat": d.real(-0.1, 0.2), "cupped": d.real(0.5, 1.0), "tulip-like": 2.5, "hanging": -1.2}[style]
    thin = 2.6 * r / petals**0.6
    for c, s in around(petals):
        axis = (c, lift, s)
        b.box(top, (0.02, r * 0.6, r * 0.1), (0.02, thin), axis=axis, level=True)
        k = 0.55 * r / math.hypot(1, lift)
        at, half = (top[0] + c * k, h + lift * k, s * k), (0.02, r * 0.5, thin)
        b.box(at, half, (0.01, thin * 0.3), axis=axis, level=True)
    b.ball(top, (r * 0.3, r * d.real(0.12, 0.3), r * 0.3))
    for i in range(words.count(d.whole(1, 4), "leaf") if d.chance(0.6) else 0):
        axis = (math.cos(2.4 * i), d.real(0.4, 1.2), math.sin(2.4 * i))
        b.box((0, h * 0.1 * i, 0), (0.02, h * 0.35, 0.1), (0.01, 0.02), axis=axis)


@family("tuft of grass")
def tuft(b: Parts, d: Dice, words: Words) -> None:
    blades, h, spread = d.whole(7, 24), d.real(0.3, 0.9), d.real(0.1, 0.5)
    words.measure(blades, 12, "sparse", 18, "dense")
    words.measure(h, 0.45, "short", 0.7, "tall")
    style = d.pick(["bent blades", "straight blades", "reeds", "broad leaves"])
    words.features.append(style)
    for _ in range(blades):
        a, out, tall = d.real(0, 2 * math.pi), d.real(0, spread), h * d.real(0.6, 1.1)
        c, s = math.cos(a), math.sin(a)
        root, lean = (c * out * 0.5, 0.0, s * out * 0.5), d.real(0.1, 0.9) * h * 0.8
        mid = (root[0] + c * lean * 0.3, tall * 0.65, root[2] + s * lean * 0.3)
        if style == "reeds":
            tip = (root[0] + c * lean * 0.3, tall, root[2] + s * lean * 0.3)
            b.rod(root, tip, h * 0.015)
            b.rod((root[0] + c * lean * 0.24, tall * 0.8, root[2] + s * lean * 0.24), tip, h * 0.035)
            continue
        w = h * (0.12 if style == "broad leaves" else 0.04)
        side: Point = (-s * w, 0.0, c * w)
        drop = -0.2 if style != "straight blades" else 0.3
        tip = (mid[0] + c * lean * 0.7, mid[1] + tall * drop, mid[2] + s * lean * 0.7)
        left, right = ((p[0] - k * side[0], p[1], p[2] - k * side[2]) for p, k in ((mid, 1), (mid, -1)))
        foot: list[Point] = [(root[0] + k * side[0], 0, root[2] + k * side[2]) for k in (-0.5, 0.5)]
        b.sheet([foot, [left, right], [tip, tip]])


@family("bush")
def bush(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["round", "hedge", "clipped", "leafy", "berry"])
    words.adjectives.append(style)
    r, h = d.real(0.3, 0.6), d.real(0.4, 0.9)
    words.measure(h, 0.5, "low", 0.75, "tall")
    if style == "hedge":
        long = d.real(1.2, 2.6)
        b.box((0, 0, 0), (long, h, r), (long * d.real(0.9, 1), r * d.real(0.7, 1.1)))
        for x in spaced(words.count(d.whole(3, 6), "clump"), long):
            b.ball((x, h * d.real(0.7, 0.95), d.real(-0.1, 0.1)), (r * 0.6, r * d.real(0.2, 0.5), r * 0.55))
    elif style == "clipped":
        b.cylinder((0, 0, 0), h * 0.4, 0.05)
        for i in range(words.count(d.whole(1, 3), "ball")):
            b.ball((0, h * 0.4 + r * (0.9 + 1.7 * i), 0), r * (1 - 0.2 * i))
    else:
        for c, s in around(words.count(d.whole(2, 6), "clump"), d.real(0, 3)):
            size, at = r * d.real(0.6, 1), (c * r * d.real(0.3, 1), 0.0, s * r * d.real(0.3, 1))
            if style == "leafy":
                for _ in range(10):
                    axis = (d.real(-1, 1), d.real(0.1, 1.2), d.real(-1, 1))
                    b.box(at, (0.02, h * d.real(0.5, 0.9), 0.04), (0.02, size * 0.6), axis=axis)
            else:
                b.ball((at[0], h * 0.4, at[2]), (size, h * d.real(0.4, 0.65), size), low=-0.6)
        for _ in range(12 if style == "berry" else 0):
            a, up, k = d.real(0, 6.28), d.real(0, 1.3), 1.4 * r
            out = k * math.cos(up)
            b.ball((out * math.cos(a), h * (0.4 + 0.6 * math.sin(up)), out * math.sin(a)), 0.05)


@family("bare tree")
def bare_tree(b: Parts, d: Dice, words: Words) -> None:
    fork, depth, spread = d.whole(2, 3), d.whole(2, 4), d.real(0.4, 0.95)
    depth = min(depth, 3) if fork == 3 else depth
    words.measure(spread, 0.55, "narrow", 0.78, "spreading")
    words.features.append(f"{'two' if fork == 2 else 'three'}-way forks")
    words.feature(depth > 2, "many branches", "few branches")
    shrink = d.real(0.6, 0.85)

    def grow(start: Point, axis: Point, long: float, r: float, left: int) -> None:
        end = (start[0] + axis[0] * long, start[1] + axis[1] * long, start[2] + axis[2] * long)
        b.rod(start, end, r, r * 0.65, caps=left == 0)
        if left == 0:
            return
        for c, s in around(fork, d.real(0, 6)):
            k, up = spread * d.real(0.6, 1.2), d.real(-0.1, 0.25)
            x, y, z = axis[0] + c * k, axis[1] + up, axis[2] + s * k
            n = math.hypot(x, y, z)
            grow(end, (x / n, y / n, z / n), long * shrink * d.real(0.75, 1.1), r * 0.62, left - 1)

    r = d.real(0.06, 0.14)
    grow((0, 0, 0), (d.real(-0.15, 0.15), 1, 0), d.real(0.6, 1.1), r, depth)
    if words.feature(d.chance(0.4), "spread roots"):
        for c, s in around(5):
            b.rod((0, 0.15, 0), (c * r * 3, 0, s * r * 3), r * 0.6, r * 0.2)


@family("crystal")
def crystal(b: Parts, d: Dice, words: Words) -> None:
    count, sides = words.count(d.whole(1, 8), "spike"), d.whole(4, 8)
    cut = d.chance(0.25)
    words.feature(cut, "the cut of a gem")
    for i in range(1 if cut else count):
        h, r = d.real(0.4, 1.3) * (1 if i else 1.3), d.real(0.1, 0.25)
        lean, a = (d.real(0.2, 0.8) if i else d.real(0, 0.15)), 2.4 * i
        if cut:
            rise = d.real(0.1, 0.3)
            top, flat = h * (0.5 + rise), r * d.real(0.9, 1.6)
            profile = [(0.0, 0.0), (r * 2, h * 0.5), (r * 2, h * 0.53), (flat, top), (0.0, top)]
        else:
            profile = [(r * d.real(0.5, 1), 0.0), (r, h * d.real(0.5, 0.8)), (0.0, h)]
        x, z = lean * math.cos(a), lean * math.sin(a)
        turns = [*around(sides), (1.0, 0.0)]
        b.sheet([[(c * k + x * (y + 0.2), y, s * k + z * (y + 0.2)) for c, s in turns] for k, y in profile])
    if words.feature(not cut and d.chance(), "a base of rock"):
        boulder(b, d, (0, -0.12, 0), (0.5, 0.15, 0.5), 0.2, 4, 7)
