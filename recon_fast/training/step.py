"""One training step: gradients of a batch, and whether they may be used."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from recon_fast.config import OptimConfig
from recon_fast.data.batches.resident import Batch
from recon_fast.device import autocast, seed_step
from recon_fast.errors import InputError
from recon_fast.training.adamw import AdamW
from recon_fast.training.distributed import mean_and_any
from recon_fast.training.optim import learning_rate


class StepConfig(Protocol):
    """What a step wants to know of the settings of any command that trains."""

    @property
    def seed(self) -> int: ...

    @property
    def optim(self) -> OptimConfig: ...


class NonFiniteLoss(InputError):
    """Losses or gradients were NaN or infinite in too many steps in a row."""


def not_finite(values: dict[str, float]) -> str:
    """The values that are NaN or infinite, as text; empty if there are none."""
    return ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))


class KeptBuffers:
    """A model's running statistics as they were, for a step that is skipped."""

    def __init__(self, model: nn.Module) -> None:
        self.buffers = list(model.buffers())
        self.kept = [buffer.clone() for buffer in self.buffers]

    def keep(self) -> None:
        """Remember the buffers as they are."""
        torch._foreach_copy_(self.kept, self.buffers)

    def restore_unless(self, finite: torch.Tensor) -> None:
        """Make the buffers what they were, unless `finite` (bool, 0-d) holds; the host does not wait."""
        for buffer, kept in zip(self.buffers, self.kept, strict=True):
            torch.where(finite, buffer, kept, out=buffer)


Part = Callable[[str], AbstractContextManager]  # around a part of a step, by its name


def untimed(_name: str) -> AbstractContextManager:
    """A `Part` that does nothing."""
    return nullcontext()


@dataclass
class StepValues:
    """What a step gave; the host has not waited for it yet."""

    known: dict[str, float]  # step (counted from 1), lr, clouds, data_ms, step_ms
    names: list[str]  # of the losses, then grad_norm
    computed: torch.Tensor  # [V + 1] on the device: values by `names`, and above 0 where a process is to stop
    finite: torch.Tensor  # 0-d bool on the device: whether the gradients may be used


def rehearse(terms: nn.Module, batch: Batch, seed: int, dtype: torch.dtype) -> dict[str, float]:
    """Losses and norm of the gradient of a batch, by name; the model stays as it is."""
    buffers = KeptBuffers(terms)
    seed_step(seed, 0)
    with autocast(batch.points.device, dtype):
        output = terms(*batch.inputs)
        loss = torch.stack(list(output.values())).sum()
    loss.backward()
    gradients = [p.grad for p in terms.parameters() if p.grad is not None]
    values = {name: value.item() for name, value in output.items()}
    values["grad_norm"] = torch.nn.utils.get_total_norm(gradients).item()
    terms.zero_grad(set_to_none=True)
    torch._foreach_copy_(buffers.buffers, buffers.kept)
    return values


def train_step(
    losses: nn.Module,
    optimizer: AdamW,
    batches: Iterator[Batch],
    config: StepConfig,
    step: int,
    steps_per_epoch: int,
    dtype: torch.dtype,
    received: Sequence[int] = (),
    part: Part = untimed,
) -> StepValues:
    """Gradients of one batch; the optimizer knows how to clip them, and has not stepped yet.

    Args:
        losses: from a batch to losses by name; see `Terms`.
        batches: of this process, the next of which are the step's micro-batches; see `BatchStream`.
        config: settings of the command.
        step: counted from 0; with the seed it fixes what the model draws.
        received: signals that asked this process to stop; looked at when the step is done.
        part: entered with "data", "losses" (the model), "backward" and "optimizer" (here, the norm).

    Returns:
        The step's values, alike in all processes but for times.
    """
    started = time.perf_counter()
    data_seconds = 0.0
    lr = learning_rate(config.optim, step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
    optimizer.zero_grad(set_to_none=True)

    accumulate = config.optim.accumulate
    terms: list[torch.Tensor] = []
    for i in range(accumulate):
        seed_step(config.seed, step * accumulate + i)
        drawing = time.perf_counter()
        with part("data"):
            batch = next(batches)
        data_seconds += time.perf_counter() - drawing
        with part("losses"), autocast(batch.points.device, dtype):
            output = losses(*batch.inputs)
            loss = torch.stack(list(output.values())).sum() / accumulate
        with part("backward"):
            loss.backward()
        terms.append(torch.stack([term.detach() for term in output.values()]))
    with part("optimizer"):
        norm = optimizer.clip(config.optim.clip_grad)

    computed = mean_and_any(torch.cat([torch.stack(terms).mean(0), norm[None]]), bool(received))
    known = {
        "step": step + 1,
        "lr": lr,
        "clouds": config.optim.batch_size,
        "data_ms": 1e3 * data_seconds,
        "step_ms": 1e3 * (time.perf_counter() - started - data_seconds),
    }
    return StepValues(known, [*output, "grad_norm"], computed, computed.isfinite().all())


def finish_step(optimizer: AdamW, buffers: KeptBuffers, finite: torch.Tensor) -> None:
    """Let the optimizer step, unless `finite` (bool, 0-d, on the device) says that nothing may change."""
    optimizer.found_inf = (~finite).float()
    optimizer.step()
    buffers.restore_unless(finite)


def read_every(device: torch.device, log_every: int) -> int:
    """Steps after which the host asks what came out: a GPU is not waited for within a window of the log."""
    return log_every if device.type == "cuda" else 1


def read_steps(steps: Sequence[StepValues]) -> list[tuple[dict[str, float], bool]]:
    """The values of steps by name, and whether a process was asked to stop; here the host waits."""
    waiting = time.perf_counter()
    rows = torch.stack([step.computed for step in steps]).tolist()
    steps[-1].known["step_ms"] += 1e3 * (time.perf_counter() - waiting)
    read = []
    for step, (*values, stop) in zip(steps, rows, strict=True):
        computed = dict(zip(step.names, values, strict=True))
        loss = sum(value for name, value in computed.items() if name != "grad_norm")
        read.append(({**step.known, **computed, "loss": loss}, stop > 0))
    return read
