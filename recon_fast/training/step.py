"""One training step: gradients of a batch, and whether they may be used."""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from recon_fast.config import PretrainConfig
from recon_fast.data.resident import Batch
from recon_fast.errors import InputError
from recon_fast.training.device import autocast, seed_step
from recon_fast.training.distributed import mean_and_any
from recon_fast.training.optim import learning_rate


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

    def restore(self) -> None:
        """Make the buffers what they were."""
        torch._foreach_copy_(self.buffers, self.kept)


def train_step(
    losses: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    config: PretrainConfig,
    step: int,
    steps_per_epoch: int,
    dtype: torch.dtype,
    received: Sequence[int] = (),
) -> tuple[dict[str, float], bool]:
    """Gradients of one batch, clipped, and the step's values by name; the optimizer has not stepped yet.

    Args:
        losses: from a batch to losses by name; see `losses_of`.
        batches: of this process, the next of which are the step's micro-batches; see `BatchStream`.
        step: counted from 0; with the seed it fixes what the model draws.
        received: signals that asked this process to stop; looked at when the step is done.

    Returns:
        The values, alike in all processes but for times, and whether any of them was asked to stop.
    """
    started = time.perf_counter()
    data_seconds = 0.0
    lr = learning_rate(config.optim, step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)

    accumulate = config.optim.accumulate
    terms: list[torch.Tensor] = []
    for i in range(accumulate):
        seed_step(config.seed, step * accumulate + i)
        drawing = time.perf_counter()
        batch = next(batches)
        data_seconds += time.perf_counter() - drawing
        with autocast(batch.points.device, dtype):
            output = losses(
                batch.points, batch.image_feature, batch.text_feature, batch.label, None, batch.mask_noise
            )
        (torch.stack(list(output.values())).sum() / accumulate).backward()
        terms.append(torch.stack([term.detach() for term in output.values()]))
    limit = math.inf if config.optim.clip_grad is None else config.optim.clip_grad
    norm = torch.nn.utils.clip_grad_norm_(losses.parameters(), limit)

    # The one point of a step where the host waits for the device.
    computed = torch.cat([torch.stack(terms).mean(0), norm[None]])
    (*means, norm_value), stop = mean_and_any(computed, lambda: bool(received))
    values = {
        "lr": lr,
        "clouds": config.optim.batch_size,
        **dict(zip(output, means, strict=True)),
        "loss": sum(means),
        "grad_norm": norm_value,
        "data_ms": 1e3 * data_seconds,
        "step_ms": 1e3 * (time.perf_counter() - started - data_seconds),
    }
    return values, stop
