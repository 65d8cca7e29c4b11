"""What settings of every kind must be, whatever they are for. Imports nothing heavy."""

import math
from dataclasses import fields
from typing import Any

from recon_fast.errors import InputError

_MOST = 2**31  # no count of points, shapes or steps is larger, and products of them still fit 64 bits


def check_numbers(config: Any, prefix: str = "", **least: int) -> None:
    """Raise InputError for numbers in a dataclass of settings that no setting can have.

    Args:
        config: a dataclass. Its real numbers must be finite, its whole ones below 2^31 but for `seed`, which
            must be in [0, 2^63).
        prefix: of the names in messages, such as "optim.".
        least: names of settings, and the least value that each may have unless it is None.
    """
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "seed":
            if not 0 <= value < 2**63:
                raise InputError(f"{prefix}seed must be in [0, 2^63), got {value}")
        elif not math.isfinite(value):
            raise InputError(f"{prefix}{name} must be a finite number, got {value}")
        elif name in least and value < least[name]:
            optional = " or null" if field.default is None else ""
            raise InputError(f"{prefix}{name} must be at least {least[name]}{optional}, got {value}")
        elif isinstance(value, int) and value >= _MOST:
            raise InputError(f"{prefix}{name} must be below 2^31, got {value}")
