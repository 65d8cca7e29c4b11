"""A tiny checkpoint that predicts what its random text teacher says of the tiny set; that set as files."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tiny import CLASSES, TINY_MODEL, tiny_shapes

from recon_fast.checkpoint import weights_metadata
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.data.shapes import Shapes
from recon_fast.models import ReCon
from recon_fast.teachers import random_teacher_config
from recon_fast.teachers.store import compute_texts

TEXT_DIM, IMAGE_DIM = 256, 512  # of the random teachers
TEACHER = {
    "image": "resnet10t", "text": "tiny", "weights": "random", "image_sha256": None, "text_sha256": None,
    "text_pretrained": "openai", "image_size": 64, "seed": 0, "aligned": False,
}  # fmt: skip


def write_model(model, path: Path, teacher=None, conventions=None) -> Path:
    save_file(model.state_dict(), path, weights_metadata(model, teacher, conventions))
    return path


@lru_cache
def class_texts() -> np.ndarray:
    """Mean over the 60 prompts of the random text teacher [C, D]."""
    config = random_teacher_config(prompts=60)
    return compute_texts(CLASSES, config).astype(np.float32).mean(1)


def write_checkpoint(path: Path, shapes: Shapes | None = None, **teacher: object) -> Path:
    """A checkpoint whose text projection fits the class texts on the training split, by least squares."""
    shapes = shapes or tiny_shapes(96, features=False)
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, text_dim=TEXT_DIM, image_dim=IMAGE_DIM)).eval()
    rows = shapes.rows("trainval")
    with torch.no_grad():
        tokens = torch.cat([
            model.encode(unit_sphere(torch.tensor(shapes.cloud(i))[None])).global_tokens[:, -1] for i in rows
        ])  # fmt: skip
        target = torch.from_numpy(class_texts())
        if teacher.get("standardized"):  # as the captions, which are the class names, are
            target = (target - target.mean(0)) / target.std(0, correction=0).clamp(min=1e-6)
        inputs = torch.cat([tokens, torch.ones(len(rows), 1)], 1)
        solution = torch.linalg.lstsq(inputs, target[torch.from_numpy(shapes.labels[rows])]).solution
        model.text_proj.weight.copy_(solution[:-1].T)
        model.text_proj.bias.copy_(solution[-1])
    return write_model(model, path, {**TEACHER, **teacher}, {"up": "y", "points": 64})


def write_folder(root: Path, shapes: Shapes | None = None) -> Path:
    """The shapes as <root>/<split>/<class>/<key>.npy with captions."""
    shapes = shapes or tiny_shapes(24, features=False)
    for i, key in enumerate(shapes.keys):
        folder = root / ("test" if shapes.held_out[i] else "train") / CLASSES[shapes.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", shapes.cloud(i))
        (folder / f"{key}.txt").write_text(shapes.captions[i])
    return root
