"""The steps of a run: taken, read, logged or skipped."""

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from recon_fast.config import PretrainConfig
from recon_fast.config.downstream import DownstreamConfig
from recon_fast.data.batches.resident import Batch
from recon_fast.device import autocast, seed_step
from recon_fast.distributed import mean_and_any
from recon_fast.errors import InputError
from recon_fast.kernels import torch_threads
from recon_fast.training.losses import LossModule
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import AdamW, learning_rate, num_epochs

_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = 1, -1, -3  # of malloc.h


class NonFiniteLoss(InputError):
    """Losses or gradients were NaN or infinite in too many steps in a row."""


def untimed(_name: str) -> AbstractContextManager:
    """Around a part of a step, by its name; does nothing."""
    return nullcontext()


Timer = Callable[[str], AbstractContextManager]  # as `untimed`


@dataclass
class StepValues:
    """What a step gave; the host has not waited for it yet."""

    known: dict[str, float]  # step (counted from 1), lr, clouds, data_ms, step_ms
    names: list[str]  # of the losses, then grad_norm
    computed: torch.Tensor  # [V + 1] on the device: values by `names`, and above 0 where a process is to stop
    finite: torch.Tensor  # 0-d bool on the device: whether the gradients may be used


def read_every(device: torch.device, log_every: int) -> int:
    """Steps after which the host asks what came out: a GPU is not waited for within a window of the log."""
    return log_every if device.type == "cuda" else 1


def keep_freed_memory() -> bool:
    """Let the C library keep the memory that a step frees, for the next one; whether it does.

    By default it hands large pieces back to the system, and a step then spends its time on fresh pages:
    34,000 page faults and a seventh of a step of the base model (batch 16, bf16, two CPU cores) are gone with
    it. The process holds on to the most that it ever held. Small pieces are no longer set aside in lists that
    every large one sorts through again (1 % of that step). For Linux's glibc; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    options = {_M_TRIM_THRESHOLD: 1 << 30, _M_MMAP_THRESHOLD: 1 << 30, _M_MXFAST: 0}
    return all(mallopt(option, value) == 1 for option, value in options.items())


class Loop:
    """Training of one model.

    Args:
        config: of the command; its `optim` and `seed` count.
        losses: from a batch to losses by name; see `LossModule`.
        batches: of this process, one a micro-batch.
        steps_per_epoch: optimizer steps.
        step: where to start, counted from 0.
        skipped_in_a_row: steps just before that were skipped.
        last_good: a text for errors: which checkpoint is left.

    Attributes:
        step: steps that are done.
        total: steps of the whole run.
    """

    def __init__(
        self,
        config: PretrainConfig | DownstreamConfig,
        losses: nn.Module,
        optimizer: AdamW,
        batches: Iterator[Batch],
        device: torch.device,
        dtype: torch.dtype,
        steps_per_epoch: int,
        step: int = 0,
        skipped_in_a_row: int = 0,
        last_good: Callable[[], str] = lambda: "no checkpoint was written",
    ) -> None:
        self.config = config
        self.losses, self.optimizer, self.batches = losses, optimizer, batches
        self.device, self.dtype = device, dtype
        self.steps_per_epoch = steps_per_epoch
        self.total = steps_per_epoch * num_epochs(config.optim)
        self.step, self.skipped_in_a_row = step, skipped_in_a_row
        self.last_good = last_good
        self.buffers = list(losses.buffers())  # running statistics, kept for a step that is skipped
        self.kept = [buffer.clone() for buffer in self.buffers]
        keep_freed_memory()
        uncompiled = isinstance(losses, LossModule) and losses.run == losses.losses
        if device.type == "cpu" and dtype == torch.bfloat16 and uncompiled and config.optim.accumulate == 1:
            optimizer.multiply_copies(losses)

    def advance(self, received: Sequence[int] = (), part: Timer = untimed) -> StepValues:
        """One step; the host has not waited for it.

        Args:
            received: signals that asked this process to stop; looked at when the step is done.
            part: entered with "data", "losses" (the model), "backward" and "optimizer".

        Returns:
            The step's values, alike in all processes but for times.
        """
        with torch_threads() if self.device.type == "cpu" else nullcontext():
            with part("optimizer"):
                torch._foreach_copy_(self.kept, self.buffers)
            values = self._gradients(received, part)
            with part("optimizer"):
                # Nothing may change where the gradients are not finite; the host does not wait to know.
                self.optimizer.found_inf = (~values.finite).float()
                self.optimizer.step()
                for buffer, kept in zip(self.buffers, self.kept, strict=True):
                    torch.where(values.finite, buffer, kept, out=buffer)
        self.step += 1
        return values

    def _gradients(self, received: Sequence[int], part: Timer) -> StepValues:
        """Gradients of one batch; the optimizer knows how to clip them, and has not stepped yet."""
        started = time.perf_counter()
        data_seconds = 0.0
        seed, optim, optimizer = self.config.seed, self.config.optim, self.optimizer
        lr = learning_rate(optim, self.step, self.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        optimizer.zero_grad(set_to_none=True)

        terms: list[torch.Tensor] = []
        for i in range(optim.accumulate):
            seed_step(seed, self.step * optim.accumulate + i)
            drawing = time.perf_counter()
            with part("data"):
                batch = next(self.batches)
            data_seconds += time.perf_counter() - drawing
            with part("losses"), autocast(batch.points.device, self.dtype):
                output = self.losses(*batch.inputs)
                loss = torch.stack(list(output.values())).sum() / optim.accumulate
            with part("backward"):
                loss.backward()
            terms.append(torch.stack([term.detach() for term in output.values()]))
        with part("optimizer"):
            norm = optimizer.clip(optim.clip_grad)

        computed = mean_and_any(torch.cat([torch.stack(terms).mean(0), norm[None]]), bool(received))
        known = {
            "step": self.step + 1,
            "lr": lr,
            "clouds": optim.batch_size,
            "data_ms": 1e3 * data_seconds,
            "step_ms": 1e3 * (time.perf_counter() - started - data_seconds),
        }
        return StepValues(known, [*output, "grad_norm"], computed, computed.isfinite().all())

    @property
    def finished_epoch(self) -> int:
        """Epochs that are done, where the last step ended one; else 0."""
        epoch, rest = divmod(self.step, self.steps_per_epoch)
        return 0 if rest else epoch

    def is_read(self, log_every: int) -> bool:
        """Whether the host reads what came out after this step, where nothing else asks for it."""
        return self.step == self.total or self.step % read_every(self.device, log_every) == 0

    def read(self, unread: Sequence[StepValues], log: Metrics) -> bool:
        """Log steps whose values nobody has read yet; whether a process was asked to stop.

        Raises:
            NonFiniteLoss: more steps in a row than `optim.skip_limit` were not finite.
        """
        waiting = time.perf_counter()
        rows = torch.stack([step.computed for step in unread]).tolist()
        unread[-1].known["step_ms"] += 1e3 * (time.perf_counter() - waiting)
        for step, (*values, _) in zip(unread, rows, strict=True):
            computed = dict(zip(step.names, values, strict=True))
            loss = sum(value for name, value in computed.items() if name != "grad_norm")
            self._log({**step.known, **computed, "loss": loss}, log)
        return any(row[-1] > 0 for row in rows)

    def _log(self, values: dict[str, float], log: Metrics) -> None:
        """Log a step; one that is not finite has changed nothing, and the schedule has moved on."""
        number = int(values.pop("step"))
        broken = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        epoch = (number - 1) // self.steps_per_epoch
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if broken else 0
        limit = self.config.optim.skip_limit
        if self.skipped_in_a_row > limit:
            raise NonFiniteLoss(
                f"step {number} (epoch {epoch}) is not finite: {broken}; {limit} steps before it were "
                f"skipped (optim.skip_limit); {self.last_good()}"
            )
        if broken:
            log.skip(number, broken, self.skipped_in_a_row, limit)
            values = {name: values[name] for name in ("lr", "clouds", "data_ms", "step_ms")}
        log.step(number, self.total, {"epoch": epoch, **values})
