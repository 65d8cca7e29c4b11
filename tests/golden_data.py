"""Golden files of the official implementation, and models filled with their weights."""

import json
from pathlib import Path

import numpy as np
import torch
from golden_weights import golden_tensor

from recon_fast.checkpoint import load_official
from recon_fast.models import ReCon, ReConConfig

FOLDER = Path(__file__).parent / "golden"


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Config and arrays of tests/golden/<name>.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        config = json.loads(str(file["config"]))
        return config, {key: torch.from_numpy(file[key]) for key in file.files if key != "config"}


def official_state(config: dict) -> dict[str, torch.Tensor]:
    """The official state dict that a golden file was recorded with."""
    return {
        name: torch.from_numpy(
            np.asarray(value, np.int64 if name.endswith("num_batches_tracked") else np.float32)
        )
        for name, shape in config["state_shapes"].items()
        for value in [golden_tensor(name, tuple(shape), config["weight_seed"])]
    }


def golden_config(config: dict) -> ReConConfig:
    return ReConConfig(
        dim=config["trans_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        decoder_depth=config["decoder_depth"],
        decoder_num_heads=config["num_heads"],
        num_group=config["num_group"],
        group_size=config["group_size"],
        mask_ratio=config["mask_ratio"],
        drop_path=0.0,
        chamfer={"cdl1": "l1", "cdl2": "l2"}[config["loss"]],
        image_dim=config["teacher_dim"],
        text_dim=config["teacher_dim"],
        single_modal=config["self_contrastive"],
        skip_near_origin=True,
    )


def downstream_config(config: dict) -> ReConConfig:
    """Architecture of a golden file of a downstream model."""
    return ReConConfig(
        dim=config["trans_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        decoder_num_heads=config["num_heads"],
        num_group=config["num_group"],
        group_size=config["group_size"],
        drop_path=0.0,
        image_dim=config.get("teacher_dim"),
        text_dim=config.get("teacher_dim"),
        skip_near_origin=True,
    )


def golden_model(config: dict) -> ReCon:
    model = ReCon(golden_config(config))
    report = load_official(official_state(config), model)
    assert not report.missing
    assert not report.unexpected
    return model
