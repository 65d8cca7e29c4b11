"""A room imports from the rooms below it, never from those above, and in no circle; files are short."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recon_fast

PACKAGE = Path(recon_fast.__file__).parent
ROOT = PACKAGE.parent
# Rooms by height. The modules that lie directly in recon_fast/ are below all rooms, those of TOP above.
HEIGHT = {
    "kernels": 1,
    "config": 1,
    "compat": 2,
    "models": 2,
    "procedural": 3,
    "data": 3,
    "teachers": 3,
    "checkpoint": 3,
    "training": 4,
    "tasks": 5,
    "viz": 5,
}
TOP = {"api", "cli", "commands", "parser", "doctor", "__main__"}
# The front door of the package imports when it is asked for.
EXCEPTIONS = {
    ("recon_fast", f"recon_fast.{module}") for module in ("api", "checkpoint.create", "tasks.embed")
}


def module_of(file: Path) -> str:
    """The dotted name of a file of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def height(module: str) -> int:
    """The height of the room that a module is in."""
    room = module.split(".")[1] if "." in module else ""
    return 6 if room in TOP else HEIGHT.get(room, 0)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Modules of the package by name, with those that each one imports, at its head or later."""
    files = {module_of(file): file for file in PACKAGE.rglob("*.py")}
    graph: dict[str, set[str]] = {module: set() for module in files}
    for module, file in files.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else node.module for name in inner]
            graph[module] |= {name for name in names if name in files}
    return graph


def test_every_room_has_a_height():
    assert {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()} == set(HEIGHT)


def test_imports_go_down(imports):
    pairs = {(module, imported) for module, all_imported in imports.items() for imported in all_imported}
    assert {pair for pair in pairs if height(pair[1]) > height(pair[0])} == EXCEPTIONS


def test_imports_make_no_circle(imports):
    for module, imported in EXCEPTIONS:
        imports[module].discard(imported)
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules


def test_files_are_short():
    folders = [ROOT / name for name in ("recon_fast", "tests", "benchmarks")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert not [str(file) for file in files if len(file.read_text(encoding="utf-8").splitlines()) > 400]
