"""What a person is told of the probes."""

import torch
from rich.console import Console
from rich.table import Table

from recon_fast.config import PretrainConfig
from recon_fast.console import say
from recon_fast.models import PretrainModel
from recon_fast.tasks.probe import ProbeData, ProbeResult, probe


def run_probe(
    model: PretrainModel,
    data: ProbeData,
    config: PretrainConfig,
    dtype: torch.dtype,
    console: Console,
    when: str,
) -> ProbeResult:
    """Probe and say how it went in a line."""
    with console.status(f"probing the encoder {when}"):
        result = probe(model, data, config.data.num_points, dtype)
    scores = {"linear SVM": result.svm, "zero-shot": result.zero_shot}
    said = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items() if value is not None)
    say(console, f"encoder {when}: {said or 'nothing to probe'}")
    return result


def show_probe(console: Console, data: ProbeData, before: ProbeResult | None, after: ProbeResult) -> None:
    """Accuracy at initialisation and now, side by side."""
    table = Table("accuracy, %", "initialisation", "now", "gain")

    def cell(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.1f}"

    for name, key in (("linear SVM", "svm"), ("zero-shot", "zero_shot")):
        start, end = getattr(before, key, None), getattr(after, key)
        if end is not None:
            gain = None if start is None else end - start
            table.add_row(name, cell(start), cell(end), cell(gain, "+"))
    say(console, f"held-out shapes of {data.name}" + (f" ({data.note})" if data.note else ""))
    console.print(table)
    count = f"{len(data.train)} shapes train the SVM, {len(data.test)} test"
    say(console, f"{count}; chance {after.chance:.1f} %")
