"""Where the time of a step goes: `recon-fast pretrain --profile N`."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from recon_fast.console import say
from recon_fast.device import peak_memory
from recon_fast.errors import InputError
from recon_fast.models import PretrainModel
from recon_fast.models.recon import Encoder, Reconstruction
from recon_fast.models.tokenizer import Tokenizer
from recon_fast.models.two_tower import Tower
from recon_fast.training.loop import Loop
from recon_fast.training.losses import LossModule

PARTS = ("data", "group", "tokenizer", "encoder", "decoder", "losses", "backward", "optimizer")
_MODULES: dict[type[nn.Module], str] = {
    Tokenizer: "tokenizer",
    Encoder: "encoder",
    Tower: "encoder",
    Reconstruction: "decoder",
}
_WARMUP, _TRACED = 2, 3  # steps


class Parts:
    """What a clock shows, by part; a part inside another takes its share out of it.

    Args:
        clock: anything that only grows: seconds, or floating-point operations so far.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.totals: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._turn()
        self.open.append(name)
        try:
            yield
        finally:
            self._turn()
            self.open.pop()

    def _turn(self) -> None:
        now = self.clock()
        if self.open:
            self.totals[self.open[-1]] += now - self.since
        self.since = now


@contextmanager
def watch(model: PretrainModel, timer: Callable[[str], ContextDecorator]) -> Iterator[None]:
    """Enter `timer` around the grouping and the modules of `model`."""
    watched = [(m, "forward", _MODULES[type(m)]) for m in model.modules() if type(m) in _MODULES]
    watched.append((model, "group", "group"))
    for module, method, name in watched:
        setattr(module, method, timer(name)(getattr(module, method)))
    try:
        yield
    finally:
        for module, method, _ in watched:
            delattr(module, method)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Multiplications and additions of the package's own operators, as far as they are matrix products."""
    ops = torch.ops.recon_fast

    def dense(x: list[int], weight: list[int], *_: Any, **__: Any) -> int:
        return 2 * x[0] * x[1] * x[2] * weight[0]

    def sparse(grad: list[int], _idx: list[int], x: list[int], *_: Any, **__: Any) -> int:
        return 2 * 2 * grad[0] * grad[1] * x[2]  # to the input and to the weight, of one member a group

    def attention(query: list[int], key: list[int], *_: Any, **__: Any) -> int:
        B, H, Q, D = query
        return 2 * 2 * B * H * Q * key[2] * D

    def attention_backward(_grad: list[int], query: list[int], key: list[int], *rest: Any, **__: Any) -> int:
        B, H, Q, D = query
        products = 5 if rest[-1] else 3  # scores, weights, queries; keys and values where they are wanted
        return 2 * products * B * H * Q * key[2] * D

    return {
        ops.linear_max: dense,
        ops.linear_max_backward: sparse,
        ops.masked_cross_attention: attention,
        ops.masked_cross_attention_backward: attention_backward,
    }


@dataclass
class Profile:
    """Costs of a step, means over the steps that were timed."""

    step_ms: float  # as in training: compiled if training is, nothing waited for
    parts_ms: dict[str, float]  # uncompiled, the device waited for at each border
    parts_gflop: dict[str, float]  # of matrix products
    outside_percent: float  # share of what is not the model, its losses or their gradients: data
    clouds_per_s: float
    peak_memory: int | None  # bytes
    steps: int

    def table(self) -> Table:
        """For people: ms, share and achieved GFLOP/s of each part."""
        table = Table("part")
        for header in ("ms", "%", "GFLOP/s"):
            table.add_column(header, justify="right")
        total = sum(self.parts_ms.values())
        rows = {**self.parts_ms, "sum of the parts": total}
        gflop = {**self.parts_gflop, "sum of the parts": sum(self.parts_gflop.values())}
        for name, ms in rows.items():
            speed = f"{1e3 * gflop[name] / ms:.0f}" if gflop[name] > 1e-3 and ms else ""
            table.add_row(name, f"{ms:.2f}", f"{100 * ms / total:.1f}", speed)
        return table


def steps_profiled(steps: int) -> int:
    """Steps that `profile` takes in all."""
    return 2 * _WARMUP + 2 * steps + 1 + _TRACED


def profile(loop: Loop, losses: LossModule, steps: int, folder: Path | None, console: Console) -> Profile:
    """Time `steps` steps, whole and by part, and write profile.json and trace.json (Chrome's format).

    Args:
        loop: of a run, which ends here: its weights move on, uncompiled in the end.
        losses: the ones in it, compiled or not.
        folder: where the two files go; None writes nothing.

    Raises:
        InputError: they cannot be written.
    """
    model, device = losses.model, loop.device
    assert isinstance(model, PretrainModel)

    def seconds() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(_WARMUP):  # first calls allocate and compile
        loop.advance()
    began = seconds()
    for _ in range(steps):
        loop.advance()
    whole = (seconds() - began) / steps

    losses.run = losses.losses  # modules inside compiled code cannot be watched
    for _ in range(_WARMUP):
        loop.advance()
    parts = Parts(seconds)
    with watch(model, parts):
        for _ in range(steps):
            loop.advance(part=parts)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
        flops = Parts(counter.get_total_flops)
        with watch(model, flops):
            loop.advance(part=flops)
    milliseconds = {name: 1e3 * parts.totals[name] / steps for name in PARTS}
    result = Profile(
        step_ms=1e3 * whole,
        parts_ms=milliseconds,
        parts_gflop={name: flops.totals[name] / 1e9 for name in PARTS},
        outside_percent=100 * milliseconds["data"] / sum(milliseconds.values()),
        clouds_per_s=loop.config.optim.batch_size / whole,
        peak_memory=peak_memory(device),
        steps=steps,
    )
    console.print(result.table())
    memory = "" if result.peak_memory is None else f", at most {result.peak_memory / 2**30:.2f} GiB"
    say(
        console,
        f"a step as trained: {result.step_ms:.1f} ms, {result.clouds_per_s:.0f} clouds/s{memory}; "
        f"data {result.outside_percent:.1f} % of the parts; means of {steps} steps",
    )
    if folder is not None:
        _write(result, folder, model, loop)
        say(console, f"for ui.perfetto.dev or chrome://tracing: {folder / 'trace.json'}")
    return result


def _write(result: Profile, folder: Path, model: PretrainModel, loop: Loop) -> None:
    """profile.json, and trace.json of a few more steps."""
    label = torch.profiler.record_function
    with torch.profiler.profile() as profiler, watch(model, label):
        for _ in range(_TRACED):
            loop.advance(part=label)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        (folder / "profile.json").write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise InputError(f"profile cannot be written to {folder}: {error}") from error
