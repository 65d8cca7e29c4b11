"""What families of objects are written in: surfaces, dice for proportions, words for captions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Point = tuple[float, float, float]

BOX, CONE, BALL, RING, TRIANGLE = range(5)
ROW = 22  # numbers that describe a part: kind, area, 3 axes, center, 7 of its own, piece

CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]  # signs of x and z
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def _frame(axis: Point) -> tuple[float, ...]:
    """Rotation, row by row, that brings the y axis to `axis` (of any length)."""
    length = math.hypot(*axis)
    x, y, z = (a / length for a in axis)
    if y < -1 + 1e-9:
        return (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
    # Rodrigues' formula for the rotation about y cross axis.
    k = 1 / (1 + y)
    return (1 - k * x * x, x, -k * x * z, -x, y, -z, -k * x * z, z, 1 - k * z * z)


def _level_frame(axis: Point) -> tuple[float, ...]:
    """Rotation, row by row, that brings the y axis to `axis` and the x axis as near to upright as it goes."""
    length, level = math.hypot(*axis), math.hypot(axis[0], axis[2])
    x, y, z = (a / length for a in axis)
    c, s, k = axis[0] / level, axis[2] / level, level / length
    return (-c * y, x, s, k, y, 0.0, -s * y, z, -c)


class Parts:
    """The parts of one shape, collected by its family, in any unit: shapes are scaled at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.piece = 0  # parts of one piece share a tone in pictures
        self.names: list[str] = []  # of each piece, what it is a part of; "" where its family does not say
        self.name = ""

    def part(self, name: str) -> None:
        """Name what the surfaces that follow are a part of."""
        self.name = name

    def array(self) -> NDArray[np.float64]:
        """All parts as rows [P, ROW]."""
        return np.array(self.rows, np.float64)

    def _add(
        self, kind: int, area: float, frame: tuple[float, ...], center: Point, own: Sequence[float]
    ) -> None:
        self.rows.append((kind, area, *frame, *center, *own, *(0.0,) * (ROW - 15 - len(own)), self.piece))
        self.names[self.piece :] = [self.name]
        self.piece += 1

    def box(
        self,
        at: Point,
        size: Point,
        top: tuple[float, float] | None = None,
        shift: tuple[float, float] = (0.0, 0.0),
        axis: Point | None = None,
        level: bool = False,
    ) -> None:
        """A box that stands on `at`: its size along x, y, z, the x and z size and the shift of its top face.

        A top of (0, d) gives a gable roof, (0, 0) a pyramid. `axis` is where its y points;
        its x stays near x, or points as far up as it can if it is `level`.
        """
        w, h, d = size
        tw, td = (w, d) if top is None else top
        slant_x = math.hypot(h, (w - tw) / 2)
        slant_z = math.hypot(h, (d - td) / 2)
        area = w * d + tw * td + slant_x * (d + td) + slant_z * (w + tw)
        frame = _UPRIGHT if axis is None else _level_frame(axis) if level else _frame(axis)
        self._add(BOX, area, frame, at, (w / 2, d / 2, tw / 2, td / 2, h, shift[0], shift[1]))

    def rod(
        self, start: Point, end: Point, radius: float, end_radius: float | None = None, caps: bool = True
    ) -> None:
        """A cylinder or cone between two points; `caps` closes its ends."""
        axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
        height = math.hypot(*axis)
        r1 = radius if end_radius is None else end_radius
        side = math.pi * (radius + r1) * math.hypot(height, radius - r1)
        lids = math.pi * (radius * radius + r1 * r1) if caps else 0.0
        frame = _UPRIGHT if axis[0] == axis[2] == 0 and axis[1] > 0 else _frame(axis)
        self._add(CONE, side + lids, frame, start, (radius, r1, height, side))

    def cylinder(
        self, at: Point, height: float, radius: float, top: float | None = None, caps: bool = True
    ) -> None:
        """An upright cylinder or cone that stands on `at`."""
        self.rod(at, (at[0], at[1] + height, at[2]), radius, top, caps)

    def ball(self, center: Point, radii: Point | float, low: float = -1.0, high: float = 1.0) -> None:
        """An ellipsoid, or the slice of it between the heights `low` and `high` in [-1, 1] of its radius."""
        a, b, c = (radii,) * 3 if isinstance(radii, float | int) else radii
        p = 1.6075  # Thomsen's approximation of an ellipsoid's area, within 1.1 %
        mean = (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
        self._add(BALL, 2 * math.pi * mean * (high - low), _UPRIGHT, center, (a, b, c, low, high))

    def ring(
        self,
        center: Point,
        radius: float,
        thickness: float,
        axis: Point = (0.0, 1.0, 0.0),
        arc: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """A torus, or the arc of it between two angles in degrees, about `axis`.

        `thickness` is the tube's radius. About z, 0 degrees points to x and 90 degrees down.
        """
        start, stop = math.radians(arc[0]), math.radians(arc[1])
        area = 2 * math.pi * thickness * radius * (stop - start)
        self._add(RING, area, _frame(axis), center, (radius, thickness, start, stop))

    def revolve(self, at: Point, profile: Sequence[tuple[float, float]]) -> None:
        """A surface of revolution about y: `profile` lists (radius, height above `at`)."""
        for (r0, y0), (r1, y1) in pairwise(profile):
            if y1 == y0:  # a flat ring or floor
                y1 = y0 + 1e-6
            self.rod((at[0], at[1] + y0, at[2]), (at[0], at[1] + y1, at[2]), r0, r1, caps=False)
            self.piece -= 1
        self.piece += 1

    def prism(self, at: Point, profile: Sequence[tuple[float, float]], sides: int) -> None:
        """As `revolve`, with that many flat sides."""
        x, y, z = at
        turns = [*around(sides), (1.0, 0.0)]
        self.sheet([[(x + r * c, y + up, z + r * s) for c, s in turns] for r, up in profile])

    def path(self, points: Sequence[Point], radius: float, end_radius: float | None = None) -> None:
        """A tube through points, its radius changing evenly from one to the next; its ends are open."""
        step = 0.0 if end_radius is None else (end_radius - radius) / (len(points) - 1)
        for i, (start, end) in enumerate(pairwise(points)):
            self.rod(start, end, radius + i * step, radius + (i + 1) * step, caps=False)
            self.piece -= 1
        self.piece += 1

    def mirror(self, start: int) -> None:
        """Repeat the parts from row `start` on, mirrored at z = 0; they stay parts of the same pieces."""
        for row in self.rows[start:]:
            self.rows.append((*row[:8], -row[8], -row[9], -row[10], *row[11:13], -row[13], *row[14:]))

    def triangle(self, a: Point, b: Point, c: Point) -> None:
        """A triangle without thickness."""
        self.sheet([[a, b], [c, c]])

    def sheet(self, rows: Sequence[Sequence[Point]]) -> None:
        """A surface of triangles through a grid of points."""
        add, piece = self.rows.append, self.piece
        for upper, lower in pairwise(rows):
            for i in range(len(upper) - 1):
                for a, b, c in ((upper[i], upper[i + 1], lower[i]), (upper[i + 1], lower[i + 1], lower[i])):
                    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
                    u, v, w = c[0] - a[0], c[1] - a[1], c[2] - a[2]
                    p, q, r = y * w - z * v, z * u - x * w, x * v - y * u
                    area = math.sqrt(p * p + q * q + r * r) / 2
                    if area > 0:
                        add((TRIANGLE, area, *_UPRIGHT, *a, x, y, z, u, v, w, 0.0, piece))
        self.names[piece:] = [self.name]
        self.piece += 1


def around(count: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """Cosine and sine of angles that divide a full circle evenly, from `turn` on."""
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def spaced(count: int, width: float) -> list[float]:
    """Centers of `count` equal parts of a width about 0."""
    return [(i + 0.5) / count * width - width / 2 for i in range(count)]


def curve(points: int, radius_at: Sequence[float], height: float) -> list[tuple[float, float]]:
    """A smooth profile for `Parts.revolve`: cosine interpolation of radii at equal heights."""
    profile = []
    steps = len(radius_at) - 1
    for i in range(points + 1):
        t = i / points * steps
        k = min(int(t), steps - 1)
        blend = (1 - math.cos(math.pi * (t - k))) / 2
        profile.append((radius_at[k] * (1 - blend) + radius_at[k + 1] * blend, height * i / points))
    return profile


class Dice:
    """A generator's numbers, drawn a hundred at a time because a call to numpy for each would be slow."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rest: list[float] = []

    def roll(self) -> float:
        """A number in [0, 1)."""
        if not self.rest:
            self.rest = self.rng.random(100).tolist()
        return self.rest.pop()

    def real(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.roll()

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self.roll())

    def chance(self, probability: float = 0.5) -> bool:
        """True that often."""
        return self.roll() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(len(options) * self.roll())]


@dataclass
class Words:
    """What a caption may say of a shape: adjectives before the noun, features after "with"."""

    adjectives: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)

    def measure(self, value: float, low: float, small: str, high: float, large: str) -> None:
        """Say `small` below `low`, `large` above `high`."""
        if value < low:
            self.adjectives.append(small)
        elif value > high:
            self.adjectives.append(large)

    def feature(self, there: object, name: str, otherwise: str | None = None) -> bool:
        """Whether a feature is there; say `name` of a shape that has it, `otherwise` of one that has not."""
        if there or otherwise is not None:
            self.features.append(name if there else str(otherwise))
        return bool(there)

    def count(self, number: int, name: str) -> int:
        """A number of things, of which the caption may speak; `name` is of one of them."""
        self.features.append(f"{NUMBERS[number]} {name}{'s' if number > 1 else ''}")
        return number


Builder = Callable[[Parts, Dice, Words], None]
FAMILIES: dict[str, Builder] = {}
PARTED: dict[str, dict[str, int]] = {}  # of the families that name their parts, numbers of all parts by name
_part_numbers = count()


def family(noun: str, parts: tuple[str, ...] = ()) -> Callable[[Builder], Builder]:
    """Register a builder under the noun of its captions, which is also the class name.

    A builder with `parts` says by `Parts.part` which of them each surface belongs to.
    """

    def register(build: Builder) -> Builder:
        FAMILIES[noun] = build
        if parts:
            PARTED[noun] = {name: next(_part_numbers) for name in parts}
        return build

    return register


def caption(noun: str, words: Words, dice: Dice) -> str:
    """A short English phrase: "a tall narrow shelf with five boards"."""
    adjectives = words.adjectives[: dice.whole(0, 2)]
    features = list(words.features)
    said = []
    for _ in range(min(dice.whole(0, 2), len(features))):
        said.append(features.pop(int(dice.roll() * len(features))))
    phrase = " ".join([*adjectives, noun])
    article = "an" if phrase[0] in "aeiou" else "a"
    return f"{article} {phrase} with {' and '.join(said)}" if said else f"{article} {phrase}"
