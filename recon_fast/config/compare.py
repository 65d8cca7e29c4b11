"""Settings of runs, compared."""

import json
from collections.abc import Sequence
from typing import Any

# Settings that runs may differ in beside the seed, where they are one row of a table.
FREE_OF_SEEDS = (
    "seed", "out", "device", "data.workers", "data.on_problem", "data.placement", "save",
    "optim.skip_limit", "optim.recompute", "compile",
)  # fmt: skip


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"optim.lr": ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def settings_but(free: Sequence[str], config: dict[str, Any]) -> dict[str, Any]:
    """Settings by flat names, less those that are named or lie below a name."""
    flat = flatten(json.loads(json.dumps(config, default=str)))
    return {
        key: flat[key] for key in sorted(flat) if not any(key == f or key.startswith(f"{f}.") for f in free)
    }
