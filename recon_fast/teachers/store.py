"""Teachers' features of a data set: looked up by content, computed where missing, kept for next time."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config.teacher import TeacherConfig
from recon_fast.data.shapes import Features, Pictures, Shapes
from recon_fast.errors import InputError
from recon_fast.teachers.shards import KEY_BYTES, Log, open_shards
from recon_fast.teachers.weights import OPEN_CLIP, Weights, image_weights, text_weights

Progress = Callable[[str, int, int], None]
Batch = tuple[Sequence[int], NDArray[np.floating]]  # positions, and their features [n, A, D]
_FLUSH_SECONDS = 10.0  # a killed run loses at most this much of its work


def compute_features(
    shapes: Shapes,
    config: TeacherConfig,
    *,
    device: str = "cpu",
    store: Path | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Features | None:
    """Features of all pictures and captions; a teacher is built only if the store lacks some.

    Equal inputs are computed once. An interrupted call continues where it stopped.

    Args:
        shapes: S shapes with pictures, captions or both. Threads read the pictures.
        config: the teachers.
        device: where teachers run, as torch names it.
        store: folder beside the data, unless `config.store` names another; None keeps features in memory.
            If it cannot be written, what it has is used, and the user's cache folder takes what is new.
        progress: gets ("pictures" or "captions", done, total), once at the start and then per batch.
        log: gets one line for anything a person should know.

    Returns:
        Features in float16: image [S, V, D], text [U, P, D] of U distinct captions; None without any.

    Raises:
        InputError: weights are absent or do not fit, or a picture cannot be used.
    """
    with_image = config.image is not None and shapes.pictures is not None
    with_text = config.text is not None and shapes.captions is not None
    if not (with_image or with_text):
        return None
    # Both are looked for before either computes, so that a missing file is known at once.
    image_source = image_weights(config).require() if with_image else None
    text_source = text_weights(config).require() if with_text else None
    teacher = _describe(config, image_source, text_source)
    features = Features(image=None, text=None, caption_index=None, class_text=None, teacher=teacher)
    teachers = _Teachers(config, device, store, progress, log)
    if image_source is not None and shapes.pictures is not None:
        features.image = teachers.image_features(shapes.pictures, shapes.keys, image_source)
        teacher["image_dim"] = features.image.shape[-1]
    if text_source is not None and shapes.captions is not None:
        captions = list(dict.fromkeys(shapes.captions))
        texts = list(dict.fromkeys([*captions, *shapes.class_names]))
        table = teachers.text_features(texts, text_source)  # [texts, P, D]
        row = {text: i for i, text in enumerate(texts)}
        features.text = table[: len(captions)]
        features.caption_index = np.array([row[caption] for caption in shapes.captions], np.int64)
        if shapes.class_names:
            classes = table[[row[name] for name in shapes.class_names]]
            features.class_text = classes.astype(np.float32).mean(1).astype(np.float16)
        teacher["text_dim"] = table.shape[-1]
    return features


def compute_texts(
    texts: Sequence[str],
    config: TeacherConfig,
    weights: Weights | None = None,
    *,
    device: str = "cpu",
    store: Path | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> NDArray[np.float16]:
    """Features [T, P, D] of the P prompts of T distinct texts; arguments as of `compute_features`.

    `weights` are the result of `text_weights(config)`, looked up if None. Raises InputError where they are
    absent or do not fit.
    """
    found = (weights or text_weights(config)).require()
    return _Teachers(config, device, store, progress, log).text_features(list(texts), found)


def _key(kind: str, config: TeacherConfig, weights: Weights) -> dict[str, Any]:
    """Everything that features of the image or text teacher depend on beside their input."""
    clip = kind == "text" or weights.model != config.image
    key = {
        "kind": kind,
        "model": weights.model if kind == "text" else config.image,
        "weights": weights.fingerprint,
        "tag": config.text_pretrained if clip else None,
        # A library may change how it initialises random weights.
        "library": version("open_clip_torch" if clip else "timm") if weights.random else None,
    }
    if kind == "text":
        return key | {"prompts": config.prompts, "seed": config.seed if weights.random else None}
    views = {"views": config.views, "image_size": config.image_size, "seed": config.seed}
    return key | views | {"augment": 2}  # the number of how `augment.view` makes views


def _describe(config: TeacherConfig, image: Weights | None, text: Weights | None) -> dict[str, Any]:
    """What features, and models trained on them, state of their teachers."""
    settings = ("weights", "text_pretrained", "views", "prompts", "image_size", "seed")
    teacher: dict[str, Any] = {name: getattr(config, name) for name in settings}
    for kind, found in (("image", image), ("text", text)):
        file = found.file if found else None
        teacher[kind] = getattr(config, kind) if found else None
        teacher[f"{kind}_weights"] = "random" if found and found.random else str(file) if file else None
        teacher[f"{kind}_sha256"] = found.fingerprint[:16] if found and file else None
        teacher[f"{kind}_dim"] = None
    # One CLIP model with one set of trained weights: image and text features can be compared.
    same_weights = teacher["image_sha256"] is not None and teacher["image_sha256"] == teacher["text_sha256"]
    teacher["aligned"] = same_weights and config.image == f"{OPEN_CLIP}{config.text}"
    return teacher


@dataclass
class _Teachers:
    """Features by teachers, looked up or computed; the settings are those of `compute_features`."""

    config: TeacherConfig
    device: str
    store: Path | None
    progress: Progress | None
    log: Log | None

    def image_features(
        self, pictures: Pictures, names: Sequence[str], weights: Weights
    ) -> NDArray[np.float16]:
        """Features [S, V, D] of the views of S pictures; errors call pictures by `names`."""
        config = self.config
        digests = [pictures.digest(i) for i in range(len(pictures))]
        shape_of = {digest: i for i, digest in reversed(list(enumerate(digests)))}  # the first that shows it
        keys = list(shape_of)

        def compute(missing: list[int]) -> Iterator[Batch]:
            from recon_fast.teachers.image import ImageTeacher

            model = ImageTeacher(config, self.device, weights)

            def views(position: int) -> NDArray[np.uint8]:  # [V, size, size, 3]
                shape = shape_of[keys[position]]
                picture = pictures[shape]
                if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
                    got = f"{picture.dtype} {list(picture.shape)}"
                    raise InputError(f"picture of {names[shape]} must be uint8 [H, W, 3], got {got}")
                return np.stack([model.view(picture, keys[position], v) for v in range(config.views)])

            batches = _batches(missing, max(1, config.batch_size // config.views))
            with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
                try:
                    ahead = [[pool.submit(views, p) for p in batch] for batch in batches[:2]]
                    for i, batch in enumerate(batches):
                        if i + 2 < len(batches):
                            ahead.append([pool.submit(views, p) for p in batches[i + 2]])
                        stacked = np.concatenate([future.result() for future in ahead.pop(0)])
                        yield batch, model(stacked).numpy().reshape(len(batch), config.views, -1)
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)

        table = self._complete(keys, config.views, _key("image", config, weights), compute, "pictures")
        row = {digest: i for i, digest in enumerate(keys)}
        return table[np.array([row[digest] for digest in digests], np.int64)]

    def text_features(self, texts: list[str], weights: Weights) -> NDArray[np.float16]:
        """Features [U, P, D] of the prompts of U distinct texts."""
        config = self.config

        def compute(missing: list[int]) -> Iterator[Batch]:
            from recon_fast.teachers.text import TextTeacher

            model = TextTeacher(config, self.device, weights)
            for batch in _batches(missing, max(1, config.batch_size // config.prompts)):
                prompted = [prompt for i in batch for prompt in prompts(texts[i], config.prompts)]
                yield batch, model(prompted).numpy().reshape(len(batch), config.prompts, -1)

        keys = [blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts]
        return self._complete(keys, config.prompts, _key("text", config, weights), compute, "captions")

    def _complete(
        self,
        keys: Sequence[bytes],
        per_key: int,
        teacher: dict[str, Any],
        compute: Callable[[list[int]], Iterable[Batch]],
        what: str,
    ) -> NDArray[np.float16]:
        """Features [U, per_key, D] of U distinct keys: what is stored, and `compute(missing positions)`."""
        progress = self.progress or (lambda what, done, total: None)
        root = Path(self.config.store).expanduser() if self.config.store else self.store
        shards = open_shards(root, teacher, self.log or (lambda line: None))
        table, filled = shards.read(keys, per_key)
        missing = np.flatnonzero(~filled).tolist()
        done = len(keys) - len(missing)
        progress(what, done, len(keys))
        pending: list[int] = []  # computed, not yet in a shard
        flushed = time.monotonic()

        def flush() -> None:
            if pending and table is not None:
                shards.append([keys[i] for i in pending], table[pending])
                pending.clear()

        try:
            for positions, computed in compute(missing) if missing else ():
                kept = computed.astype(np.float16)
                if not np.isfinite(kept).all():
                    raise InputError(
                        f"features of {what} must be finite in float16: the teacher's weights cannot be used"
                    )
                if table is None:
                    table = np.zeros((len(keys), *kept.shape[1:]), np.float16)
                table[list(positions)] = kept
                pending.extend(positions)
                done += len(positions)
                if time.monotonic() - flushed > _FLUSH_SECONDS:
                    flush()
                    flushed = time.monotonic()
                progress(what, done, len(keys))
        finally:
            flush()
        return table if table is not None else np.zeros((0, per_key, 0), np.float16)


def _batches(positions: list[int], size: int) -> list[list[int]]:
    """The positions in pieces of `size`."""
    return [positions[i : i + size] for i in range(0, len(positions), size)]


_KINDS = (
    "model", "image", "3D model", "rendering model", "point cloud", "point cloud model", "3D rendering model",
    "rendering image", "3D rendering image",
)  # fmt: skip
PREFIXES = ("", "A ", *(f"A {kind} of {article}" for kind in _KINDS for article in ("", "a ")))
SUFFIXES = (".", " with white background.", " with black context.")
COUNT = len(PREFIXES) * len(SUFFIXES)  # 60
_STRIDE = 37  # coprime with 60, 1 modulo 3: the first picks take the suffixes in turn and prefixes far apart


def prompts(caption: str, count: int = COUNT) -> list[str]:
    """`count` of ReCon's 60 prompts of a caption, 20 prefixes and 3 suffixes around it; always the same
    ones, 1 is the caption with a full stop.
    """
    if not 1 <= count <= COUNT:
        raise ValueError(f"count must be from 1 to {COUNT}, got {count}")
    chosen = sorted(i * _STRIDE % COUNT for i in range(count))
    return [PREFIXES[i // len(SUFFIXES)] + caption + SUFFIXES[i % len(SUFFIXES)] for i in chosen]
