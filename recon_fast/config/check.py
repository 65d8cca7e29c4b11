"""What settings of every kind must be: limits that a dataclass declares are checked when it is made."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

from recon_fast.errors import InputError

_MOST = 2**31  # no count of points, shapes or steps is larger, and products of them still fit 64 bits


class Limit(NamedTuple):
    """What a number must be.

    Attributes:
        words: the same in words, as they follow "must be".
        least: smallest value.
        strict: the smallest value itself is out.
        below: the number must be smaller than this.
    """

    words: str
    least: float
    strict: bool = False
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether a number is within."""
        return (self.least < value if self.strict else self.least <= value) and value < self.below


Limits = dict[str, Limit]


def at_least(least: int, *names: str) -> Limits:
    """These settings are not smaller than `least`."""
    return dict.fromkeys(names, Limit(f"at least {least}", least))


def above_zero(*names: str) -> Limits:
    """These settings are positive."""
    return dict.fromkeys(names, Limit("above 0", 0, strict=True))


def share(*names: str) -> Limits:
    """These settings are shares of a whole, and never all of it."""
    return dict.fromkeys(names, Limit("in [0, 1)", 0, below=1))


@dataclass(frozen=True)
class Settings:
    """Base of all dataclasses of settings: wrong numbers raise InputError, which names the setting.

    Real numbers must be finite, whole ones below 2^31 but for `seed`, which must be in [0, 2^63).

    Attributes:
        section: what comes before the names of these settings in messages, such as "optim.".
        limits: of numbers by name, to which those of the bases are added; a setting whose default is None may
            be None.
    """

    section: ClassVar[str] = ""
    limits: ClassVar[Limits] = {}

    def __init_subclass__(cls) -> None:
        cls.limits = {name: limit for base in cls.__mro__[::-1] for name, limit in _limits_of(base)}

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            limit = self.limits.get(field.name)
            wanted = None
            if field.name == "seed":
                wanted = None if 0 <= value < 2**63 else "in [0, 2^63)"
            elif not math.isfinite(value):
                wanted = "a finite number"
            elif limit is not None and not limit.holds(value):
                wanted = limit.words + (" or null" if field.default is None else "")
            elif isinstance(value, int) and value >= _MOST:
                wanted = "below 2^31"
            if wanted:
                raise InputError(f"{self.section}{field.name} must be {wanted}, got {value}")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, for YAML and JSON."""
        return asdict(self)


def _limits_of(cls: type) -> Iterable[tuple[str, Limit]]:
    own: Limits = vars(cls).get("limits", {})
    return own.items()


def check_groups(model: Any, data: Any) -> None:
    """Raise InputError unless a cloud has points enough for the groups of a model."""
    for name in ("num_group", "group_size"):
        wanted = getattr(model, name)
        if wanted is not None and data.num_points < wanted:
            raise InputError(
                f"model.{name} must be at most data.num_points, got {wanted} and {data.num_points}"
            )
