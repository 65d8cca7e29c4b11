"""What every kernel variant costs before it ever runs: `python -m benchmarks.static [--arch sm_90] [--json]`.

Compiles each variant ahead of time, without a GPU, and prints registers per thread, spilled bytes, shared
memory, all instructions, and those of each loop without the loops inside it (a branch that is rarely taken
counts too). For gfx942 the numbers are those of the amdgcn metadata: vector registers, spills and scratch,
LDS. These are facts about the code, not timings.
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

from benchmarks.loops import Instruction, loop_sizes
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
    instructions: int  # of the whole kernel
    loops: list[int]  # instructions of each loop, without those of the loops inside it
    contracted: int  # fp32 multiply-adds fused by the compiler in the whole kernel
    nan_minima: int  # fp32 minima and maxima that give NaN where one operand is
    mixed_reads: int  # of what other programs write meanwhile, by several threads that go on together
    flushed: int  # fp32 operations that take denormal numbers for 0


def compile_variant(variant: Variant, arch: str) -> "triton.compiler.CompiledKernel":
    """The variant's kernel, compiled for `arch` as a launch with aligned pointers would."""
    names = variant.kernel.arg_names
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    aligned: dict[tuple[int, ...], list[list[object]]] = {
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
            strides = [(i, j) for j, kind in enumerate(signature[name]) if kind != "constexpr"]
            if variant.aligned_strides:
                aligned |= {key: [["tt.divisibility", 16]] for key in strides}
    source = ASTSource(variant.kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=TARGETS[arch], options=dict(variant.options))


def _nvidia_tool(name: str, *arguments: str) -> str:
    tool = NVIDIA_TOOLS / name
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def _mixed_reads(code: str) -> int:
    """Volatile loads and atomic reads of a value by several threads, unless each warp reads all, a lane each.

    Such threads may read different values, while Triton takes them for equal and reduces whichever it likes.
    """
    number = r"\[(\d+)\]"
    threads = {
        name: (int(per_thread) * int(lanes), int(warps))
        for name, per_thread, lanes, warps in re.findall(
            rf"(#\w+) = #ttg\.blocked<{{sizePerThread = {number}, threadsPerWarp = {number}, "
            rf"warpsPerCTA = {number}",
            code,
        )
    }
    reads = re.findall(r"(?:isVolatile = true|atomic_rmw or).*tensor<(\d+)x\S+ (#\w+)>", code)
    held = [(int(size), *threads[name]) for size, name in reads]
    return sum(size != in_warp and size % (in_warp * warps) > 0 for size, in_warp, warps in held)


def _nvidia_cost(variant: Variant, arch: str, compiled: "triton.compiler.CompiledKernel") -> Cost:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _nvidia_tool("cuobjdump", "-res-usage", file.name)
        sass = _nvidia_tool("cuobjdump", "-sass", file.name)
    field = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage))
    code = []
    for address, text in re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);", sass, re.MULTILINE):
        branch = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        ends = re.match(r"(BRA(?!\S*\s+!?U?P\d)|EXIT|RET)", text) is not None
        code.append(Instruction(str(int(address, 16)), str(int(branch[1], 16)) if branch else None, ends))
    return Cost(
        variant.name,
        arch,
        compiled.metadata.num_warps,
        int(field["REG"]),
        int(field["STACK"]) + int(field["LOCAL"]),
        max(int(field["SHARED"]), compiled.metadata.shared),
        len(code),
        loop_sizes(code),
        len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f32", compiled.asm["ptx"])),
        len(re.findall(r"\b(?:min|max)(?:\.ftz)?\.NaN\S*\.f32", compiled.asm["ptx"])),
        _mixed_reads(compiled.asm["ttgir"]),
        len(re.findall(r"\.ftz\.", compiled.asm["ptx"])),
    )


def _amd_cost(variant: Variant, arch: str, compiled: "triton.compiler.CompiledKernel") -> Cost:
    text = compiled.asm["amdgcn"]
    field = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", text, re.MULTILINE)}
    code = []
    label = None
    for line in text.splitlines():
        if match := re.match(r"(\.LBB\w+):", line):
            label = match[1]
        elif re.match(r"\t(v|s|ds|global|buffer|flat|scratch)_", line):
            branch = re.match(r"\ts_c?branch\S*\s+(\.L\w+)", line)
            ends = re.match(r"\ts_(branch|endpgm|setpc)", line) is not None
            code.append(Instruction(label, branch[1] if branch else None, ends))
            label = None
    return Cost(
        variant.name,
        arch,
        compiled.metadata.num_warps,
        field["vgpr_count"],
        field["private_segment_fixed_size"] + 4 * field["vgpr_spill_count"],
        max(field["group_segment_fixed_size"], compiled.metadata.shared),
        len(code),
        loop_sizes(code),
        len(re.findall(r"\bv_(?:pk_)?(?:fma|fmac|mad|mac)_f32", text)),
        len(re.findall(r"\bv_(?:pk_)?(?:minimum|maximum)3?_f32", text)),
        _mixed_reads(compiled.asm["ttgir"]),
        int(".amdhsa_float_denorm_mode_32 3" not in text),
    )


def cost_of(variant: Variant, arch: str) -> Cost:
    """Compile and read the numbers."""
    compiled = compile_variant(variant, arch)
    read = _amd_cost if TARGETS[arch].backend == "hip" else _nvidia_cost
    return read(variant, arch, compiled)


def table(costs: list[Cost]) -> str:
    """Markdown, one row per variant and architecture."""
    lines = [
        "| variant | arch | warps | registers | spilled | shared | instructions | loops | fp32 fma |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    lines += [
        f"| {c.variant} | {c.arch} | {c.warps} | {c.registers} | {c.spills} | {c.shared} | {c.instructions} "
        f"| {', '.join(map(str, c.loops))} | {c.contracted} |"
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
