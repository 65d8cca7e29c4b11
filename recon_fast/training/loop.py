"""The steps of a run: taken, read, logged or skipped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from recon_fast.data.batches.resident import Batch
from recon_fast.kernels import torch_threads
from recon_fast.training.adamw import AdamW
from recon_fast.training.distributed import Terms
from recon_fast.training.memory import keep_freed_memory
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import num_epochs
from recon_fast.training.step import (
    KeptBuffers,
    NonFiniteLoss,
    Part,
    StepConfig,
    StepValues,
    finish_step,
    not_finite,
    read_every,
    read_steps,
    train_step,
    untimed,
)


class Loop:
    """Training of one model.

    Args:
        config: of the command; its `optim` and `seed` count.
        losses: from a batch to losses by name; see `Terms`.
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
        config: StepConfig,
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
        self.buffers = KeptBuffers(losses)
        keep_freed_memory()
        uncompiled = isinstance(losses, Terms) and losses.run == losses.losses
        if device.type == "cpu" and dtype == torch.bfloat16 and uncompiled and config.optim.accumulate == 1:
            optimizer.multiply_copies(losses)

    def advance(self, received: Sequence[int] = (), part: Part = untimed) -> StepValues:
        """One step; the host has not waited for it."""
        with torch_threads() if self.device.type == "cpu" else nullcontext():
            with part("optimizer"):
                self.buffers.keep()
            values = train_step(
                self.losses,
                self.optimizer,
                self.batches,
                self.config,
                self.step,
                self.steps_per_epoch,
                self.dtype,
                received,
                part,
            )
            with part("optimizer"):
                finish_step(self.optimizer, self.buffers, values.finite)
        self.step += 1
        return values

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
        stop = False
        for values, asked in read_steps(unread):
            self._note(values, log)
            stop = stop or asked
        return stop

    def _note(self, values: dict[str, float], log: Metrics) -> None:
        """Log a step; one that is not finite has changed nothing, and the schedule has moved on."""
        number, broken = int(values.pop("step")), not_finite(values)
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
