"""The script for a GPU box, on a CPU: its stages, one that hangs, and an end in the middle."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import gpu, report
from benchmarks.rows import Rows, read

ROOT = Path(__file__).parents[2]


def start(*arguments):
    command = [sys.executable, "-m", "benchmarks.gpu", "--cpu", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_all_stages_on_a_cpu(tmp_path):
    process = start("--out", tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert found["tests"]["ok"], found["tests"]
    assert {part["name"].partition(":")[0] for part in found["stages"]} == set(gpu.STAGES)
    operators = {row["operator"] for row in found["rows"]}
    assert {"fps", "training throughput"} <= operators
    assert any(name.startswith("sweep ") for name in operators)
    assert all(check["ok"] for check in found["checks"])
    assert "Self CPU" in path.with_suffix(".profile.txt").read_text()
    assert not list(tmp_path.glob("*.rows.jsonl"))
    assert "fps" in report.markdown(report.load(path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_in_mid_stage_loses_no_row(tmp_path, number):
    process = start("sweep", "--seconds", 300, "--out", tmp_path)
    deadline, rows = time.monotonic() + 60, []
    while len(rows) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
        rows = [row for path in tmp_path.glob("*.rows.jsonl") for row in read(path)[0]]
    stage = children(process.pid)
    process.send_signal(number)
    process.communicate(timeout=30)
    (path,) = tmp_path.glob("*.rows.jsonl")
    kept = report.load(path)
    assert kept.rows[: len(rows)] == rows
    assert kept.head["kind"] == "cpu"
    if number == signal.SIGTERM:
        (result,) = tmp_path.glob("*.json")
        assert json.loads(result.read_text())["rows"][: len(rows)] == rows
        assert not any(Path(f"/proc/{child}").exists() for child in stage)
    for child in stage:  # nobody ends the child of a process that was killed
        if Path(f"/proc/{child}").exists():
            subprocess.run(["kill", "-9", str(child)], check=False)


def children(parent):
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_part_that_hangs_is_ended():
    part = gpu.run_part("hangs", [sys.executable, "-c", "import time; time.sleep(60)"], 1.0)
    assert not part.ok
    assert part.seconds < 30
    assert part.outcome == "ended after 1 s"


def test_a_part_tells_how_it_went():
    part = gpu.run_part("fine", [sys.executable, "-c", "print('==== 2 passed, 1 skipped in 0.1s ====')"], 60)
    assert part.ok
    assert part.outcome == "2 passed, 1 skipped in 0.1s"
    part = gpu.run_part("red", [sys.executable, "-c", "raise SystemExit('went wrong')"], 60)
    assert not part.ok
    assert "went wrong" in part.summary()["tail"]


def test_box_without_a_gpu_or_pytest_benchmark(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    with pytest.raises(SystemExit, match="sees no GPU"):
        gpu.main([])
    with pytest.raises(SystemExit):
        gpu.main(["smoke", "sweeep"])
    assert "STAGE must be of smoke, contract, operators, step, sweep, got sweeep" in capsys.readouterr().err
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="is not installed"):
        gpu.main([])


def test_a_line_that_was_cut_is_left_out(tmp_path):
    path = tmp_path / "a.rows.jsonl"
    rows = Rows(str(path))
    rows.add({"operator": "fps", "median": 0.5})
    rows.check("compile", True)
    with path.open("a") as file:
        file.write('{"operator": "cut')
    assert read(path) == (
        [{"operator": "fps", "median": 0.5}],
        [{"check": "compile", "ok": True, "detail": ""}],
    )
    assert read(tmp_path / "none") == ([], [])


def test_a_launch_parameter_is_set_and_set_back():
    from benchmarks.sweep import setting, sweeps
    from recon_fast.kernels.triton import fps

    before = fps.POINTS_PER_THREAD
    with setting("fps", "POINTS_PER_THREAD", 77):
        assert fps.POINTS_PER_THREAD == 77
    assert before == fps.POINTS_PER_THREAD
    for small in (True, False):
        for sweep in sweeps(small):
            module = __import__(f"recon_fast.kernels.triton.{sweep.module}", fromlist=["x"])
            assert all(hasattr(module, name) for name in sweep.choices), sweep
