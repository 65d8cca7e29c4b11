"""Living things and their likenesses, x to the front. One unit is about a metre."""

import math

from recon_fast.procedural.family import CORNERS, Dice, Parts, Point, Words, around, family, spaced


def bone(b: Parts, start: Point, end: Point, r: float, end_r: float, blocky: bool) -> None:
    """A limb's half with a joint at its end: round, or a square beam."""
    if not blocky:
        b.rod(start, end, r, end_r, caps=False)
        b.ball(end, end_r * 1.02)
        return
    axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    b.box(start, (2 * r, math.hypot(*axis) + end_r, 2 * r), (2 * end_r, 2 * end_r), axis=axis)


def block(b: Parts, center: Point, radii: Point, blocky: bool) -> None:
    """An ellipsoid, or the box around it."""
    if blocky:
        b.box((center[0], center[1] - radii[1], center[2]), (2 * radii[0], 2 * radii[1], 2 * radii[2]))
    else:
        b.ball(center, radii)


@family("person")
def person(b: Parts, d: Dice, words: Words) -> None:
    build = d.pick(["slim", "stocky", "big-headed", "blocky"])
    pose = d.pick(["standing", "walking", "sitting", "waving", "cheering"])
    words.adjectives += [pose, build]
    blocky, small = build == "blocky", build == "big-headed"
    head = d.real(0.2, 0.32) if small else d.real(0.1, 0.17)
    leg = d.real(0.35, 0.55) if small else d.real(0.65, 0.95)
    r = d.real(0.08, 0.12) if build != "slim" else d.real(0.05, 0.075)
    hip, torso, wide = leg * (0.5 if pose == "sitting" else 1), d.real(0.45, 0.65), r * d.real(1.6, 2.4)
    swing = d.real(0.3, 0.7) if pose == "walking" else 0.0
    for sz in (-1, 1):
        knee: Point = (leg * 0.5 * math.sin(sz * swing), hip - leg * 0.5 * math.cos(swing), sz * r * 1.15)
        foot: Point = (2 * knee[0] - (0.1 if sz * swing < 0 else 0), 0.03, sz * r * 1.3)
        if pose == "sitting":
            knee, foot = (leg * 0.55, hip, sz * r * 1.3), (leg * 0.6, 0, sz * r * 1.3)
        bone(b, (0, hip, sz * r), knee, r, r * 0.8, blocky)
        bone(b, knee, foot, r * 0.8, r * 0.6, blocky)
        block(b, (foot[0] + r * 0.6, foot[1], foot[2]), (r * 1.5, r * 0.6, r * 0.75), blocky)
        lift = {"cheering": d.real(0.4, 1.3), "waving": d.real(0.2, 1.3) if sz == 1 else -1.3}.get(
            pose, -1.25
        )
        ahead, reach = -sz * swing * 0.7 + (0.4 if pose == "sitting" else 0), leg * 0.38
        shoulder = (0.0, hip + torso * 0.88, sz * wide * 1.1)
        out = (reach * ahead, reach * math.sin(lift), sz * reach * max(math.cos(lift), 0.25))
        elbow = (out[0], shoulder[1] + out[1], shoulder[2] + out[2])
        hand = (elbow[0] + reach * (0.3 + ahead), elbow[1] + out[1] * 1.1, elbow[2] + out[2] * 0.3)
        bone(b, shoulder, elbow, r * 0.75, r * 0.6, blocky)
        bone(b, elbow, hand, r * 0.6, r * 0.55, blocky)
    shape = (r * d.real(1.8, 2.4), wide * d.real(1.7, 2.1))
    b.box((0, hip - r * 0.5, 0), (r * 2.2, torso + r * 0.5, wide * d.real(1.5, 2.2)), shape)
    top = hip + torso + head * 1.1
    block(b, (0, top, 0), (head, head * d.real(1.0, 1.25), head * d.real(0.85, 1.0)), blocky)
    if words.feature(d.chance(0.25), "a skirt"):
        b.cylinder((0, hip - leg * 0.4, 0), leg * 0.5, r * 3, wide)
    if words.feature(d.chance(0.3), "a hat"):
        b.cylinder((0, top + head * 0.6, 0), 0.03, head * d.real(1.1, 1.8))
        b.cylinder((0, top + head * 0.6, 0), head * d.real(0.5, 1.4), head * 0.9, head * d.pick([0.0, 0.8]))
    if words.feature(d.chance(0.2), "a backpack"):
        b.box((-r * 2, hip + torso * 0.2, 0), (r * 2, torso * 0.65, wide * 1.6))


@family("robot")
def robot(b: Parts, d: Dice, words: Words) -> None:
    w, h, depth, foot = d.real(0.4, 0.9), d.real(0.4, 0.9), d.real(0.3, 0.6), d.real(0.15, 0.5)
    words.measure(h / w, 0.8, "broad", 1.4, "narrow")
    drive = d.pick(["tracks", "wheels", "jointed legs", "a round foot"])
    words.features.append(drive)
    for sz in (-1, 1):
        if drive == "tracks":
            b.box((0, 0, sz * w * 0.55), (depth * 1.5, foot, 0.14), top=(depth, 0.14))
        elif drive == "wheels":
            b.rod((0, foot * 0.8, sz * w * 0.5), (0, foot * 0.8, sz * w * 0.65), foot * 0.8)
        elif drive == "jointed legs":
            b.path([(0, foot, sz * w * 0.3), (0.1, foot * 0.6, sz * w * 0.35), (0, 0.05, sz * w * 0.3)], 0.06)
            b.box((0.05, 0, sz * w * 0.3), (0.3, 0.08, 0.18))
    if drive == "a round foot":
        b.cylinder((0, 0, 0), foot, w * 0.5, w * 0.2)
    if d.chance(0.65):
        b.box((0, foot, 0), (depth, h, w), (depth * d.real(0.7, 1.1), w * d.real(0.7, 1.2)))
    else:
        b.cylinder((0, foot, 0), h, w * 0.5)
        words.adjectives.append("round")
    b.cylinder((0, foot + h, 0), 0.1, 0.06)
    head, y = d.real(0.18, 0.35), foot + h + 0.06
    block(b, (0, y + head * 0.7, 0), (head * 0.8, head * 0.7, head), d.chance(0.6))
    for sz in (-1, 1):
        b.rod(
            (head * 0.7, y + head * 0.8, sz * head * 0.4), (head, y + head * 0.8, sz * head * 0.4), head * 0.2
        )
        lift, reach = d.real(-0.8, 0.6), d.real(0.25, 0.5)
        elbow = (0.1, foot + h * 0.8 + reach * lift, sz * (w * 0.55 + reach * 0.6))
        hand = (0.1 + reach, elbow[1] + d.real(-0.1, 0.2), elbow[2])
        b.path([(0, foot + h * 0.8, sz * w * 0.5), elbow, hand], 0.06)
        b.ring((hand[0] + 0.08, hand[1], hand[2]), 0.09, 0.03, (0, 1, 0), (50, 310))
    if words.feature(d.chance(), "an antenna"):
        b.cylinder((0, y + head * 1.3, 0), 0.25, 0.015)
        b.ball((0, y + head * 1.3 + 0.27, 0), 0.05)


# Length of leg, girth, neck, how steep that is, size of the head, length of its snout, ears, tail.
QUADRUPEDS = {
    "dog": (0.5, 0.17, 0.25, 1.0, 0.15, 0.2, "pointed", 0.4),
    "horse": (0.85, 0.24, 0.6, 1.3, 0.16, 0.35, "pointed", 0.55),
    "cow": (0.55, 0.33, 0.25, 0.5, 0.2, 0.25, "sideways", 0.5),
    "elephant": (0.65, 0.48, 0.2, 0.5, 0.33, 0.1, "huge", 0.4),
    "giraffe": (1.0, 0.25, 1.3, 2.2, 0.14, 0.25, "pointed", 0.3),
    "pig": (0.25, 0.3, 0.1, 0.3, 0.23, 0.15, "pointed", 0.12),
    "sheep": (0.35, 0.32, 0.15, 1.0, 0.16, 0.15, "sideways", 0.1),
    "bear": (0.45, 0.36, 0.15, 0.5, 0.24, 0.18, "round", 0.08),
    "cat": (0.35, 0.12, 0.12, 1.2, 0.14, 0.06, "pointed", 0.6),
    "deer": (0.8, 0.18, 0.45, 1.8, 0.13, 0.22, "sideways", 0.1),
}


@family("quadruped")
def quadruped(b: Parts, d: Dice, words: Words) -> None:
    kind = d.pick(list(QUADRUPEDS))
    leg, girth, neck, steep, head, snout, ears, tail = QUADRUPEDS[kind]
    blocky = d.chance(0.3)
    words.adjectives += [f"{kind}-like", *(["blocky"] if blocky else [])]
    leg, girth, neck, head = (x * d.real(0.8, 1.25) for x in (leg, girth, neck, head))
    back, y, r = d.real(0.55, 0.8) * (0.6 + girth), leg + girth * 0.8, girth * d.real(0.22, 0.38)
    block(b, (0, y, 0), (back * (0.95 if blocky else 1.15), girth, girth * d.real(0.75, 0.95)), blocky)
    stride = d.real(0.1, 0.35) if words.feature(d.chance(0.4), "striding legs") else 0.0
    for sx, sz in CORNERS:
        x, z, step = sx * back * 0.72, sz * girth * 0.55, sx * sz * stride * leg
        knee = (x + step * 0.5, leg * 0.5, z)
        bone(b, (x, y - girth * 0.2, z), knee, r * 1.2, r * 0.8, blocky)
        bone(b, knee, (x + step, 0.03, z), r * 0.8, r * 0.7, blocky)
    rise = neck / math.hypot(1, steep)
    root, top = (back * 0.85, y + girth * 0.4), (back * 0.95 + rise, y + girth * 0.6 + rise * steep)
    bone(b, (*root, 0), (*top, 0), girth * 0.55, head * 0.7, blocky)
    block(b, (*top, 0), (head, head * 0.85, head * 0.75), blocky)
    bone(b, (*top, 0), (top[0] + head + snout * 0.7, top[1] - head * 0.5, 0), head * 0.7, head * 0.45, blocky)
    for sz in (-1, 1):
        x, up, z = top[0] - head * 0.2, top[1] + head * 0.5, sz * head * 0.55
        if ears == "huge":
            b.ball((x, top[1], sz * head * 1.3), (head * 0.25, head * 0.9, head * 0.7))
            b.rod(
                (x + head, top[1] - head * 0.5, z), (x + head * 2, top[1] - head * 0.9, z), head * 0.12, 0.02
            )
        elif ears == "round":
            b.ball((x, up + head * 0.2, z), (head * 0.15, head * 0.35, head * 0.35))
        else:
            axis = (-0.2, 1.0, sz * 0.25) if ears == "pointed" else (-0.2, 0.2, float(sz))
            b.box((x, up, z), (head * 0.2, head * 0.9, head * 0.5), (0.01, 0.02), axis=axis)
        if kind in ("cow", "deer", "sheep") and d.chance(0.8):
            long = head * (2 if kind == "deer" else 1.1)
            horn = [(x, up, z), (x, up + head * 0.8, z * 2.2), (x + head * 0.3, up + long, z * 2.5)]
            b.path(horn, head * 0.16, head * 0.05)
    if kind == "elephant":
        tip, low = top[0] + head * 1.3, top[1] - head * 0.5
        end = (tip + d.real(-0.1, 0.3), low * d.real(0.1, 0.7), 0.0)
        b.path([(tip, low, 0), (tip + 0.12, low * 0.6, 0), end], head * 0.4, head * 0.15)
    rear, swish = (-back * 1.05, y + girth * 0.4, 0.0), d.real(-0.8, 0.9)
    end = (rear[0] - tail * 0.7, rear[1] + tail * swish, 0.0)
    b.path([rear, ((rear[0] + end[0]) / 2, rear[1] + tail * 0.1, 0), end], girth * 0.2, girth * 0.08)


@family("bird")
def bird(b: Parts, d: Dice, words: Words) -> None:
    kind = d.pick(["perched", "flying", "long-legged", "swimming", "penguin-like"])
    words.adjectives.append(kind)
    long, girth = d.real(0.22, 0.36), d.real(0.12, 0.2)
    leg = d.real(0.4, 0.7) if kind == "long-legged" else 0.15
    y, upright = leg + girth, kind == "penguin-like"
    b.ball((0, y, 0), (girth, long, girth) if upright else (long, girth, girth))
    neck = d.real(0.25, 0.5) if kind in ("long-legged", "swimming") else d.real(0.05, 0.15)
    root: Point = (0.0, y + long * 0.7, 0.0) if upright else (long * 0.75, y + girth * 0.3, 0.0)
    head, r = (root[0] + neck * 0.35, root[1] + neck * 0.9, 0.0), girth * d.real(0.4, 0.65)
    b.path([root, (root[0] + neck * 0.4, root[1] + neck * 0.4, 0), head], girth * 0.5, r * 0.6)
    b.ball(head, (r * 1.1, r, r))
    beak = d.real(0.08, 0.25)
    words.measure(beak, 0.12, "short-beaked", 0.2, "long-beaked")
    end = (head[0] + r + beak, head[1] - beak * d.real(0, 0.6), 0.0)
    b.rod((head[0] + r * 0.8, head[1], 0), end, r * 0.35, 0.01)
    span, chord = d.real(0.5, 0.9) if kind == "flying" else d.real(0.1, 0.16), d.real(0.2, 0.3)
    for sz in (-1, 1):
        if kind == "flying":
            tip, lift = (chord * 0.7, 0.02), d.real(-0.1, 0.5)
            b.box((0, y + girth * 0.4, sz * girth * 0.5), (chord, span * 0.5, 0.04), tip, axis=(0, lift, sz))
            at = (0.0, y + girth * 0.4 + span * 0.45 * lift, sz * (girth * 0.5 + span * 0.46))
            b.box(at, (chord * 0.7, span * 0.5, 0.02), (0.05, 0.01), (-chord * 0.5, 0), axis=(0, -0.1, sz))
        elif upright:
            b.ball((0, y, sz * girth), (0.05, long * 0.65, 0.03))
        else:
            b.ball((-long * 0.15, y + girth * 0.15, sz * girth * 0.85), (long * 0.8, girth * 0.6, 0.04))
        if kind != "swimming":
            b.rod((0, y - girth * 0.7, sz * girth * 0.4), (0.0, 0, sz * girth * 0.4), 0.018)
            b.box((0.04, 0, sz * girth * 0.4), (0.13, 0.015, 0.09))
    tail, fan = d.real(0.12, 0.4), d.real(0.08, 0.25)
    back = (0.0, y - long * 0.7, 0.0) if upright else (-long * 0.8, y + girth * 0.1, 0.0)
    b.box(back, (0.03, tail * (0.4 if upright else 1), 0.1), (0.02, fan), axis=(-1, d.real(-0.3, 0.6), 0))
    if words.feature(d.chance(0.25), "a crest"):
        for i in range(3):
            b.rod(head, (head[0] - 0.06 * i, head[1] + r * 1.9 - 0.03 * i, 0), 0.02, 0.005)


@family("fish")
def fish(b: Parts, d: Dice, words: Words) -> None:
    kind = d.pick(["slim", "deep", "shark-like", "whale-like", "round"])
    words.adjectives.append(kind)
    long = d.real(0.5, 0.7)
    tall = long * {"slim": 0.28, "deep": 0.65, "shark-like": 0.25, "whale-like": 0.36, "round": 0.8}[kind]
    thick = tall * {"deep": 0.35, "slim": 0.6}.get(kind, 0.9) * d.real(0.85, 1.1)
    b.ball((0, 0, 0), (long, tall, thick))
    b.rod((-long * 0.5, 0, 0), (-long * 1.15, 0, 0), tall * 0.65, tall * 0.15, caps=False)
    fan, root = d.real(0.2, 0.4), (-long * 1.05, 0.0, 0.0)
    flat = kind == "whale-like"
    words.feature(flat, "a level fluke", "an upright tail fin")
    for s in (-1, 1):
        axis = (-0.8, 0.0, float(s)) if flat else (-0.8, float(s), 0.0)
        b.box(root, (0.12, fan, 0.02) if not flat else (0.12, fan, 0.03), (0.05, 0.01), axis=axis)
        fin = d.real(0.15, 0.4)
        side = (long * 0.35, -tall * 0.35, s * thick * 0.75)
        b.box(side, (fin * 0.6, fin, 0.02), (fin * 0.2, 0.01), (-fin * 0.5, 0), axis=(0, -0.4, s))
        b.ball((long * 0.75, tall * 0.3, s * thick * 0.5), tall * 0.12)
    fin = tall * d.real(0.5, 1.2)
    if kind != "whale-like":
        sharp = kind == "shark-like"
        base = long * (0.35 if sharp else d.real(0.6, 1.1))
        b.box((0, tall * 0.8, 0), (base, fin, 0.03), (base * (0.1 if sharp else 0.6), 0.01), (-fin * 0.6, 0))
    if words.feature(d.chance(0.5), "a belly fin"):
        size = (long * 0.3, fin * 0.8, 0.03)
        b.box((-long * 0.3, -tall * 0.7, 0), size, (0.06, 0.01), (fin * 0.4, 0), axis=(0, -1, 0))


@family("bug")
def bug(b: Parts, d: Dice, words: Words) -> None:
    kind = d.pick(["spider", "ant", "beetle", "butterfly", "bee", "crab"])
    words.adjectives.append(f"{kind}-like")
    y, r = d.real(0.2, 0.45), d.real(0.12, 0.22)
    if kind in ("beetle", "crab"):
        k, wide = (2.0, 1.3) if kind == "beetle" else (1.1, 2.0)
        b.ball((0, y, 0), (r * k, r, r * wide), low=-0.3)
    else:
        b.ball((-r * 2, y + r * 0.3, 0), (r * d.real(1.3, 2), r, r * d.real(0.8, 1.2)))
        b.ball((0, y, 0), (r, r * 0.7, r * 0.7))
    b.ball((r * (1.5 if kind in ("ant", "butterfly", "bee") else 1.1), y, 0), r * d.real(0.5, 0.7))
    legs = 3 if kind in ("ant", "beetle", "butterfly", "bee") else 4
    reach, knee = d.real(0.3, 0.8) * (0.6 if legs == 3 else 1), y * d.real(1.1, 2.2)
    for sz in (-1, 1):
        for x in spaced(legs, 2.2):
            mid = (x * reach * 0.6, knee, sz * (r + reach * 0.5))
            b.path(
                [(x * r * 0.6, y, sz * r * 0.5), mid, (x * reach, 0, sz * (r + reach))], r * 0.14, r * 0.05
            )
        if kind in ("butterfly", "bee"):
            lift, span = d.real(0.3, 1.2), r * (d.real(3, 5) if kind == "butterfly" else 2.5)
            for x, k in ((0.3, 1.0), (-0.6, 0.7)):
                size = (r, span * k, 0.02)
                at, tip = (x * r, y + r * 0.5, sz * r * 0.3), (span * 0.7 * k, 0.01)
                b.box(at, size, tip, (x * r * 2, 0), axis=(0, lift, sz))
        if kind == "crab":
            claw = (r * 2.6, y + r * 0.3, sz * r * 1.5)
            b.path([(r * 0.6, y, sz * r * 1.5), (r * 1.5, y, sz * r * 2.4), claw], r * 0.2)
            b.ring((claw[0] + r * 0.3, claw[1], claw[2]), r * 0.4, r * 0.18, (0, 1, 0), (35, 325))
        if words.feature(kind != "spider" and d.chance(0.6), "feelers"):
            b.path([(r * 1.6, y + r * 0.3, sz * 0.04), (r * 2.3, y + r * 1.5, sz * r * 0.8)], 0.015)
    words.count(2 * legs, "leg")


@family("snake")
def snake(b: Parts, d: Dice, words: Words) -> None:
    style = d.pick(["wavy", "wavy", "coiled", "coiled", "rearing", "straight"])
    words.adjectives.append(style)
    r, waves, width = d.real(0.05, 0.16), d.real(0.8, 2.5), d.real(0.2, 0.5)
    words.measure(r, 0.08, "thin", 0.13, "thick")
    points: list[Point] = []
    for i in range(22):
        t = i / 21
        if style == "coiled":
            a, out = t * waves * 7, 0.7 * (1.1 - t) + r
            points.append((out * math.cos(a), r + t * waves * r * 1.8, out * math.sin(a)))
        else:
            up = max(0.0, t - 0.65) * d.real(1.6, 1.9) if style == "rearing" else 0.0
            bend = 0.0 if style == "straight" else width * math.sin(t * waves * 2 * math.pi)
            points.append((2.4 * t - 1.2 - up * 0.7, r + up, bend * (1 - t * t)))
    b.path(points, r * 0.2, r * 0.9)
    head, ahead = points[-1], r * (-1 if style == "coiled" else 1)
    b.ball((head[0] + ahead * 0.6, head[1], head[2]), (r * 1.6, r * 0.9, r * 1.2))
    if words.feature(style in ("wavy", "straight") and d.chance(0.4), "a ringed body"):
        for x, y, z in points[3:-2:2]:
            b.ring((x, y, z), r * 0.8, r * 0.25, axis=(1, 0, 0))
    if words.feature(d.chance(0.4), "a forked tongue"):
        for sz in (-1, 1):
            tip = (head[0] + ahead * 3.5, head[1], head[2] + sz * r * 0.4)
            b.rod((head[0] + ahead * 2, head[1], head[2]), tip, r * 0.1)


@family("teddy bear")
def teddy_bear(b: Parts, d: Dice, words: Words) -> None:
    r, head = d.real(0.28, 0.4), d.real(0.22, 0.36)
    words.measure(r, 0.31, "slim", 0.37, "plump")
    y = r * 1.1 if words.feature(d.chance(0.65), "stretched-out legs", "standing legs") else r * 1.9
    b.ball((0, y, 0), (r * 0.9, r * d.real(1.05, 1.3), r))
    top, lift = y + r + head * 0.8, d.real(-0.7, 0.5)
    b.ball((0, top, 0), (head * 0.95, head * 0.9, head))
    b.ball((head * 0.85, top - head * 0.2, 0), (head * 0.4, head * 0.35, head * 0.4))
    ear, tall = head * d.real(0.3, 0.45), d.real(2.0, 3.2) if d.chance(0.25) else 1.0
    words.feature(tall > 1, "long ears", "round ears")
    for sz in (-1, 1):
        b.ball((0, top + head * 0.7 + ear * (tall - 1) * 0.8, sz * head * 0.7), (ear * 0.5, ear * tall, ear))
        out = (r * 0.4, y + r * 0.5 + r * lift, sz * r * 1.4)
        bone(b, (0, y + r * 0.6, sz * r * 0.6), out, r * 0.35, r * 0.3, False)
        foot: Point = (r * 1.5, y - r * 0.7, sz * r * 0.8) if y < r * 1.5 else (0.0, r * 0.3, sz * r * 0.55)
        bone(b, (0, y - r * 0.6, sz * r * 0.5), foot, r * 0.42, r * 0.38, False)
    if words.feature(d.chance(0.4), "a bow tie"):
        for sz in (-1, 1):
            b.rod((r * 0.7, y + r * 0.95, 0), (r * 0.7, y + r * 0.95, sz * r * 0.5), 0.02, r * 0.25)


@family("dinosaur")
def dinosaur(b: Parts, d: Dice, words: Words) -> None:
    kind = d.pick(["two-legged", "long-necked", "plated", "horned"])
    words.adjectives.append(kind)
    walks = kind == "two-legged"
    leg, girth, long = d.real(0.5, 0.8), d.real(0.25, 0.38), d.real(0.5, 0.75)
    y, tail = leg + girth * 0.7, d.real(0.9, 1.6)
    b.ball((0, y, 0), (long, girth, girth * 0.8))
    droop = d.real(0.05, 0.5)
    ending = (-long - tail, y - droop, d.real(-0.3, 0.3))
    b.path([(-long * 0.6, y, 0), (-long - tail * 0.4, y - droop * 0.3, 0), ending], girth * 0.75, 0.03)
    words.measure(tail, 1.1, "short-tailed", 1.4, "long-tailed")
    for sx, sz in CORNERS:
        if walks and sx == 1:
            arm = (long * 0.65, y - girth * 0.1, sz * girth * 0.6)
            b.path(
                [arm, (arm[0] + 0.12, arm[1] - 0.18, arm[2]), (arm[0] + 0.25, arm[1] - 0.14, arm[2])], 0.05
            )
            continue
        x, z = 0.0 if walks else sx * long * 0.6, sz * girth * 0.6
        knee = (x + leg * 0.15, leg * 0.5, z)
        bone(b, (x, y - girth * 0.2, z), knee, girth * 0.4, girth * 0.25, False)
        bone(b, knee, (x, 0.05, z), girth * 0.25, girth * 0.2, False)
        b.ball((x + 0.07, 0.03, z), (girth * 0.5, 0.05, girth * 0.3))
    neck = {"two-legged": d.real(0.35, 0.55), "long-necked": d.real(1.0, 1.7)}.get(kind, d.real(0.1, 0.25))
    head = (long * 0.8 + neck * 0.6, y + girth * 0.2 + neck * d.real(0.5, 0.9), 0.0)
    b.path([(long * 0.6, y, 0), (long + neck * 0.25, y + neck * 0.25, 0), head], girth * 0.7, girth * 0.3)
    size = girth * (0.7 if walks else 0.5)
    crown, skull = (head[0] - size * 0.5, head[1], 0), (size, size * 2.4, size * 0.9)
    b.box(crown, skull, (size * 0.6, size * 0.5), axis=(1, -0.1, 0))
    if walks:
        b.box((head[0], head[1] - size * 0.6, 0), (size * 0.3, size * 1.7, size * 0.7), axis=(1, -0.35, 0))
    if kind == "plated":
        for i in range(words.count(d.whole(4, 8), "plate")):
            x = long - i * 0.25
            tall = 0.3 * math.exp(-(x**2))
            b.box((x, y + girth * (0.9 - 0.4 * x * x), 0), (0.2, tall, 0.04), (0.02, 0.02))
    if kind == "horned":
        b.rod((head[0] - size * 0.6, head[1], 0), (head[0] - size * 0.8, head[1] + 0.1, 0), size * 1.6)
        for c, s in around(3, math.pi / 2):
            at = (head[0] + size * 0.5, head[1] + size * 0.5, c * size * 0.6)
            b.rod(at, (at[0] + size * 1.3, at[1] + size * (0.9 - 0.3 * s), at[2]), size * 0.18, 0.01)
