"""torch.compile of the losses, tried before the first step and never trusted unseen."""

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from recon_fast.console import say
from recon_fast.data.batches.resident import Batch
from recon_fast.errors import InputError
from recon_fast.training.distributed import Terms
from recon_fast.training.step import StepConfig, rehearse

_REHEARSALS = 3  # with CUDA graphs the first warms up, the second records, the third replays
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}


def compile_if_wanted(
    setting: str,
    terms: Terms,
    first_batch: Callable[[], Batch],
    config: StepConfig,
    device: torch.device,
    dtype: torch.dtype,
    console: Console,
) -> None:
    """Compile `terms` if `setting` ("auto", "on", "off") wants that on `device`, tried on the first batch."""
    if not wants_compile(setting, device):
        return
    batch = first_batch()
    compile_terms(
        terms,
        lambda: rehearse(terms, batch, config.seed, dtype),
        device,
        dtype,
        config.optim.accumulate,
        console,
    )


def wants_compile(setting: str, device: torch.device) -> bool:
    """Whether `setting` ("auto", "on", "off") means to compile on `device`."""
    return setting == "on" or (setting == "auto" and device.type == "cuda")


def compile_terms(
    terms: Terms,
    rehearse: Callable[[], dict[str, float]],
    device: torch.device,
    dtype: torch.dtype,
    accumulate: int,
    console: Console,
    **options: Any,
) -> bool:
    """Let `terms` run compiled if that works and its losses are those of the uncompiled model.

    Args:
        terms: changed in place.
        rehearse: runs `terms` on the first batch, forward and backward; gives losses and the gradient's norm
            by name and leaves no trace in the model.
        device, dtype: what the run computes on and in.
        accumulate: micro-batches of a step. With several there are no CUDA graphs: a replay would write over
            the gradients of the one before.
        console: told what happened.
        options: of `torch.compile`; by default inductor, with CUDA graphs on a GPU.

    Returns:
        Whether `terms` is compiled now.
    """
    want = rehearse()
    if not options:
        # Draws as the uncompiled model makes them, so that the two can be compared.
        graphs = device.type == "cuda" and accumulate == 1
        options = {"options": {"fallback_random": True, "triton.cudagraphs": graphs}}
    with console.status("compiling the step"):
        try:
            terms.run = torch.compile(terms.losses, **options)
            for _ in range(_REHEARSALS):
                reason = _differs(want, rehearse(), _TOLERANCE[dtype])
        except InputError:
            raise
        except Exception as error:  # the compiler, the driver and the C++ compiler raise what they like
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not reason:
        say(console, "the step is compiled")
        return True
    terms.run = terms.losses
    torch.compiler.reset()
    say(console, f"torch.compile is left out, the step runs without it: {reason}", style="yellow")
    return False


def _differs(want: dict[str, float], got: dict[str, float], tolerance: float) -> str:
    """What is not as it should be, as text; empty if all is well."""
    wrong = [
        f"{name} {got[name]:.6g} instead of {value:.6g}"
        for name, value in want.items()
        if not abs(got[name] - value) <= tolerance * abs(value)
    ]
    return ", ".join(wrong)
