"""Things to sit on, lie on, put things on and into. One unit is about a metre."""

from recon_fast.procedural.family import CORNERS, Dice, Parts, Words, around, family, spaced


def legs(b: Parts, d: Dice, w: float, depth: float, height: float, words: Words) -> None:
    """Four legs under a plate of w by depth, upright or splayed, round, square or on skids."""
    style = d.pick(["round", "square", "tapered", "splayed", "skid"])
    r = d.real(0.015, 0.045)
    x, z = w / 2 - r * 1.5, depth / 2 - r * 1.5
    spread = d.real(0.04, 0.12) if style == "splayed" else 0.0
    for sx, sz in CORNERS:
        foot = (sx * (x + spread), 0.0, sz * (z + spread))
        if style in ("square", "skid"):
            b.box(foot, (2 * r, height, 2 * r))
        else:
            b.rod(foot, (sx * x, height, sz * z), r * (0.6 if style == "tapered" else 1), r)
        if style == "skid" and sz == 1:
            b.box((sx * x, 0, 0), (2 * r, 2 * r, 2 * z))
    if words.feature(style != "skid" and d.chance(0.3), "a stretcher between the legs"):
        y = height * d.real(0.2, 0.6)
        for sx in (-1, 1):
            b.rod((sx * x, y, -z), (sx * x, y, z), r * 0.6)
        b.rod((-x, y, 0), (x, y, 0), r * 0.6)
    words.features.append({"skid": "skid legs"}.get(style, f"four {style} legs"))


def backrest(b: Parts, d: Dice, w: float, depth: float, seat: float, height: float, words: Words) -> None:
    """A back behind the seat (at -z), leaning: solid, slatted, or barred."""
    lean = d.real(0.0, 0.25) * height
    z = -depth / 2 + 0.03
    style = d.pick(["solid", "slatted", "barred", "rounded"])
    words.features.append(f"a {style} back")
    if style == "solid":
        b.box((0, seat, z), (w, height, d.real(0.03, 0.08)), shift=(0, -lean))
        return
    if style == "rounded":
        b.box((0, seat, z), (w * 0.16, height * 0.4, 0.03), shift=(0, -lean * 0.4))
        b.ball((0, seat + height * 0.55, z - lean * 0.6), (w * 0.48, height * 0.42, 0.04))
        return
    for sx in (-1, 1):
        b.rod((sx * (w / 2 - 0.03), seat, z), (sx * (w / 2 - 0.03), seat + height, z - lean), 0.025)
    count = d.whole(2, 5)
    if style == "slatted":
        for i in range(count):
            t = (i + 1) / count
            b.box((0, seat + t * height - 0.07, z - lean * t), (w - 0.05, d.real(0.04, 0.07), 0.02))
    else:
        for x in spaced(count, w - 0.1):
            b.rod((x, seat, z), (x, seat + height, z - lean), 0.012)
        b.box((0, seat + height, z - lean), (w, 0.06, 0.04))


def arms(b: Parts, d: Dice, w: float, depth: float, seat: float, height: float, solid: bool) -> None:
    """Armrests on both sides, as blocks or as bars on posts."""
    t = d.real(0.08, 0.18) if solid else 0.05
    for sx in (-1, 1):
        x = sx * (w / 2 + t / 2)
        if solid:
            b.box((x, 0.06, 0), (t, seat + height - 0.06, depth))
        else:
            b.box((x, seat + height, 0), (t, 0.04, depth * 0.9))
            b.rod((x, seat * 0.9, depth * 0.4), (x, seat + height, depth * 0.4), 0.02)
            b.rod((x, seat * 0.9, -depth * 0.4), (x, seat + height, -depth * 0.4), 0.02)


def seat_base(b: Parts, d: Dice, w: float, depth: float, seat: float, words: Words) -> None:
    """What a single seat stands on: four legs, a pedestal, or a star with castors."""
    style = d.pick(["legs", "legs", "pedestal", "star"])
    if style == "legs":
        legs(b, d, w, depth, seat, words)
        return
    b.cylinder((0, 0.06, 0), seat - 0.06, d.real(0.02, 0.05))
    if words.feature(style == "pedestal", "a round pedestal", "a star base on castors"):
        b.cylinder((0, 0, 0), 0.05, w * d.real(0.35, 0.5), w * 0.2)
        return
    for c, s in around(5):
        x, z = w * 0.5 * c, w * 0.5 * s
        b.rod((0, 0.09, 0), (x, 0.05, z), 0.025)
        b.ball((x, 0.03, z), 0.035)


@family("chair", parts=("seat", "base", "back"))
def chair(b: Parts, d: Dice, words: Words) -> None:
    w, depth, seat = d.real(0.38, 0.6), d.real(0.38, 0.55), d.real(0.38, 0.55)
    back = d.real(0.25, 0.75)
    words.measure(back, 0.38, "low-backed", 0.6, "high-backed")
    b.part("seat")
    b.box((0, seat, 0), (w, d.real(0.03, 0.12), depth))
    b.part("base")
    seat_base(b, d, w, depth, seat, words)
    b.part("back")
    backrest(b, d, w, depth, seat, back, words)


@family("armchair")
def armchair(b: Parts, d: Dice, words: Words) -> None:
    solid = d.chance()
    w, depth, seat = d.real(0.45, 0.75), d.real(0.45, 0.75), d.real(0.35, 0.5)
    words.measure(w, 0.53, "narrow", 0.67, "wide")
    b.box((0, seat - 0.1, 0), (w, d.real(0.1, 0.22), depth))
    if solid:
        b.box((0, 0.06, 0), (w, seat - 0.16, depth))
        words.features.append("block arms")
    else:
        seat_base(b, d, w, depth, seat - 0.1, words)
        words.features.append("open armrests")
    arms(b, d, w, depth, seat, d.real(0.15, 0.28), solid)
    backrest(b, d, w, depth, seat, d.real(0.35, 0.7), words)


@family("stool")
def stool(b: Parts, d: Dice, words: Words) -> None:
    seat, w = d.real(0.3, 0.85), d.real(0.28, 0.48)
    words.measure(seat, 0.45, "low", 0.65, "tall")
    if d.chance(0.6):
        b.cylinder((0, seat, 0), d.real(0.03, 0.12), w / 2, w / 2 * d.real(0.8, 1.1))
        words.adjectives.append("round")
        w *= 0.75
    else:
        b.box((0, seat, 0), (w, d.real(0.03, 0.1), w * d.real(0.7, 1.0)))
        words.adjectives.append("square")
    seat_base(b, d, w, w, seat, words)


@family("bench")
def bench(b: Parts, d: Dice, words: Words) -> None:
    w, depth, seat = d.real(1.0, 1.9), d.real(0.3, 0.5), d.real(0.38, 0.5)
    words.measure(w, 1.2, "short", 1.6, "long")
    planks = d.whole(1, 4)
    for z in spaced(planks, depth):
        b.box((0, seat, z), (w, 0.05, depth / planks * 0.85))
    if planks > 1:
        words.count(planks, "plank")
    if words.feature(d.chance(0.3), "slab supports"):
        for sx in (-1, 1):
            b.box((sx * w * 0.4, 0, 0), (d.real(0.08, 0.2), seat, depth * 0.9))
    else:
        legs(b, d, w, depth, seat, words)
    if d.chance(0.45):
        backrest(b, d, w, depth, seat + 0.05, d.real(0.3, 0.5), words)


@family("sofa")
def sofa(b: Parts, d: Dice, words: Words) -> None:
    seats = words.count(d.whole(2, 4), "cushion")
    w, depth, seat = seats * d.real(0.45, 0.65), d.real(0.6, 0.9), d.real(0.35, 0.48)
    foot = d.real(0.0, 0.15)
    b.box((0, foot, 0), (w, seat - foot - 0.12, depth))
    for x in spaced(seats, w):
        b.box((x, seat - 0.12, 0.05), (w / seats * 0.95, 0.15, depth * 0.9))
    back = d.real(0.3, 0.55)
    words.measure(back, 0.36, "low-backed", 0.47, "high-backed")
    b.box((0, foot, -depth / 2), (w, seat - foot + back, d.real(0.1, 0.22)), shift=(0, -d.real(0, 0.12)))
    arms(b, d, w, depth, seat, d.real(0.1, 0.25), solid=True)
    if words.feature(foot > 0.06, "short feet"):
        for sx, sz in CORNERS:
            b.cylinder((sx * w * 0.46, 0, sz * depth * 0.42), foot, 0.03)
    if d.chance(0.25):
        side = d.pick([-1, 1])
        b.box((side * w * 0.36, foot, depth * 0.85), (w * 0.28, seat - foot, depth * 0.7))
        words.adjectives.insert(0, "corner")


@family("bed")
def bed(b: Parts, d: Dice, words: Words) -> None:
    w, length, height = d.real(0.8, 2.0), d.real(1.8, 2.2), d.real(0.2, 0.5)
    words.measure(w, 1.2, "single", 1.5, "double")
    b.box((0, height - 0.1, 0), (w, d.real(0.15, 0.35), length), top=(w * 0.97, length * 0.97))
    head = height + d.real(0.3, 0.8)
    b.box((0, 0, -length / 2), (w, head, 0.07))
    words.features.append("a headboard")
    if words.feature(d.chance(0.4), "a footboard"):
        b.box((0, 0, length / 2), (w, head * d.real(0.4, 0.8), 0.07))
    for x in (0.0,) if w < 1.2 else (-0.5 * w * 0.5, 0.5 * w * 0.5):
        b.box((x, height + 0.08, -length * 0.38), (w * 0.36, 0.14, 0.36), top=(w * 0.3, 0.3))
    if d.chance():
        for sx in (-1, 1):
            b.cylinder((sx * w * 0.46, 0, length * 0.46), height, 0.04)
    else:
        b.box((0, 0, 0), (w * 0.95, height - 0.1, length * 0.95))
    if words.feature(d.chance(0.2), "four posts"):
        for sx, sz in CORNERS:
            b.cylinder((sx * w * 0.48, 0, sz * length * 0.48), head + 1.0, 0.04)


def tabletop(b: Parts, d: Dice, w: float, depth: float, height: float, words: Words) -> bool:
    """A plate at `height`; True if it is round."""
    t = d.real(0.025, 0.08)
    if d.chance(0.4):
        b.cylinder((0, height, 0), t, (w + depth) / 4)
        words.adjectives.append("round")
        return True
    b.box((0, height, 0), (w, t, depth))
    return False


def table_base(
    b: Parts, d: Dice, w: float, depth: float, height: float, is_round: bool, words: Words
) -> None:
    """Legs, a pedestal, trestles or side panels."""
    if is_round:
        w = depth = (w + depth) * 0.36
    style = d.pick(["legs", "legs", "pedestal", "trestles", "panels"])
    if style == "legs":
        legs(b, d, w * 0.95, depth * 0.95, height, words)
    elif words.feature(style == "pedestal", "a round pedestal"):
        b.revolve((0, 0, 0), [(w * 0.35, 0), (w * 0.3, 0.04), (0.05, 0.1), (0.05, height)])
    elif words.feature(style == "panels", "panel sides", "crossed trestles"):
        for sx in (-1, 1):
            b.box((sx * w * 0.44, 0, 0), (0.05, height, depth * 0.9))
    else:
        for sx, sz in CORNERS:
            b.rod((sx * w * 0.38, 0, sz * depth * 0.4), (sx * w * 0.38, height, -sz * depth * 0.15), 0.03)
        b.box((0, height * 0.35, 0), (w * 0.76, 0.05, 0.05))


@family("table", parts=("top", "base"))
def table(b: Parts, d: Dice, words: Words) -> None:
    w, depth, height = d.real(0.8, 1.9), d.real(0.6, 1.0), d.real(0.65, 0.95)
    words.measure(w, 1.05, "small", 1.6, "long")
    b.part("top")
    is_round = tabletop(b, d, w, depth, height, words)
    b.part("base")
    table_base(b, d, w, depth, height, is_round, words)


@family("coffee table")
def coffee_table(b: Parts, d: Dice, words: Words) -> None:
    w, depth, height = d.real(0.7, 1.3), d.real(0.5, 0.9), d.real(0.25, 0.42)
    words.measure(w, 0.85, "small", 1.15, "large")
    is_round = tabletop(b, d, w, depth, height, words)
    table_base(b, d, w, depth, height, is_round, words)
    if words.feature(d.chance(0.55), "a lower shelf"):
        if is_round:
            b.cylinder((0, height * 0.4, 0), 0.03, (w + depth) * 0.17)
        else:
            b.box((0, height * 0.4, 0), (w * 0.85, 0.03, depth * 0.85))


@family("desk")
def desk(b: Parts, d: Dice, words: Words) -> None:
    w, depth, height = d.real(0.9, 1.8), d.real(0.5, 0.85), d.real(0.65, 0.85)
    words.measure(w, 1.15, "narrow", 1.5, "wide")
    b.box((0, height, 0), (w, 0.04, depth))
    sides = d.pick([(-1,), (1,), (-1, 1)])
    for side in sides:
        x, low = side * w * 0.36, height * d.real(0.0, 0.45)
        b.box((x, low, 0), (w * 0.24, height - low, depth * 0.92))
        for i in range(3):
            y = low + (i + 0.5) / 3 * (height - low)
            b.rod((x - 0.05, y, depth * 0.48), (x + 0.05, y, depth * 0.48), 0.015)
    words.feature(len(sides) == 2, "drawers on both sides", "a drawer unit")
    for sx, sz in CORNERS:
        b.box((sx * w * 0.47, 0, sz * depth * 0.45), (0.04, height, 0.04))
    if words.feature(d.chance(0.5), "a back panel"):
        b.box((0, height * 0.4, -depth * 0.47), (w * 0.94, height * 0.6, 0.02))
    if words.feature(d.chance(0.3), "a raised shelf"):
        b.box((0, height + 0.3, -depth * 0.35), (w, 0.03, depth * 0.3))
        for sx in (-1, 1):
            b.box((sx * w * 0.48, height, -depth * 0.35), (0.03, 0.3, depth * 0.3))


@family("shelf")
def shelf(b: Parts, d: Dice, words: Words) -> None:
    w, height, depth = d.real(0.5, 1.6), d.real(0.8, 2.2), d.real(0.25, 0.5)
    words.measure(height, 1.2, "low", 1.8, "tall")
    words.measure(w, 0.8, "narrow", 1.25, "wide")
    boards = words.count(d.whole(3, 7), "board")
    for i in range(boards):
        b.box((0, height * i / (boards - 1) * 0.97, 0), (w, 0.03, depth))
    if words.feature(d.chance(0.6), "closed sides", "corner posts"):
        for sx in (-1, 1):
            b.box((sx * w / 2, 0, 0), (0.03, height, depth))
    else:
        for sx, sz in CORNERS:
            b.rod((sx * w / 2, 0, sz * depth / 2), (sx * w / 2, height, sz * depth / 2), 0.02)
    if words.feature(d.chance(0.5), "a back wall"):
        b.box((0, 0, -depth / 2), (w, height, 0.015))


@family("wardrobe")
def wardrobe(b: Parts, d: Dice, words: Words) -> None:
    w, height, depth = d.real(0.6, 1.8), d.real(0.9, 2.2), d.real(0.4, 0.7)
    words.measure(height, 1.2, "low", 1.8, "tall")
    words.measure(w, 0.85, "narrow", 1.4, "wide")
    foot = d.real(0, 0.15)
    b.box((0, foot, 0), (w, height, depth))
    if words.feature(foot > 0.05, "feet"):
        for sx, sz in CORNERS:
            b.box((sx * w * 0.45, 0, sz * depth * 0.42), (0.05, foot, 0.05))
    doors = words.count(d.whole(1, 3), "door")
    for x in spaced(doors, w):
        b.box((x, foot + 0.05, depth / 2), (w / doors * 0.93, height - 0.1, 0.02))
        knob, z = x + w / doors * 0.35, depth / 2 + 0.04
        b.rod((knob, foot + height * 0.45, z), (knob, foot + height * 0.55, z), 0.015)
    if words.feature(d.chance(0.4), "a cornice"):
        b.box((0, foot + height, 0), (w * 1.08, 0.06, depth * 1.1), top=(w * 1.0, depth))


@family("floor lamp", parts=("base", "pole", "shade"))
def floor_lamp(b: Parts, d: Dice, words: Words) -> None:
    height, r = d.real(0.5, 1.7), d.real(0.12, 0.3)
    words.measure(height, 0.8, "short", 1.4, "tall")
    b.part("base")
    if d.chance(0.6):
        b.cylinder((0, 0, 0), 0.04, r * d.real(0.6, 1.0), r * 0.5)
    else:
        for c, s in around(3):
            b.rod((r * c, 0, r * s), (0, height * 0.35, 0), 0.015)
        words.features.append("a tripod")
    arm = d.real(0.15, 0.4) if d.chance(0.35) else 0.0
    b.part("pole")
    b.cylinder((0, 0, 0), height, 0.02)
    if words.feature(arm, "a side arm"):
        b.rod((0, height, 0), (arm, height * 1.08, 0), 0.02)
    style = d.pick(["conical", "drum", "globe"])
    at = (arm, height * (1.08 if arm else 1.0) - 0.05, 0.0)
    b.part("shade")
    if style == "globe":
        b.ball((at[0], at[1] + r * 0.8, 0), r * 0.8)
    else:
        b.cylinder(at, r * d.real(0.8, 1.6), r, r * (0.5 if style == "conical" else 1.0), caps=False)
    words.features.append(f"a {style} shade")
