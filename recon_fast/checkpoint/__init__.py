"""Weights on disk: ours as safetensors, and interchange with the official ReCon checkpoints.

Nothing here unpickles objects: of a checkpoint that holds more than tensors and plain values, these are kept.
`recon_fast.checkpoint.restore` builds models from them.
"""

from recon_fast.checkpoint.files import LoadReport, load_weights, save_weights, weights_metadata
from recon_fast.checkpoint.official import (
    export_official,
    load_initial,
    load_official,
    official_name,
    official_names,
)

__all__ = [
    "LoadReport",
    "export_official",
    "load_initial",
    "load_official",
    "load_weights",
    "official_name",
    "official_names",
    "save_weights",
    "weights_metadata",
]
