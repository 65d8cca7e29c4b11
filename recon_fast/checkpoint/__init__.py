"""Weights on disk: ours as safetensors, and interchange with the official ReCon checkpoints.

Nothing here unpickles objects: a checkpoint that holds anything but tensors and plain values is refused.
`recon_fast.checkpoint.restore` builds models from them.
"""

from recon_fast.checkpoint.files import (
    is_torchscript,
    load_weights,
    open_tensors,
    read_tensors,
    read_torch_file,
    save_weights,
    weights_metadata,
)
from recon_fast.checkpoint.names import export_official, official_name, official_names
from recon_fast.checkpoint.official import LoadReport, load_initial, load_official

__all__ = [
    "LoadReport",
    "export_official",
    "is_torchscript",
    "load_initial",
    "load_official",
    "load_weights",
    "official_name",
    "official_names",
    "open_tensors",
    "read_tensors",
    "read_torch_file",
    "save_weights",
    "weights_metadata",
]
