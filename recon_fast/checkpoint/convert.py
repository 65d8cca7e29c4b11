"""Checkpoints from the official format into ours and back."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from recon_fast.checkpoint import export_official, save_weights, weights_metadata
from recon_fast.checkpoint.restore import WEIGHTS, Restored, restore
from recon_fast.config import ConvertConfig
from recon_fast.errors import InputError, first_line
from recon_fast.files import whole_file

REPORT = "conversion.json"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_OFFICIAL, _OWN = (".pth", ".pt"), ".safetensors"


def convert(source: str | Path, out: str | Path, config: ConvertConfig | None = None) -> tuple[Path, str]:
    """Convert a checkpoint. A decoder that it lacks is freshly initialised, and its keys count as missing.

    Args:
        source: what `restore` takes: an official checkpoint or one of ours.
        out: a .pth file, which the official code loads; a .safetensors file, which `recon_fast.load` takes;
            or a folder, for such a file and conversion.json, which says what became of every key.
        config: sizes that the source does not state, how to write, and whether to replace what is there.

    Returns:
        The file that was written, and a line on what it holds.

    Raises:
        InputError: as `restore`, or an output that exists or cannot be written.
    """
    config, out = config or ConvertConfig(), Path(out).expanduser()
    official = out.suffix.lower() in _OFFICIAL
    in_folder = not official and out.suffix.lower() != _OWN
    written = out / WEIGHTS if in_folder else out
    if written.exists() and not config.overwrite:
        raise InputError(f"out must not exist yet (or give --overwrite true), got {written}")
    if in_folder and out.is_file():
        raise InputError(f"out must be a folder or a file {', '.join((*_OFFICIAL, _OWN))}, got {out}")
    card = None if config.card is None else _read_card(Path(config.card).expanduser())
    restored = restore(
        source, num_heads=config.num_heads, num_group=config.num_group, group_size=config.group_size
    )
    decoder = getattr(restored.model, "reconstruction", None)
    if decoder is not None and decoder.group_size != restored.model.config.group_size:
        raise InputError(
            f"group_size must be {decoder.group_size}, that of the decoder in {restored.file}, "
            f"got {config.group_size}"
        )
    try:
        written.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(written) as aside:
            if official:
                torch.save(_official_contents(restored), aside)
            else:
                metadata = weights_metadata(restored.model, restored.teacher, restored.conventions)
                metadata |= {} if card is None else {"card": card}
                save_weights(restored.model, aside, metadata, _DTYPES[config.dtype])
        if in_folder:
            (out / REPORT).write_text(json.dumps(_keys(restored), indent=1), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise InputError(f"{written} cannot be written: {first_line(error)}") from error
    return written, _describe(restored)


def _read_card(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"card must be a text file, got {file}: {error}") from error


def _official_contents(restored: Restored) -> dict[str, Any]:
    """What the official code looks for; its segmentation has another key (a tensor is stored once)."""
    state = export_official(restored.model)
    if restored.model.task["kind"] == "segmenter":
        return {"base_model": state, "model_state_dict": state}
    return {"base_model": state}


def _keys(restored: Restored) -> dict[str, Any]:
    """The report of conversion.json."""
    report = restored.report
    return {
        "source": str(restored.file),
        "task": restored.model.task,
        "model": asdict(restored.model.config),
        "keys": None if report is None else asdict(report),
    }


def _describe(restored: Restored) -> str:
    config, task = restored.model.config, restored.model.task
    text = (
        f"{task['kind']} ({config.arch}, width {config.dim}, depth {config.depth}, {config.num_group} groups)"
    )
    return text if restored.report is None else f"{text}: {restored.report}"
