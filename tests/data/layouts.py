"""Writers of tiny data sets on disk, in every layout that can be read."""

import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

SYNSETS = {"02691156": "airplane,plane", "03001627": "chair", "09000001": "castle door"}

TETRAHEDRON = "4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def cloud(seed: int = 0, count: int = 64, columns: int = 3) -> np.ndarray:
    """Points [count, columns] float32."""
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


def write_npy(path: Path, points: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, points)
    return path


def write_picture(path: Path, seed: int = 0, mode: str = "RGB", size: int = 24) -> Path:
    """Noise, which no format compresses to nothing, so that half a file lacks half the picture."""
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_shapenet(
    root: Path, per_class: int = 4, points: int = 64, pictures: bool = True, captions: bool = True
) -> Path:
    """ShapeNet55 with three classes; the last shape of each is in the test list."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for s, synset in enumerate(SYNSETS):
        for i in range(per_class):
            key = f"{synset}-shape{i}"
            write_npy(root / "shapenet_pc" / f"{key}.npy", cloud(10 * s + i, points))
            if pictures:
                write_picture(root / "shapenet_img" / f"{key}.png", 10 * s + i)
            lists["test" if i == per_class - 1 else "train"].append(f"{key}.npy")
    (root / "ShapeNet-55").mkdir()
    for name, lines in lists.items():
        (root / "ShapeNet-55" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    if captions:
        rows = [{"catalogue": int(synset), "describe": text} for synset, text in SYNSETS.items()]
        (root / "shapenet55.json").write_text(json.dumps(rows))
    return root


def write_folder(root: Path, classes: tuple[str, ...] = ("ball", "box"), per_class: int = 4) -> Path:
    """Class subfolders with .npy clouds."""
    for c, name in enumerate(classes):
        for i in range(per_class):
            write_npy(root / name / f"{name}{i}.npy", cloud(10 * c + i))
    return root


def write_modelnet_hdf5(root: Path, counts: tuple[int, int] = (10, 4), points: int = 64) -> Path:
    """ply_data_train0.h5 and ply_data_test0.h5 with two classes."""
    root.mkdir(parents=True, exist_ok=True)
    for split, count in zip(("train", "test"), counts, strict=True):
        with h5py.File(root / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = np.stack([cloud(i, points) for i in range(count)])
            file["label"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    (root / "shape_names.txt").write_text("bed\nnight_stand\n")
    return root


def cut(path: Path, share: float = 0.5) -> Path:
    """Keep only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def poison(path: Path, value: float = np.nan, points: int = 3) -> Path:
    """Put NaN (or another value) into some points of an .npy cloud."""
    array = np.load(path)
    array[:points, 1] = value
    np.save(path, array)
    return path
