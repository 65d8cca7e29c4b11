"""A small labelled set in memory and settings that train on it in seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from recon_fast.config import DataConfig, OptimConfig, PretrainConfig, ReConConfig, SaveConfig
from recon_fast.data.shapes import Features, Shapes, stack_clouds

CLASSES = ["ball", "box", "stick"]


def tiny_shapes(count: int = 24, num_points: int = 96, seed: int = 0, features: bool = True) -> Shapes:
    """Balls, boxes and sticks with features that depend on the class; a quarter is held out."""
    rng = np.random.default_rng(seed)
    clouds, labels = [], np.arange(count) % 3
    for label in labels:
        cloud = rng.standard_normal((num_points + int(rng.integers(5)), 3))
        if label == 0:
            cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
        elif label == 1:
            cloud = cloud.clip(-0.5, 0.5)
        else:
            cloud *= [1, 0.1, 0.1]
        clouds.append(cloud)
    points, offsets = stack_clouds(clouds)
    by_class = rng.standard_normal((3, 8)).astype(np.float32)
    given = None
    if features:
        image = by_class[labels][:, None] + 0.1 * rng.standard_normal((count, 2, 8)).astype(np.float32)
        teacher = {"image": "made", "text": "made", "weights": "made", "aligned": False}
        given = Features(image, by_class[:, None], labels.astype(np.int64), by_class, teacher)
    return Shapes(
        name="tiny set",
        keys=[f"{CLASSES[label]}-{i}" for i, label in enumerate(labels)],
        points=points,
        offsets=offsets,
        held_out=np.arange(count) % 4 == 3,
        labels=labels.astype(np.int64),
        class_names=CLASSES,
        captions=[CLASSES[label] for label in labels],
        features=given,
    )


def tiny_parts(count: int = 24, seed: int = 0) -> Shapes:
    """Balls of two halves and boxes of three layers in clouds of 40 to 120 points; a quarter is held out."""
    rng = np.random.default_rng(seed)
    clouds, parts, labels = [], [], np.arange(count) % 2
    for label in labels:
        cloud = rng.standard_normal((int(rng.integers(40, 121)), 3))
        if label == 0:
            cloud /= np.linalg.norm(cloud, axis=1, keepdims=True)
            parts.append(cloud[:, 1] > 0)
        else:
            cloud = cloud.clip(-1, 1)
            parts.append(2 + np.digitize(cloud[:, 0], [-0.4, 0.4]))
        clouds.append(cloud)
    points, offsets = stack_clouds(clouds)
    return Shapes(
        name="tiny parts",
        keys=[f"shape-{i}" for i in range(count)],
        points=points,
        offsets=offsets,
        held_out=np.arange(count) // 2 % 4 == 3,
        labels=labels.astype(np.int64),
        class_names=["ball", "box"],
        parts=np.concatenate(parts).astype(np.uint8),
        class_parts=[[0, 1], [2, 3, 4]],
    )


class Lines(Console):
    """A console that keeps what it is told."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def print(self, *objects, **_):
        self.lines += [str(thing) for thing in objects]

    def has(self, *words):
        return any(all(word in line for word in words) for line in self.lines)


TINY_MODEL = ReConConfig(
    dim=24, depth=2, num_heads=2, decoder_depth=1, decoder_num_heads=2, num_group=8, group_size=8
)


def tiny_config(out: Path, **changes: object) -> PretrainConfig:
    """Three epochs of three steps on `tiny_shapes()`; nested settings are changed as in optim__epochs=1."""
    config = PretrainConfig(
        out=str(out),
        device="cpu",
        precision="fp32",
        model=TINY_MODEL,
        data=DataConfig(num_points=64),
        optim=OptimConfig(epochs=3, batch_size=6, warmup_epochs=1),
        save=SaveConfig(every=1, keep=20, log_every=1, tensorboard=False),
    )
    nested: dict[str, dict[str, object]] = {}
    for name, value in changes.items():
        group, _, key = name.partition("__")
        if key:
            nested.setdefault(group, {})[key] = value
        else:
            config = replace(config, **{group: value})
    for group, values in nested.items():
        config = replace(config, **{group: replace(getattr(config, group), **values)})
    return config
