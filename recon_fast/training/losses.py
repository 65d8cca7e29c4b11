"""The losses of a model as a step computes them: over all processes, compiled or with less memory where that
is wanted.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from recon_fast.config import PretrainConfig
from recon_fast.config.downstream import DownstreamConfig
from recon_fast.console import say, warn
from recon_fast.data.batches.resident import Batch
from recon_fast.device import autocast, seed_step
from recon_fast.distributed import gather_rows, own_rows, world_size
from recon_fast.errors import InputError
from recon_fast.models.blocks import Block, ReConBlock
from recon_fast.models.tokenizer import FoldedNorm

_TRIES = 3  # with CUDA graphs the first warms up, the second records, the third replays
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}


def _over_all(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and biased variance [C] over the rows of all processes, each of which has as many."""
    means, variances = gather_rows(torch.stack([mean, var])[None]).unbind(1)  # [W, C] each
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _SyncedNorm(FoldedNorm):
    """Batch norm with the statistics of all processes: folded into a layer, or a layer of its own."""

    def fold(self, count: int, statistics: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return super().fold(count * world_size(), lambda: _over_all(*statistics()))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C]."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            mean, var = _over_all(x.mean(0), x.var(0, correction=0))
            factor, _ = super().fold(len(x) * world_size(), lambda: (mean, var))
            # Differences first: early in training, global tokens are far from 0 and close together.
            return (x - mean) * factor + self.bias


class _SharedDropout(nn.Dropout):
    """Dropout that draws for the whole batch, of which this process takes its rows."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * own_rows(len(x), lambda n: nn.functional.dropout(x.new_ones(n, *x.shape[1:]), self.p))


def _share_between_processes(model: nn.Module, sync_norm: bool) -> None:
    """Let dropout draw alike in any number of processes, and with `sync_norm` batch norms normalise over the
    batches of all of them.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, _SharedDropout(child.p).train(child.training))
            elif sync_norm and isinstance(child, nn.BatchNorm1d):
                shared = _SyncedNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                for buffer, value in child.named_buffers():
                    setattr(shared, buffer, value)
                setattr(module, name, shared.train(child.training))


class LossModule(nn.Module):
    """From a batch to the losses of a model by name.

    Args:
        model: what is trained.
        compute: from the model and the `inputs` of a `Batch` to losses.
        sync_norm: batch norms take the statistics of all processes.

    Attributes:
        run: what computes them; `compile_losses` may put a compiled one in its place.
    """

    def __init__(self, model: nn.Module, compute: Callable[..., dict[str, Tensor]], sync_norm: bool) -> None:
        super().__init__()
        if world_size() > 1:
            _share_between_processes(model, sync_norm)
        self.model, self.compute = model, compute
        self.run: Callable[..., dict[str, Tensor]] = self.losses

    def losses(self, *batch: Tensor | None) -> dict[str, Tensor]:
        """The losses, uncompiled."""
        return self.compute(self.model, *batch)

    def forward(self, *batch: Tensor | None) -> dict[str, Tensor]:
        return self.run(*batch)


def averaged(losses: LossModule, device: torch.device) -> nn.Module:
    """`losses` as a module whose backward averages gradients over all processes."""
    if world_size() == 1:
        return losses
    # Of tokens [1, 1, C], whose gradients may have any strides along dimensions of size 1.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        losses,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        # Which parameters a loss reaches never changes. A static graph takes no `no_sync`, so that each
        # micro-batch is reduced.
        static_graph=True,
    )


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer blocks keep their inputs alone and run again in the backward pass (Chen et al.,
    "Training deep nets with sublinear memory cost", 2016); drop-path draws are the same both times.
    """
    for module in model.modules():
        if isinstance(module, Block | ReConBlock):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def compile_losses(
    losses: LossModule,
    config: PretrainConfig | DownstreamConfig,
    first_batch: Callable[[], Batch],
    device: torch.device,
    dtype: torch.dtype,
    console: Console,
) -> None:
    """Let `losses` run compiled if that is wanted, works, and gives the losses of the uncompiled model.

    Args:
        losses: changed in place.
        config: its `compile`, "on", "off", or "auto", which compiles on GPUs; its seed and `accumulate`.
        first_batch: gives the first batch of the run, which it is tried on.
        device: where the run computes.
        dtype: what it computes in.
        console: told what happened.
    """
    if config.compile == "off" or (config.compile == "auto" and device.type != "cuda"):
        return
    batch = first_batch()
    want = dry_run(losses, batch, config.seed, dtype)
    # Draws as the uncompiled model makes them, so that the two can be compared.
    options: dict[str, Any] = {
        "fallback_random": True,
        # With several micro-batches a replay of a graph would write over the gradients of the one before.
        "triton.cudagraphs": device.type == "cuda" and config.optim.accumulate == 1,
    }
    with console.status("compiling the step"):
        try:
            losses.run = torch.compile(losses.losses, options=options)
            for _ in range(_TRIES):
                got = dry_run(losses, batch, config.seed, dtype)
            reason = ", ".join(
                f"{name} {got[name]:.6g} instead of {value:.6g}"
                for name, value in want.items()
                if not abs(got[name] - value) <= _TOLERANCE[dtype] * abs(value)
            )
        except InputError:
            raise
        except Exception as error:  # the compiler, the driver and the C++ compiler raise what they like
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not reason:
        say(console, "the step is compiled")
        return
    losses.run = losses.losses
    torch.compiler.reset()
    warn(console, f"torch.compile is left out, the step runs without it: {reason}")


def dry_run(losses: nn.Module, batch: Batch, seed: int, dtype: torch.dtype) -> dict[str, float]:
    """Losses and norm of the gradient of a batch, by name; the model stays as it is."""
    kept = [(buffer, buffer.clone()) for buffer in losses.buffers()]
    seed_step(seed, 0)
    with autocast(batch.points.device, dtype):
        output = losses(*batch.inputs)
        loss = torch.stack(list(output.values())).sum()
    loss.backward()
    gradients = [p.grad for p in losses.parameters() if p.grad is not None]
    values = {name: value.item() for name, value in output.items()}
    values["grad_norm"] = torch.nn.utils.get_total_norm(gradients).item()
    losses.zero_grad(set_to_none=True)
    for buffer, before in kept:
        buffer.copy_(before)
    return values
