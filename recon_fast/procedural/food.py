"""Things to eat. One unit is about a decimetre."""

import math

from recon_fast.procedural.family import Dice, Parts, Point, Words, around, curve, family, spaced
from recon_fast.procedural.vessels import hollow


@family("fruit")
def fruit(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(
        ["apple", "pear", "banana", "grape", "pumpkin", "carrot", "strawberry", "pineapple", "cherry"]
    )
    words.adjectives.append(f"{style}-like")
    r, h = d.real(0.4, 0.6), d.real(0.8, 1.2)
    words.measure(h, 0.93, "flat", 1.07, "long")
    if style == "apple":
        dip = r * 0.6
        b.revolve((0, 0, 0), curve(12, [r * 0.3, r * 0.9, r * 1.05, r * 0.9, r * 0.35], h * 0.9))
        b.cylinder((0, h * 0.9 - 0.1, 0), 0.1, 0.02, dip * 0.6, caps=False)
    elif style == "pear":
        b.revolve((0, 0, 0), curve(14, [0.05, r * 0.95, r, r * 0.55, r * 0.4, 0.0], h * 1.3))
    elif style == "banana":
        for z in spaced(words.count(d.whole(1, 4), "banana"), 0.2):
            bend, points = d.real(0.7, 1.1), list[Point]()
            for i in range(8):
                a = -bend + 2 * bend * i / 7
                points.append((h * math.sin(a), h * (1 - math.cos(a)), z * 2.5 * (1 - i / 9)))
            b.path(points[:4], 0.05, 0.16)
            b.path(points[3:], 0.16, 0.05)
    elif style == "grape":
        for i in range(14):
            a, k = 2.4 * i, math.sqrt((i + 0.5) / 14)
            b.ball((0.45 * k * math.cos(a), h * k * 1.1, 0.45 * k * math.sin(a)), d.real(0.16, 0.2))
    elif style == "pumpkin":
        for c, s in around(words.count(d.whole(6, 9), "rib")):
            b.ball((c * r * 0.5, h * 0.4, s * r * 0.5), (r * 0.6, h * 0.45, r * 0.6))
    elif style == "cherry":
        for sx in (-1, 1):
            b.ball((sx * 0.35, 0.3, 0), 0.3)
            b.path([(sx * 0.35, 0.5, 0), (sx * 0.28, h, 0), (0, h * 1.4, 0)], 0.025)
    else:
        thin = {"carrot": 0.45, "strawberry": 0.95, "pineapple": 0.8}[style]
        low = [r * thin * 0.75, r * thin] if style == "pineapple" else [0.02, r * thin * 0.55]
        tall = h * {"carrot": 2.2, "strawberry": 0.9, "pineapple": 1.4}[style]
        b.revolve((0, 0, 0), curve(10, [*low, r * thin, r * thin * 0.6], tall))
        for i in range(5 if style == "pineapple" else 0):
            b.ring((0, tall * (0.1 + 0.18 * i), 0), r * thin, 0.04)
        for c, s in around(d.whole(4, 8)):
            up = 0.3 if style == "strawberry" else d.real(1, 3)
            size = (0.04, r * (0.5 if up < 1 else 1.4), 0.15)
            b.box((0, tall, 0), size, (0.02, 0.02), axis=(c, up, s), level=True)
        return
    if words.feature(style in ("apple", "pear", "pumpkin", "grape") and d.chance(0.8), "a stalk"):
        top = h * {"pear": 1.28, "pumpkin": 0.8, "grape": 1.2}.get(style, 0.85)
        b.rod((0, top, 0), (d.real(-0.1, 0.15), top + 0.25, 0), 0.05, 0.03)
        if words.feature(d.chance(0.5), "a leaf"):
            b.box((0, top + 0.1, 0), (0.02, 0.35, 0.18), (0.01, 0.02), axis=(1, 0.5, 0.3), level=True)


@family("cake")
def cake(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["round", "square", "slice", "cupcake", "ring", "pie"])
    words.adjectives.append(
        {"slice": "sliced", "cupcake": "cup", "pie": "pie-like", "ring": "ring-shaped"}.get(style, style)
    )
    r, h, y = d.real(0.6, 1.0), d.real(0.25, 0.5), 0.0
    words.measure(h / r, 0.35, "flat", 0.6, "tall")
    if style == "ring":
        b.ring((0, h, 0), r * 0.65, h * d.real(0.6, 1))
        for i in range(10):
            a, k = 2.4 * i, h * 0.85
            b.ball((r * 0.65 * math.cos(a), h + k, r * 0.65 * math.sin(a)), 0.05)
        return
    if style == "slice":
        wide = d.real(0.5, 1.0)
        layers = words.count(d.whole(1, 3), "layer")
        for i in range(layers):
            b.box((0, (i + 0.45) * h, 0), (h * 0.9, r * 1.4, 0.02), (h * 0.9, wide), axis=(1, 0, 0))
        b.ball((r * 1.1, layers * h + 0.1, 0), 0.13)
        return
    if style in ("cupcake", "pie"):
        low, k = (0.5, 0.75) if style == "cupcake" else (0.85, 1.0)
        b.cylinder((0, 0, 0), h * 1.2, r * low, r * k)
        y = h * 1.2
        if style == "pie":
            for x in spaced(4, r * 1.5):
                half = math.sqrt(r * r - x * x)
                b.rod((x, y, -half), (x, y, half), 0.07)
                b.rod((-half, y + 0.05, x), (half, y + 0.05, x), 0.07)
            b.ring((0, y, 0), r, 0.1)
            return
        swirls = words.count(d.whole(2, 4), "swirl")
        for i in range(swirls):
            b.ring((0, y + 0.2 * i, 0), r * 0.5 * (1 - i / swirls), 0.2)
    else:
        tiers = words.count(d.whole(1, 3), "tier")
        for i in range(tiers):
            k = r * (1 - 0.28 * i)
            if style == "round":
                b.cylinder((0, y, 0), h, k)
                b.ring((0, y + h, 0), k * 0.97, 0.06)
                b.ring((0, y, 0), k, 0.06)
            else:
                b.box((0, y, 0), (2 * k, h, 2 * k))
                b.box((0, y + h * 0.9, 0), (2.05 * k, h * 0.12, 2.05 * k))
            y += h
    top = d.pick(["candles", "cherries", "a single cherry"])
    words.features.append(top)
    for c, s in around(1 if top == "a single cherry" else d.whole(3, 8)):
        k = 0.0 if top == "a single cherry" else r * 0.3
        if top == "candles":
            b.cylinder((c * k, y, s * k), 0.4, 0.03)
            b.ball((c * k, y + 0.45, s * k), (0.03, 0.06, 0.03))
        else:
            b.ball((c * k, y + (0.6 if style == "cupcake" and k == 0 else 0.1), s * k), 0.12)


@family("sandwich")
def sandwich(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["burger", "hot dog", "toast", "sub", "taco"])
    words.adjectives.append(f"{style}-like")
    r, y, t = d.real(0.5, 0.8), d.real(0.1, 0.25), d.real(0.06, 0.14)
    words.measure(y, 0.14, "thin-bottomed", 0.21, "thick-bottomed")
    long = r * (2.2 if style in ("hot dog", "sub") else 1.0)
    if style == "hot dog":
        for sz in (-1, 1):
            b.ball((0, y, sz * r * 0.35), (long, y + 0.1, r * 0.4))
        b.rod((-long * 1.05, y + 0.2, 0), (long * 1.05, y + 0.2, 0), 0.2)
        b.path([(x, y + 0.4, 0.12 * (-1) ** i) for i, x in enumerate(spaced(10, long * 1.8))], 0.035)
        return
    if style == "taco":
        for sz in (-1, 1):
            b.ball((0, 0, sz * 0.2), (r * 1.1, r * 1.6, 0.1), low=0)
        for x in spaced(words.count(d.whole(4, 7), "filling"), r * 1.6):
            b.ball((x, r * 1.2 + math.sqrt(max(r * r - x * x, 0)) * 0.6, 0), d.real(0.18, 0.28))
        return
    fillings = words.count(d.whole(1, 5), "filling")
    square = style == "toast"
    if square:
        b.box((0, 0, 0), (2 * r, y, 2 * r))
    else:
        b.ball((0, y, 0), (long, y, r), high=0)
    for _ in range(fillings):
        k = d.real(0.9, 1.15)
        if square or d.chance(0.3):
            b.box((0, y, 0), (2 * long * k * 0.9, t, 2 * r * k * 0.9))
        else:
            b.ball((0, y + t / 2, 0), (long * k, t * 0.7, r * k))
        y += t
    if square:
        b.box((0, y, 0), (2 * r, d.real(0.1, 0.2), 2 * r))
    else:
        b.ball((0, y, 0), (long, r * d.real(0.4, 0.7), r), low=0)
        if words.feature(d.chance(0.5), "seeds"):
            for i in range(8):
                a, k = 2.4 * i, math.sqrt(i / 9) * 0.7
                b.ball(
                    (long * k * math.cos(a), y + r * 0.55 * math.sqrt(1 - k * k), r * k * math.sin(a)), 0.04
                )
    if words.feature(d.chance(0.3), "a stick through it"):
        b.cylinder((0, 0, 0), y + r * 1.1, 0.025)
        b.ball((0, y + r * 1.1, 0), 0.08)


@family("pizza")
def pizza(b: Parts, d: Dice, words: Words) -> None:
    r, t = d.real(0.8, 1.3), d.real(0.04, 0.1)
    n = d.whole(6, 8)
    slices = n if words.feature(d.chance(0.45), "no slice missing") else d.whole(1, n - 1)
    words.measure(slices / n, 0.3, "sliced", 0.9, "whole")
    words.measure(t, 0.06, "thin", 0.085, "thick")
    points = [
        (math.cos(2 * math.pi * i / n / 3), math.sin(2 * math.pi * i / n / 3)) for i in range(3 * slices + 1)
    ]
    for y in (0.0, t):
        b.sheet([[(0.0, y, 0.0)] * len(points), [(c * r, y, s * r) for c, s in points]])
    b.ring((0, t, 0), r * 0.97, t * d.real(0.8, 1.8), arc=(0, 360 * slices / n))
    topping = d.pick(["slices of sausage", "olives", "peppers"])
    words.features.append(topping)
    for _ in range(words.count(min(10, max(2, slices + d.whole(0, 3))), "topping")):
        a, k = d.real(0.15, 2 * math.pi * slices / n - 0.1), r * d.real(0.3, 0.85)
        at = (k * math.cos(a), t, k * math.sin(a))
        if topping == "olives":
            b.ring((at[0], t + 0.03, at[2]), 0.06, 0.035)
        elif topping == "peppers":
            b.ring((at[0], t + 0.02, at[2]), 0.11, 0.025, (0, 1, 0), (0, 220))
        else:
            b.cylinder(at, 0.04, 0.13)
    if words.feature(d.chance(0.3), "a plate"):
        b.cylinder((0, -0.1, 0), 0.06, r * 0.7, r * 1.15)


@family("ice cream")
def ice_cream(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["cone", "cone", "cup", "lolly", "soft"])
    words.features.append({"soft": "a soft swirl"}.get(style, f"a {style}"))
    r, h = d.real(0.3, 0.45), d.real(0.8, 1.4)
    words.measure(h / r, 2.6, "short", 3.6, "long")
    if style == "lolly":
        bars = spaced(d.whole(1, 2), r * 1.6)
        for x in bars:
            b.box((x, 0.5, 0), (r * 1.3, h, r * 0.6), (r * 1.2, r * 0.5))
            b.ball((x, 0.5 + h, 0), (r * 0.62, r * d.real(0.2, 0.6), r * 0.27))
            b.box((x, 0, 0), (r * 0.35, 0.5, r * 0.12))
        words.feature(len(bars) > 1, "two sticks", "one stick")
        return
    if style == "cup":
        hollow(b, [(r * 0.7, 0), (r * 1.3, h * 0.6)], 0.03)
        b.cylinder((0, -0.25, 0), 0.3, r, r * 0.3)
        h *= 0.55
    else:
        b.cylinder((0, 0, 0), h, 0.02, r, caps=False)
        for i in range(d.whole(0, 3)):
            b.ring((0, h * (0.4 + 0.2 * i), 0), r * (0.4 + 0.2 * i), 0.03)
    if style == "soft":
        swirls = words.count(d.whole(3, 5), "swirl")
        for i in range(swirls):
            b.ring((0, h + 0.22 * i, 0), r * 0.75 * (1 - i / swirls), 0.2)
        b.rod((0, h + 0.22 * swirls - 0.2, 0), (0, h + 0.22 * swirls + 0.15, 0), 0.15, 0.0)
    else:
        scoops = words.count(d.whole(1, 3), "scoop")
        heap = style == "cup" or (scoops == 3 and d.chance())
        for i in range(scoops):
            a = 2 * math.pi * i / scoops
            k = r * 0.5 if heap and scoops > 1 else 0.0
            up = h + r * 0.6 + (0.0 if heap else i * r * 1.35)
            b.ball((k * math.cos(a), up, k * math.sin(a)), r * d.real(0.85, 1.05))
    if words.feature(d.chance(0.35), "a wafer"):
        b.rod((r * 0.3, h + r, 0), (r * d.real(0.8, 1.4), h + r * d.real(2.2, 3.0), 0), 0.06)
    if words.feature(d.chance(0.3), "sprinkles"):
        for _ in range(8):
            a = d.real(0, 6.28)
            b.ball((r * 0.95 * math.cos(a), h + r * d.real(0.3, 1.1), r * 0.95 * math.sin(a)), 0.04)
