"""The method: tokenizer, ReCon-blocks, ReCon and its two-tower variant, and what is built on its encoder."""

from recon_fast.config import ReConConfig
from recon_fast.models.classifier import Classifier
from recon_fast.models.recon import Encoding, PretrainModel, PretrainOutput, ReCon
from recon_fast.models.segmentation import PartSegmenter
from recon_fast.models.two_tower import TwoTower

AnyModel = PretrainModel | Classifier | PartSegmenter  # each has its `config` and its `task`


def build_model(config: ReConConfig) -> PretrainModel:
    """The model that `config.arch` names, freshly initialised from torch's default generator."""
    return (TwoTower if config.arch == "twotower" else ReCon)(config)


__all__ = [
    "AnyModel",
    "Classifier",
    "Encoding",
    "PartSegmenter",
    "PretrainModel",
    "PretrainOutput",
    "ReCon",
    "ReConConfig",
    "TwoTower",
    "build_model",
]
