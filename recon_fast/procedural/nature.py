"""Things that grow, and those made of snow. One unit is about a metre."""

import math

from recon_fast.procedural.family import NUMBERS, Dice, Parts, Words, around, family


@family("tree")
def tree(b: Parts, d: Dice, words: Words) -> None:
    trunk, r = d.real(0.6, 1.8), d.real(0.06, 0.14)
    b.cylinder((0, 0, 0), trunk, r * 1.3, r * 0.8)
    spread = d.real(0.5, 1.0)
    words.measure(trunk, 0.9, "low", 1.4, "tall")
    words.measure(spread, 0.62, "narrow", 0.85, "spreading")
    crowns = d.whole(1, 6)
    for i in range(crowns):
        a = 2 * math.pi * i / crowns + d.real(0, 1)
        away = 0.0 if crowns == 1 else spread * d.real(0.4, 0.8)
        at = (away * math.cos(a), trunk + spread * d.real(0.2, 0.9), away * math.sin(a))
        b.ball(at, (spread * d.real(0.45, 0.7), spread * d.real(0.35, 0.7), spread * d.real(0.45, 0.7)))
        b.rod((0, trunk * 0.8, 0), at, r * 0.6, r * 0.2)
    words.feature(crowns == 1, "a single crown", f"{NUMBERS[crowns]} clumps of leaves")


@family("conifer")
def conifer(b: Parts, d: Dice, words: Words) -> None:
    h, r, tiers = d.real(1.4, 3.0), d.real(0.4, 0.8), words.count(d.whole(2, 6), "tier")
    words.measure(r / h, 0.22, "slender", 0.36, "broad")
    bare = d.real(0.1, 0.35) * h
    b.cylinder((0, 0, 0), bare + 0.1, 0.09)
    step = (h - bare) / tiers
    for i in range(tiers):
        k = 1 - i / (tiers + 0.5)
        b.cylinder((0, bare + i * step, 0), step * d.real(1.2, 1.6), r * k, r * k * 0.15)


@family("palm")
def palm(b: Parts, d: Dice, words: Words) -> None:
    h, lean = d.real(1.5, 3.0), d.real(0, 0.9)
    words.measure(lean, 0.25, "upright", 0.6, "leaning")
    last = (0.0, 0.0, 0.0)
    for i in range(1, 6):
        now = (lean * (i / 5) ** 2, h * i / 5, 0.0)
        b.rod(last, now, 0.11 - 0.008 * i, 0.1 - 0.008 * i, caps=False)
        last = now
    leaves, reach = words.count(d.whole(5, 9), "frond"), d.real(0.6, 1.1)
    for c, s in around(leaves):
        droop = d.real(0.1, 0.7)
        b.box(last, (0.05, reach * 0.55, 0.16), (0.05, 0.22), axis=(c, 0.5, s))
        tip = (last[0] + c * reach * 0.5, last[1] + reach * 0.25, last[2] + s * reach * 0.5)
        b.box(tip, (0.05, reach * 0.6, 0.22), (0.02, 0.02), axis=(c, -droop, s))
    if words.feature(d.chance(0.4), "coconuts"):
        for i in range(3):
            b.ball((last[0] + 0.12 * math.cos(2.1 * i), last[1] - 0.1, 0.12 * math.sin(2.1 * i)), 0.09)


@family("cactus")
def cactus(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(0.9, 2.0), d.real(0.12, 0.25)
    words.measure(h / r, 6, "stout", 10, "slender")
    b.cylinder((0, 0, 0), h, r, caps=False)
    b.ball((0, h, 0), r, low=0)
    count = words.count(d.whole(1, 4), "arm")
    for i in range(count):
        a, y = 2 * math.pi * i / count + d.real(-0.3, 0.3), h * d.real(0.25, 0.6)
        c, s, reach = math.cos(a), math.sin(a), r + d.real(0.15, 0.35)
        b.rod((0, y, 0), (c * reach, y, s * reach), r * 0.6)
        rise = h * d.real(0.2, 0.45)
        b.cylinder((c * reach, y, s * reach), rise, r * 0.6, caps=False)
        b.ball((c * reach, y + rise, s * reach), r * 0.6)


@family("mushroom")
def mushroom(b: Parts, d: Dice, words: Words) -> None:
    h, r = d.real(0.4, 1.2), d.real(0.4, 0.8)
    words.measure(r / h, 0.55, "slender", 1.1, "broad")
    b.cylinder((0, 0, 0), h, r * d.real(0.15, 0.4), r * d.real(0.12, 0.3))
    cap = d.pick(["domed", "flat", "conical"])
    if cap == "conical":
        b.cylinder((0, h * 0.95, 0), r * d.real(0.7, 1.2), r, 0.02)
    else:
        b.ball((0, h * 0.95, 0), (r, r * (0.3 if cap == "flat" else d.real(0.6, 1.0)), r), low=0)
        b.cylinder((0, h * 0.95, 0), 0.02, r)
    words.features.append(f"a {cap} cap")
    if words.feature(d.chance(0.35), "a ring on the stem"):
        b.cylinder((0, h * 0.6, 0), 0.06, r * 0.5, r * 0.3)


@family("potted plant")
def potted_plant(b: Parts, d: Dice, words: Words) -> None:
    r, pot = d.real(0.2, 0.35), d.real(0.25, 0.5)
    b.cylinder((0, 0, 0), pot, r * d.real(0.6, 0.9), r)
    style = d.pick(["leafy", "bushy", "flowering"])
    words.adjectives.append(style)
    if style == "bushy":
        for _ in range(d.whole(2, 5)):
            at = (d.real(-0.2, 0.2), pot + d.real(0.2, 0.6), d.real(-0.2, 0.2))
            b.ball(at, d.real(0.15, 0.32))
        return
    count = d.whole(4, 9)
    for c, s in around(count):
        lean, rise = d.real(0.1, 0.6), d.real(0.4, 0.9)
        tip = (lean * c, pot + rise, lean * s)
        if style == "leafy":
            b.box((0, pot, 0), (0.04, rise, 0.18), (0.01, 0.02), axis=(tip[0], rise, tip[2]))
        else:
            b.rod((0, pot, 0), tip, 0.015)
            b.ball(tip, (0.09, 0.05, 0.09))
    words.features.append(f"{NUMBERS[count]} {'leaves' if style == 'leafy' else 'flowers'}")


@family("snowman")
def snowman(b: Parts, d: Dice, words: Words) -> None:
    balls, r, y = words.count(d.whole(2, 3), "ball"), d.real(0.4, 0.6), 0.0
    for _ in range(balls):
        b.ball((0, y + r, 0), r)
        y, r = y + r * 1.75, r * d.real(0.65, 0.8)
    head = r / 0.72
    b.rod((0, y - head * 0.7, head * 0.7), (0, y - head * 0.75, head * 1.6), head * 0.16, 0.01)
    if words.feature(d.chance(0.6), "a top hat"):
        b.cylinder((0, y, 0), 0.04, head * 1.1)
        b.cylinder((0, y, 0), head * d.real(0.7, 1.3), head * 0.7)
    if words.feature(d.chance(0.6), "stick arms"):
        for sx in (-1, 1):
            b.rod((sx * head, y * 0.55, 0), (sx * head * 2.4, y * d.real(0.55, 0.8), 0), 0.03)
