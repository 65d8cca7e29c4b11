"""What a family of objects is: a function that builds one and says in words what it built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from recon_fast.procedural.parts import Parts

T = TypeVar("T")


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


Builder = Callable[[Parts, Dice, Words], None]
FAMILIES: dict[str, Builder] = {}
PARTED: dict[str, tuple[str, ...]] = {}  # names of the parts, of the families that name them


def family(noun: str, parts: tuple[str, ...] = ()) -> Callable[[Builder], Builder]:
    """Register a builder under the noun of its captions, which is also the class name.

    A builder with `parts` says by `Parts.part` which of them each surface belongs to.
    """

    def register(build: Builder) -> Builder:
        FAMILIES[noun] = build
        if parts:
            PARTED[noun] = parts
        return build

    return register


CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]  # signs of x and z
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


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
