"""Everything a GPU has to show, in stages: `python -m benchmarks.gpu [STAGE ...] [--seconds N]`.

    smoke      every kernel compiled and compared, a CUDA graph, a training step      60 s
    contract   the tests of the operators, and those marked gpu                      120 s
    operators  ours, the reference and every peer that imports                        90 s
    step       training steps a second, uncompiled, compiled, with CUDA graphs        90 s
    sweep      launch parameters of the kernels, against those in use                120 s

Without a stage all are run, in this order; with --seconds they share that time in these proportions. Writes
benchmarks/results/<device>-<date>.json after every stage. Rows lie beside it in a .rows.jsonl the moment they
are measured, so that a stage that hangs, or an end of the whole script, loses no row that was finished:
`python -m benchmarks.report` reads either file. `--cpu` does the same on the CPU, in a minute. Needs no
network, and of the packages beyond the operators' own only pytest, pytest-benchmark and hypothesis. Exits
with 1 if something failed.
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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import ROOT, describe, device_name
from benchmarks.report import Results, markdown
from benchmarks.rows import read

STAGES = {"smoke": 60.0, "contract": 120.0, "operators": 90.0, "step": 90.0, "sweep": 120.0}
# Without a GPU each takes less than this; only the sweep goes on until its time is up.
_ON_CPU = {"smoke": 60.0, "contract": 60.0, "operators": 60.0, "step": 60.0, "sweep": 10.0}
_CPU_PATIENCE = 10.0  # times that, after which it is ended: CPUs differ
_LAST_ROW = 0.8  # of its time after which a stage begins no further row
# Warnings of other packages are theirs; of ours they are errors.
_FILTERS = "filterwarnings=default\nerror:::(recon_fast|benchmarks|tests)"


def pytest_command(*arguments: str) -> list[str]:
    """pytest in a process of its own, which writes no cache."""
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", _FILTERS, *arguments]


@dataclass(frozen=True)
class Part:
    """How a process of a stage ended."""

    name: str
    outcome: str
    seconds: float
    ok: bool
    tail: str

    def summary(self) -> dict[str, Any]:
        short = {"name": self.name, "outcome": self.outcome, "seconds": round(self.seconds, 1)}
        return short if self.ok else short | {"tail": self.tail}


def run_part(name: str, command: list[str], limit: float, environment: dict[str, str] | None = None) -> Part:
    """Run a process; end it and its children at the limit, or when this one is ended."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ | (environment or {}),
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
    tail = "\n".join(text.splitlines()[-40:])
    counts = re.findall(
        r"^=*\s*(\d+ (?:passed|failed|skipped|error|deselected|no tests).*?)\s*=*$", text, re.M
    )
    outcome = counts[-1] if counts else f"exit {code}"
    if code is None:
        outcome = f"ended after {limit:.0f} s"
    ok = code in (0, 5)  # 5: every test was deselected
    return Part(name, outcome, time.monotonic() - begin, ok, "" if ok else tail)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Run:
    """All stages of one machine, and the file they are kept in."""

    def __init__(self, kind: str, out: Path):
        self.begin, self.kind = time.monotonic(), kind
        self.head = describe(kind)
        date = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / f"{slug(device_name(self.head))}-{date}.json"
        self.rows_path = self.path.with_suffix(".rows.jsonl")
        self.rows_path.write_text(json.dumps({"head": self.head}) + "\n")
        self.parts: list[Part] = []

    def stage(self, name: str, limit: float) -> None:
        """Run a stage's processes; a later one has what the earlier ones leave of the limit."""
        end = time.monotonic() + limit * (1.0 if self.kind == "cuda" else _CPU_PATIENCE)
        for part, command, share, environment in self._commands(name, limit):
            left = share * (end - time.monotonic())
            done = run_part(f"{name}: {part}", command, left, environment)
            self.parts.append(done)
            print(f"{done.name}: {done.outcome}, {done.seconds:.0f} s", flush=True)
            self.save()

    def _commands(self, stage: str, limit: float) -> Iterator[tuple[str, list[str], float, dict[str, str]]]:
        """Names, commands, shares of the time that is left, and environments of a stage's processes."""
        kind, rows = self.kind, f"--rows-to={self.rows_path}"
        ours = [sys.executable, "-m"]
        if stage == "smoke":
            few = ["--variants=4"] if kind == "cpu" else []
            yield stage, [*ours, "benchmarks.smoke", "--device", kind, rows, *few], 1.0, {}
        elif stage == "contract":
            if kind == "cuda":
                yield "kernels", pytest_command("tests/kernels", "-m", "not slow"), 0.6, {}
                yield "gpu", pytest_command("tests/gpu"), 1.0, {}
            else:
                yield "kernels", pytest_command("tests/kernels/test_fps.py"), 1.0, {}
        elif stage == "operators":
            files = ["fps"] if kind == "cpu" else ["attention", "fps", "knn", "chamfer"]
            for i, file in enumerate(files):
                share = 1 / (len(files) - i)
                flags = ["--benchmark-only", "--benchmark-columns=median", "--device", kind, rows]
                flags += ["--row-seconds=0.2"] if kind == "cuda" else ["--row-seconds=0.01", "-k", "ours"]
                flags += [f"--stop-after={_LAST_ROW * share * limit}"]
                yield file, pytest_command(f"benchmarks/test_{file}.py", *flags), share, {}
        elif stage == "step":
            stop = f"--stop-after={_LAST_ROW * limit}"
            flags = ["--device", kind, rows, stop, f"--profile-to={self.path.with_suffix('.profile.txt')}"]
            yield stage, [*ours, "benchmarks.throughput", *flags], 1.0, {}
        elif stage == "sweep":
            flags = ["--device", kind, rows, f"--stop-after={_LAST_ROW * limit}"]
            interpreted = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"} if kind == "cpu" else {}
            yield stage, [*ours, "benchmarks.sweep", *flags], 1.0, interpreted

    def save(self) -> None:
        """Write what there is; the file is whole at any time."""
        self.timed, checks = read(self.rows_path)
        failed = [f"{check['check']}: {check['detail']}" for check in checks if not check["ok"]]
        tests = [part for part in self.parts if part.name.startswith(("smoke", "contract"))]
        content: dict[str, Any] = {
            "schema": 2,
            "head": self.head,
            "seconds": round(time.monotonic() - self.begin, 1),
            "tests": {
                "outcome": "; ".join([f"{part.name}: {part.outcome}" for part in tests] + failed),
                "ok": all(part.ok for part in tests) and not failed,
            },
            "stages": [part.summary() for part in self.parts],
            "checks": checks,
            "rows": self.timed,
        }
        self.tests = content["tests"]
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.replace(self.path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=f"stages: {', '.join(STAGES)}"
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="those to run; all unless given")
    parser.add_argument("--cpu", action="store_true", help="the same on the CPU, in about a minute")
    parser.add_argument("--seconds", type=float, help="for all that is run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the result")
    options = parser.parse_args(arguments)
    chosen = options.stages or list(STAGES)
    if unknown := set(chosen) - set(STAGES):
        parser.error(f"STAGE must be of {', '.join(STAGES)}, got {', '.join(sorted(unknown))}")
    for package in ("pytest", "pytest_benchmark", "hypothesis"):
        if find_spec(package) is None:
            name = package.replace("_", "-")
            sys.exit(f"benchmarks.gpu: {name} is not installed; pip install '.[test]' brings it")
    if not options.cpu and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch sees no GPU; --cpu does the same on the CPU")
    limits = _ON_CPU if options.cpu else STAGES
    scale = 1.0 if options.seconds is None else options.seconds / sum(limits[name] for name in chosen)
    run = Run("cpu" if options.cpu else "cuda", options.out)

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)  # so that the process of a stage is ended and what it had is kept
    try:
        for name in chosen:
            run.stage(name, limits[name] * scale)
    finally:
        run.save()
    run.rows_path.unlink()  # all of it is in the result
    print("\n" + markdown(Results(run.head, run.timed, run.tests)))
    for part in run.parts:
        if not part.ok:
            print(f"\n{part.name}: {part.outcome}\n{part.tail}", file=sys.stderr)
    print(f"\n{run.path}, {time.monotonic() - run.begin:.0f} s", file=sys.stderr)
    sys.exit(not all(part.ok for part in run.parts))


if __name__ == "__main__":
    main()
