"""Writers of tiny data sets on disk, in every layout that can be read."""

import json
import pickle
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


def write_table(path: Path, table: np.ndarray, separator: str = ",") -> Path:
    """Rows of numbers with six decimals, as ModelNet's and ShapeNetPart's text files have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(f"{value:.6f}" for value in row) + "\n" for row in table))
    return path


def write_modelnet(root: Path, per_class: int = 4, points: int = 64, classes: int = 40) -> Path:
    """ModelNet's text files with two classes; the last shape of each is in the test list."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for c, name in enumerate(("bed", "night_stand")):
        for i in range(per_class):
            key = f"{name}_{i + 1:04}"
            write_table(root / name / f"{key}.txt", cloud(10 * c + i, points, 6))
            lists["test" if i == per_class - 1 else "train"].append(key)
    (root / f"modelnet{classes}_shape_names.txt").write_text("bed\nnight_stand\n")
    for split, keys in lists.items():
        (root / f"modelnet{classes}_{split}.txt").write_text("\n".join(keys))
    return root


def write_modelnet_cache(root: Path, counts: tuple[int, int] = (6, 2), points: int = 64) -> Path:
    """Both pickles of ModelNet's cache, with two classes."""
    root.mkdir(parents=True, exist_ok=True)
    for split, count in zip(("train", "test"), counts, strict=True):
        clouds = [cloud(i, points, 6) for i in range(count)]
        labels = [np.array([i % 2], np.int32) for i in range(count)]
        with (root / f"modelnet40_{split}_8192pts_fps.dat").open("wb") as file:
            pickle.dump([clouds, labels], file)
    (root / "modelnet40_shape_names.txt").write_text("bed\nnight_stand\n")
    return root


def write_fold(path: Path, way: int = 3, shot: int = 2, tests: int = 4, points: int = 64) -> Path:
    """A few-shot fold of classes 7, 8, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        split: [(cloud(100 * c + i, points, 6), c, 7 + c) for c in range(way) for i in range(count)]
        for split, count in (("train", shot), ("test", tests))
    }
    path.write_bytes(pickle.dumps(content))
    return path


def write_scanobjectnn(root: Path, *files: str, counts: tuple[int, int] = (6, 3), points: int = 64) -> Path:
    """ScanObjectNN's files of a variant, such as "main_split/objectdataset.h5"; all three by default."""
    hardest = "main_split/objectdataset_augmentedrot_scale75.h5"
    for name in files or ("main_split/objectdataset.h5", "main_split_nobg/objectdataset.h5", hardest):
        folder, _, stem = name.partition("/")
        (root / folder).mkdir(parents=True, exist_ok=True)
        for split, count in zip(("training", "test"), counts, strict=True):
            with h5py.File(root / folder / f"{split}_{stem}", "w") as file:
                file["data"] = np.stack([cloud(len(name) + i, points) for i in range(count)])
                file["label"] = np.arange(count, dtype=np.int32) % 15
    return root


def write_shapenet_part(root: Path, points: int = 64) -> Path:
    """ShapeNetPart with four bags (parts 4, 5) and four mugs (36, 37): two of each to train, one for val and
    one for test.
    """
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for synset, first in (("02773838", 4), ("03797390", 36)):
        for i, split in enumerate(("train", "train", "val", "test")):
            part = first + np.arange(points)[:, None] % 2
            write_table(root / synset / f"shape{i}.txt", np.hstack([cloud(first + i, points, 6), part]), " ")
            lists[split].append(f"shape_data/{synset}/shape{i}")
    (root / "train_test_split").mkdir()
    for split, names in lists.items():
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(names))
    (root / "synsetoffset2category.txt").write_text("Bag\t02773838\nMug\t03797390\n")
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
