"""Every kernel variant compiles for GPUs that are not here, without spills, within a stated budget."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.loops import Instruction, loop_sizes

ROOT = Path(__file__).parents[3]
REGISTERS = {"sm_80": 255, "sm_90": 255, "sm_100": 255, "gfx942": 512}  # per thread, what the hardware has
SHARED = 64 * 1024  # bytes: what the smallest of them, gfx942, has
TRITON = tuple(map(int, version("triton").split(".")[:2]))
# Bytes that searches spill: under Triton 3.6 those in one tile on sm_80, and of 1024 neighbours.
SPILLS = {"sm_80": 80, "sm_90": 32} if TRITON < (3, 7) else {"sm_80": 8}
INDEX_KERNELS = ("fps", "knn", "group", "ball", "nearest")


def output_of(*arguments: str) -> str:
    """What Python prints in a process of its own: this one may interpret kernels, not compile them."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-W", "error", *arguments]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def compiled(*arguments: str) -> list[dict]:
    """Costs of kernel variants."""
    return json.loads(output_of("-m", "benchmarks.static", "--json", *arguments))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_variant_compiles_within_budget(arch):
    costs = compiled("--arch", arch)
    assert {cost["variant"].split()[0] for cost in costs} == {
        *INDEX_KERNELS,
        "features",
        "gradient",
        "chamfer",
        "attention",
    }
    for cost in costs:
        assert cost["spills"] <= SPILLS.get(arch, 0), cost
        assert cost["nan_minima"] == 0, f"a NaN distance has to be the farthest: {cost}"
        assert cost["mixed_reads"] == 0, f"threads that see different keys go on together: {cost}"
        assert cost["flushed"] == 0 or cost["variant"].startswith("attention"), cost
        # A program's threads share 65536 registers, 4 x 512 x 64 lanes on gfx942.
        assert cost["registers"] <= REGISTERS[arch], cost
        assert cost["shared"] <= SHARED, cost
        if cost["variant"].startswith(INDEX_KERNELS):
            assert cost["contracted"] == 0, f"a fused multiply-add rounds distances otherwise: {cost}"


@pytest.mark.slow
def test_launchers_compile_what_they_launch():
    made = json.loads(output_of(f"{Path(__file__).parent}/dry_launch.py"))
    assert len(made) == 12
    # Strides that 16 divides, or 1 does, compile anew, and so do masks; sizes do not.
    assert max(made.values()) <= 4, made


def test_a_step_of_farthest_point_sampling_is_short():
    (cost,) = compiled("--arch", "sm_90", "--only", "fps N=2048")
    assert cost["loops"], cost
    assert max(cost["loops"]) <= 21 * 8, "21 instructions for each of a thread's 8 points"


def test_loops_of_a_listing():
    code = [
        Instruction("start"),
        Instruction("outer"),
        Instruction("inner"),
        Instruction(),
        Instruction(target="inner"),
        Instruction(target="cold"),
        Instruction("back"),
        Instruction(target="outer"),
        Instruction(ends=True),
        Instruction("cold"),  # out of line, and no loop though it branches back
        Instruction(target="back", ends=True),
        Instruction("self", target="self", ends=True),
    ]
    assert loop_sizes(code) == [6, 3]
