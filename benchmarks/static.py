"""What every kernel variant costs before it ever runs: `python -m benchmarks.static [--arch sm_90 ...] [--json]`.

Compiles each variant ahead of time, without a GPU, and prints registers per thread, spilled bytes, shared memory
and the instructions of the longest innermost loop per warp (the span of SASS up to its backward branch).
For gfx942 the numbers are those of the amdgcn metadata: vector registers, spills and scratch, LDS; the loop is
counted in the assembly text. These are facts about the code, not timings.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.variants import VARIANTS, Variant

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
NVIDIA_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


@dataclass(frozen=True)
class Cost:
    """Static cost of one variant on one architecture."""

    variant: str
    arch: str
    warps: int
    registers: int  # per thread
    spills: int  # bytes of stack or scratch per thread
    shared: int  # bytes per program
    loop: int  # instructions of the longest innermost loop, 0 without a loop
    contracted: int  # fp32 multiply-adds fused by the compiler in the whole kernel


def compile_variant(variant: Variant, arch: str) -> "triton.compiler.CompiledKernel":
    """The variant's kernel, compiled for `arch` as a launch with aligned pointers would."""
    names = variant.kernel.arg_names
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if isinstance(signature[name], str) and signature[name].startswith("*")
    }
    constants: dict[object, object] = {
        name: variant.constants.get(name) for name in names if signature[name] == "constexpr"
    }
    for i, name in enumerate(names):  # "constexpr" within a tuple of strides: the stride of a contiguous axis
        if isinstance(signature[name], tuple):
            constants |= {(i, j): 1 for j, kind in enumerate(signature[name]) if kind == "constexpr"}
    source = ASTSource(variant.kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=TARGETS[arch], options=dict(variant.options))


def innermost_loop(code: list[tuple[str, str | None, str | None]]) -> int:
    """Instructions of the longest loop that contains no other; rows are (text, label here, branch to)."""
    position: dict[str, int] = {}
    loops = []
    for i, (_, label, target) in enumerate(code):
        if label is not None:
            position[label] = i
        if target is not None and target in position:
            loops.append((position[target], i))
    # Of loops with one head (two backward branches) the longest counts; a loop around another one does not.
    heads = {head: max(end for h, end in loops if h == head) for head, _ in loops}
    inner = [
        (a, b) for a, b in heads.items() if b > a and not any(a < c and d < b for c, d in heads.items())
    ]
    return max((b - a + 1 for a, b in inner), default=0)


def _nvidia_tool(name: str, *arguments: str) -> str:
    tool = NVIDIA_TOOLS / name
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def _nvidia_cost(variant: Variant, arch: str, compiled: "triton.compiler.CompiledKernel") -> Cost:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _nvidia_tool("cuobjdump", "-res-usage", file.name)
        sass = _nvidia_tool("cuobjdump", "-sass", file.name)
    field = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage))
    rows: list[tuple[str, str | None, str | None]] = []
    for line in sass.splitlines():
        match = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", line)
        if match:
            address, text = match.groups()
            branch = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
            rows.append((text, str(int(address, 16)), str(int(branch[1], 16)) if branch else None))
    return Cost(
        variant.name,
        arch,
        compiled.metadata.num_warps,
        int(field["REG"]),
        int(field["STACK"]) + int(field["LOCAL"]),
        max(int(field["SHARED"]), compiled.metadata.shared),
        innermost_loop(rows),
        len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f32", compiled.asm["ptx"])),
    )


def _amd_cost(variant: Variant, arch: str, compiled: "triton.compiler.CompiledKernel") -> Cost:
    text = compiled.asm["amdgcn"]
    field = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", text, re.MULTILINE)}
    rows: list[tuple[str, str | None, str | None]] = []
    label = None
    for line in text.splitlines():
        if match := re.match(r"(\.L\w+):", line):
            label = match[1]
        elif match := re.match(r"\t([vs]_|ds_|global_|buffer_|flat_|scratch_)\S+.*", line):
            branch = re.match(r"\ts_c?branch\S*\s+(\.L\w+)", line)
            rows.append((line, label, branch[1] if branch else None))
            label = None
    return Cost(
        variant.name,
        arch,
        compiled.metadata.num_warps,
        field["vgpr_count"],
        field["private_segment_fixed_size"] + 4 * field["vgpr_spill_count"],
        max(field["group_segment_fixed_size"], compiled.metadata.shared),
        innermost_loop(rows),
        len(re.findall(r"\bv_(?:pk_)?(?:fma|fmac|mad|mac)_f32", text)),
    )


def cost_of(variant: Variant, arch: str) -> Cost:
    """Compile and read the numbers."""
    compiled = compile_variant(variant, arch)
    read = _amd_cost if TARGETS[arch].backend == "hip" else _nvidia_cost
    return read(variant, arch, compiled)


def table(costs: list[Cost]) -> str:
    """Markdown, one row per variant and architecture."""
    lines = [
        "| variant | arch | warps | registers | spilled bytes | shared bytes | inner loop | fp32 fma |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {c.variant} | {c.arch} | {c.warps} | {c.registers} | {c.spills} | {c.shared} | {c.loop} | {c.contracted} |"
        for c in costs
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Static cost of every Triton kernel variant.")
    parser.add_argument("--arch", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET=1 interprets kernels instead of compiling them: unset it")
    variants = [v for v in VARIANTS if options.only in v.name]
    costs = [cost for arch in options.arch for cost in map(partial(cost_of, arch=arch), variants)]
    print(json.dumps([asdict(cost) for cost in costs]) if options.json else table(costs))


if __name__ == "__main__":
    main()
