"""Teachers' features of a data set: looked up by content, computed where missing, kept for next time."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config.teacher import TeacherConfig
from recon_fast.data.shapes import Features, Pictures, Shapes
from recon_fast.errors import InputError
from recon_fast.teachers import augment
from recon_fast.teachers.prompts import prompts
from recon_fast.teachers.shards import KEY_BYTES, FeatureShards, Log, open_shards
from recon_fast.teachers.weights import OPEN_CLIP, Weights, image_weights, text_weights

Progress = Callable[[str, int, int], None]
_FLUSH_SECONDS = 10.0  # a killed run loses at most this much of its work

Rows = Iterable[tuple[Sequence[int], NDArray[np.floating]]]  # (positions, their features [n, A, D])


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

    Equal pictures and captions are computed once. An interrupted call continues where it stopped.

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
    log = log or (lambda line: None)
    progress = progress or (lambda what, done, total: None)
    root = Path(config.store).expanduser() if config.store else store
    # both are looked for before either computes, so that a missing file is known at once
    image_source = image_weights(config).require() if with_image else None
    text_source = text_weights(config).require() if with_text else None
    teacher = _describe(config, image_source, text_source)
    features = Features(image=None, text=None, caption_index=None, class_text=None, teacher=teacher)

    if image_source is not None and shapes.pictures is not None:
        shards = open_shards(root, _folder("image", _image_key(config, image_source)), log)
        features.image = _image_features(
            shapes.pictures, shapes.keys, config, image_source, device, shards, progress
        )
        teacher["image_dim"] = features.image.shape[-1]
    if text_source is not None and shapes.captions is not None:
        shards = open_shards(root, _folder("text", _text_key(config, text_source)), log)
        captions = list(dict.fromkeys(shapes.captions))
        texts = list(dict.fromkeys([*captions, *shapes.class_names]))
        table = _text_features(texts, config, text_source, device, shards, progress)  # [texts, P, D]
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

    Args:
        weights: the result of `text_weights(config)`; looked up if None.

    Raises:
        InputError: weights are absent or do not fit.
    """
    found = (weights or text_weights(config)).require()
    root = Path(config.store).expanduser() if config.store else store
    shards = open_shards(root, _folder("text", _text_key(config, found)), log or (lambda line: None))
    progress = progress or (lambda what, done, total: None)
    return _text_features(list(texts), config, found, device, shards, progress)


def _image_key(config: TeacherConfig, found: Weights) -> dict[str, Any]:
    clip = found.model != config.image
    return {
        "kind": "image",
        "model": config.image,
        "weights": found.fingerprint,
        "tag": config.text_pretrained if clip else None,
        "views": config.views,
        "image_size": config.image_size,
        "seed": config.seed,
        "augment": augment.VERSION,
        # a library may change how it draws random weights
        "library": version("open_clip_torch" if clip else "timm") if found.random else None,
    }


def _text_key(config: TeacherConfig, found: Weights) -> dict[str, Any]:
    return {
        "kind": "text",
        "model": config.text,
        "weights": found.fingerprint,
        "tag": config.text_pretrained,
        "prompts": config.prompts,
        "seed": config.seed if found.random else None,
        "library": version("open_clip_torch") if found.random else None,
    }


def _folder(kind: str, key: dict[str, Any]) -> str:
    model = "".join(c if c.isalnum() else "_" for c in key["model"])
    return f"{kind}-{model}-{blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()}"


def _describe(config: TeacherConfig, image: Weights | None, text: Weights | None) -> dict[str, Any]:
    def source(found: Weights | None) -> str | None:
        return None if found is None else "random" if found.random else str(found.file)

    def digest(found: Weights | None) -> str | None:
        return None if found is None or found.random else found.fingerprint[:16]

    same_model = image is not None and text is not None and config.image == f"{OPEN_CLIP}{config.text}"
    return {
        "image": config.image if image else None,
        "text": config.text if text else None,
        "weights": config.weights,
        "image_weights": source(image),
        "text_weights": source(text),
        "image_sha256": digest(image),
        "text_sha256": digest(text),
        "text_pretrained": config.text_pretrained,
        "views": config.views,
        "prompts": config.prompts,
        "image_size": config.image_size,
        "seed": config.seed,
        "image_dim": None,
        "text_dim": None,
        # one CLIP model with one set of trained weights: image and text features can be compared
        "aligned": same_model and digest(image) is not None and digest(image) == digest(text),
    }


def _image_features(
    pictures: Pictures,
    names: Sequence[str],
    config: TeacherConfig,
    found: Weights,
    device: str,
    shards: FeatureShards,
    progress: Progress,
) -> NDArray[np.float16]:
    """Features [S, V, D] of S pictures."""
    digests = [pictures.digest(i) for i in range(len(pictures))]
    first = {
        digest: i for i, digest in reversed(list(enumerate(digests)))
    }  # shape that shows a picture first
    keys = list(first)

    def rows(missing: NDArray[np.int64]) -> Iterator[tuple[Sequence[int], NDArray[np.floating]]]:
        from recon_fast.teachers.image import ImageTeacher

        model = ImageTeacher(config, device, found)
        shards.describe(_image_key(config, found))

        def views(position: int) -> NDArray[np.uint8]:  # [V, size, size, 3]
            shape = first[keys[position]]
            picture = pictures[shape]
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
                got = f"{picture.dtype} {list(picture.shape)}"
                raise InputError(f"picture of {names[shape]} must be uint8 [H, W, 3], got {got}")
            return np.stack([model.view(picture, keys[position], v) for v in range(config.views)])

        size = max(1, config.batch_size // config.views)
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            try:
                chunks = _chunks(missing, size)
                ahead = [[pool.submit(views, p) for p in chunk] for chunk in chunks[:2]]
                for i, chunk in enumerate(chunks):
                    if i + 2 < len(chunks):
                        ahead.append([pool.submit(views, p) for p in chunks[i + 2]])
                    batch = np.concatenate([future.result() for future in ahead.pop(0)])
                    yield chunk, model(batch).numpy().reshape(len(chunk), config.views, -1)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    table = _complete(keys, config.views, rows, shards, "pictures", progress)
    row = {key: i for i, key in enumerate(keys)}
    index = np.array([row[digest] for digest in digests], np.int64)
    return table if len(keys) == len(digests) and (index == np.arange(len(keys))).all() else table[index]


def _text_features(
    texts: list[str],
    config: TeacherConfig,
    found: Weights,
    device: str,
    shards: FeatureShards,
    progress: Progress,
) -> NDArray[np.float16]:
    """Features [U, P, D] of the prompts of U distinct texts."""

    def rows(missing: NDArray[np.int64]) -> Iterator[tuple[Sequence[int], NDArray[np.floating]]]:
        from recon_fast.teachers.text import TextTeacher

        model = TextTeacher(config, device, found)
        shards.describe(_text_key(config, found))
        for chunk in _chunks(missing, max(1, config.batch_size // config.prompts)):
            prompted = [prompt for i in chunk for prompt in prompts(texts[i], config.prompts)]
            yield chunk, model(prompted).numpy().reshape(len(chunk), config.prompts, -1)

    keys = [blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts]
    return _complete(keys, config.prompts, rows, shards, "captions", progress)


def _chunks(positions: NDArray[np.int64], size: int) -> list[list[int]]:
    return [positions[i : i + size].tolist() for i in range(0, len(positions), size)]


def _complete(
    keys: Sequence[bytes],
    per_key: int,
    rows: Callable[[NDArray[np.int64]], Rows],
    shards: FeatureShards,
    what: str,
    progress: Progress,
) -> NDArray[np.float16]:
    """Features [U, per_key, D] of U distinct keys: from the shards, and from `rows(missing positions)`."""
    table, filled = shards.read(keys, per_key)
    missing = np.flatnonzero(~filled)
    done = len(keys) - len(missing)
    progress(what, done, len(keys))
    pending: list[int] = []  # computed, not yet in a shard
    flushed = time.monotonic()

    def flush() -> None:
        if pending and table is not None:
            shards.append([keys[i] for i in pending], table[pending])
            pending.clear()

    try:
        for positions, computed in rows(missing) if len(missing) else ():
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
