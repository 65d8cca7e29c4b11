"""Findings of a run, each written the moment it is made: a process that is ended keeps what it had."""

import json
import sys
from pathlib import Path
from typing import Any


class Rows:
    """Appends to a file of JSON lines, or prints without one."""

    def __init__(self, path: str):
        self.path = path

    def add(self, row: dict[str, Any]) -> None:
        """A timed row; see `benchmarks.report` for its columns."""
        if not self.path:
            print(json.dumps(row), flush=True)
            return
        with Path(self.path).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Something that is right or not."""
        self.add({"check": name, "ok": ok, "detail": detail})
        if not ok:
            print(f"{name}: {detail}", file=sys.stderr, flush=True)


def read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Timed rows and checks; a last line that was cut off, and a head, are left out."""
    if not path.exists():
        return [], []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in lines]
    return [row for row in found if "median" in row], [row for row in found if "ok" in row]
