"""Recipes: named settings of a task, in one YAML file for each task under configs/.

A recipe may be `like` another one of its file, and say only what differs. In the file that `finetune`,
`linear` and `mlp3` share, a recipe has what differs for one of these commands under the command's name.
"""

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from recon_fast.errors import InputError

_CLASSIFIERS = ("finetune", "linear", "mlp3")  # they share a file of recipes


def config_folder() -> Path:
    """Where the recipes lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def recipe_file(command: str) -> Path:
    """The file with the recipes of a command; it need not exist."""
    return config_folder() / f"{'classifier' if command in _CLASSIFIERS else command}.yaml"


@cache
def packaged_recipes(command: str) -> dict[str, dict[str, Any]]:
    """Settings of every recipe of a command by name, not to be changed; their file is read once."""
    from recon_fast.schema import read_yaml

    path = recipe_file(command)
    stored = read_yaml(path) if path.is_file() else {}

    def resolve(name: str) -> dict[str, Any]:
        own = dict(stored[name])
        base = own.pop("like", None)
        variants = {key: own.pop(key, {}) for key in _CLASSIFIERS}
        settings = merged(resolve(base) if base else {}, own)
        return merged(settings, variants.get(command, {}))

    return {name: resolve(name) for name in sorted(stored)}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, in nested dicts key by key."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def find_recipe(name: str, command: str) -> Path | dict[str, Any]:
    """What `--config name` means: a file, or the settings of a recipe."""
    if Path(name).is_file():
        return Path(name)
    known = packaged_recipes(command)
    if name in known:
        return known[name]
    raise InputError(
        f"config must be a YAML file or one of {', '.join(known)}, got {name}{nearest(name, known)}"
    )


def nearest(key: str, keys: Iterable[str]) -> str:
    """' (did you mean X?)' for the key most like `key`, or nothing."""
    names = list(keys)
    leaves = {name.rsplit(".", 1)[-1]: name for name in names}
    found = difflib.get_close_matches(key, names, 1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), 1)
    ]
    return f" (did you mean {found[0]}?)" if found else ""
