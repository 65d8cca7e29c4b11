"""One command for a GPU box: `python -m benchmarks.gpu` runs the GPU tests and all benchmarks in 8 minutes.

Writes benchmarks/results/<device>-<date>.json, anew after every stage and with every row that was finished,
so that nothing is lost to a hang: a stage that goes on beyond its share is ended. `--cpu` does the same on
the CPU. Needs no network and no peer; those that import are measured too. Exits with 1 if a test or a check
failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import ROOT, describe, device_name
from benchmarks.report import Results, load, markdown

_TOTAL = 465.0  # seconds, of 480
_LAST_ROW = 0.7  # of its time after which a stage begins no further row
_LEAST = 20.0  # seconds for which a stage is worth its start
# In the order of what is missed most when time runs out, with the share of the time that is left.
_STAGES = (
    ("test_attention.py", 0.35),
    ("test_fps.py", 0.3),
    ("test_knn.py", 0.35),
    ("test_chamfer.py", 0.45),
    ("test_scaling.py", 0.5),
    ("test_worst_cases.py", 0.6),
    ("test_step.py", 0.8),
    ("test_embed.py", 0.9),
)
_TESTS_SHARE = 0.25
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class Stage:
    """How a process ended."""

    name: str
    outcome: str
    seconds: float
    ok: bool
    tail: str

    def summary(self) -> dict[str, Any]:
        short = {"name": self.name, "outcome": self.outcome, "seconds": round(self.seconds, 1)}
        return short if self.ok else short | {"tail": self.tail}


def run_stage(name: str, arguments: list[str], limit: float) -> Stage:
    """Run pytest in a process of its own; end it and its children at the limit."""
    command = [*PYTEST, *arguments]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        text = log.read()
    tail = "\n".join(text.splitlines()[-25:])
    counts = re.findall(
        r"^=*\s*(\d+ (?:passed|failed|skipped|error|deselected|no tests).*?)\s*=*$", text, re.M
    )
    outcome = counts[-1] if counts else f"exit {code}"
    if code is None:
        outcome = f"ended after {limit:.0f} s"
    ok = code in (0, 5)  # 5: every test was deselected
    return Stage(name, outcome, time.monotonic() - begin, ok, "" if ok else tail)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Run:
    """All stages of one machine, and the file they are kept in."""

    def __init__(self, kind: str, seconds: float, out: Path, scratch: Path):
        self.begin, self.seconds, self.kind, self.scratch = time.monotonic(), seconds, kind, scratch
        self.head = describe(kind)
        date = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / f"{slug(device_name(self.head))}-{date}.json"
        self.tests: dict[str, Any] | None = None
        self.stages: list[Stage] = []
        self.rows: list[dict[str, Any]] = []

    def spent(self) -> float:
        return time.monotonic() - self.begin

    def left(self) -> float:
        return self.seconds - self.spent()

    def _do(self, name: str, arguments: list[str], limit: float) -> Stage:
        stage = run_stage(name, arguments, limit)
        self.stages.append(stage)
        print(f"{name}: {stage.outcome}, {stage.seconds:.0f} s", flush=True)
        return stage

    def test(self) -> None:
        """On a GPU the tests marked so, then the kernels' own tests, which run on it where there is one."""
        asked = [("kernel tests", ["tests/kernels", "-m", "not slow and not gpu"])]
        if self.kind == "cuda":
            asked.insert(0, ("gpu tests", ["tests", "-m", "gpu"]))
        done = [self._do(name, arguments, _TESTS_SHARE * self.left()) for name, arguments in asked]
        outcome = "; ".join(f"{stage.name}: {stage.outcome}" for stage in done)
        self.tests = {"outcome": outcome, "ok": all(stage.ok for stage in done)}
        self._save()

    def measure(self, file: str, limit: float, row_seconds: float) -> None:
        """One file of benchmarks; what it had finished when it was ended counts."""
        finished, whole = self.scratch / f"{file}.jsonl", self.scratch / f"{file}.json"
        flags = ["--benchmark-only", "--benchmark-columns=median", f"--benchmark-json={whole}"]
        flags += ["--device", self.kind, f"--row-seconds={row_seconds}", f"--rows-to={finished}"]
        self._do(file, [f"benchmarks/{file}", *flags, f"--stop-after={_LAST_ROW * limit}"], limit)
        if finished.exists():  # the last line of a process that was ended may be cut
            lines = finished.read_text().splitlines(keepends=True)
            self.rows += [json.loads(line) for line in lines if line.endswith("\n")]
        elif whole.exists() and whole.stat().st_size:
            self.rows += load(whole).rows
        self._save()

    def _save(self) -> None:
        content = {"schema": 1, "head": self.head, "seconds": round(self.spent(), 1), "tests": self.tests}
        content |= {"stages": [stage.summary() for stage in self.stages], "rows": self.rows}
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.replace(self.path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Tests and benchmarks of one machine, in under 8 minutes.")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU kernels instead of a GPU")
    parser.add_argument("--seconds", type=float, default=_TOTAL, help="for everything")
    parser.add_argument("--row-seconds", type=float, default=0.2, help="how long a row is timed")
    parser.add_argument("--only", default="", help="benchmark files whose name contains this, and no tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the result")
    options = parser.parse_args(arguments)
    for package in ("pytest", "pytest_benchmark"):
        if find_spec(package) is None:
            name = package.replace("_", "-")
            sys.exit(f"benchmarks.gpu: {name} is not installed; pip install '.[test]' brings it")
    if not options.cpu and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch sees no GPU; --cpu measures the CPU kernels")
    with tempfile.TemporaryDirectory() as scratch:
        run = Run("cpu" if options.cpu else "cuda", options.seconds, options.out, Path(scratch))
        if not options.only:
            run.test()
        for file, share in _STAGES:
            limit = share * run.left()
            if options.only in file and limit > _LEAST:
                run.measure(file, limit, options.row_seconds)
    print("\n" + markdown(Results(run.head, run.rows, run.tests)))
    for stage in run.stages:
        if not stage.ok:
            print(f"\n{stage.name}: {stage.outcome}\n{stage.tail}", file=sys.stderr)
    print(f"\n{run.path}, {run.spent():.0f} s", file=sys.stderr)
    sys.exit(not all(stage.ok for stage in run.stages))


if __name__ == "__main__":
    main()
