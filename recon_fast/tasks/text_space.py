"""Texts and pictures as the teachers of a checkpoint see them, to be compared with shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.frozen import QueryTeacherConfig
from recon_fast.config.teacher import TeacherConfig
from recon_fast.console import ProgressBars, say, warn
from recon_fast.data.batches.transforms import Standardizer
from recon_fast.data.readers.pictures import decode_picture
from recon_fast.data.shapes import read_bytes
from recon_fast.errors import InputError
from recon_fast.tasks.embed import PointEncoder
from recon_fast.teachers.store import compute_texts
from recon_fast.teachers.weights import OPEN_CLIP, Weights, image_weights, text_weights

_TEXT, _PRETRAINED = "ViT-B-32", "openai"


def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of x [S, D] with length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def is_standardized(encoder: PointEncoder) -> bool:
    """Whether the checkpoint predicts features of zero mean, as with random teachers (`--standardize`).

    What its predictions have of a mean is error then, and is taken away before they are compared.
    """
    return bool((encoder.teacher or {}).get("standardized"))


def query_teacher(config: QueryTeacherConfig, encoder: PointEncoder) -> TeacherConfig:
    """The checkpoint's own teachers; what `config` states must agree with them.

    Raises:
        InputError: a setting names another teacher than the checkpoint's.
    """
    known = encoder.teacher or {}

    def choose(name: str, default: Any) -> Any:
        given, trained = getattr(config, name), known.get(name)
        if given is not None and trained is not None and given != trained:
            raise InputError(
                f"teacher.{name} must be what {encoder.file} was trained with, {trained}, got {given}: leave "
                f"--teacher.{name} out, or take a checkpoint that was trained with {given}"
            )
        return given if given is not None else trained if trained is not None else default

    text, weights = choose("text", _TEXT), choose("weights", "local")
    if weights not in ("local", "random"):
        raise InputError(f"{encoder.file} was trained with features of unknown origin ({weights})")

    def file(name: str) -> str | None:
        trained = known.get(name)
        there = weights == "local" and trained is not None and Path(trained).is_file()
        return getattr(config, name) or (trained if there else None)

    return TeacherConfig(
        text=text,
        image=choose("image", f"{OPEN_CLIP}{text}" if encoder.aligned else TeacherConfig.image),
        weights=weights,
        text_weights=file("text_weights"),
        image_weights=file("image_weights"),
        text_pretrained=choose("text_pretrained", _PRETRAINED),
        prompts=config.prompts,
        batch_size=config.batch_size,
        image_size=known.get("image_size"),
        seed=choose("seed", 0),
        store=config.store,
    )


def _same_weights(found: Weights, kind: str, encoder: PointEncoder, console: Console) -> Weights:
    """The weights, if they are those that the checkpoint was trained with, or nobody knows; random ones are
    said.
    """
    found = found.require()
    trained = (encoder.teacher or {}).get(f"{kind}_sha256")
    if trained is not None and not found.random and found.fingerprint[:16] != trained:
        raise InputError(
            f"{found.file} is not the {kind} teacher that {encoder.file} was trained with: its SHA-256 must "
            f"begin with {trained}, got {found.fingerprint[:16]}; name the right file with "
            f"--teacher.{kind}_weights"
        )
    if found.random:
        text = "the teachers have random weights: they tell only what was learned by heart, real ones know"
        warn(console, text)
    return found


def _check_width(got: int, wanted: int | None, kind: str, teacher: str | None, encoder: PointEncoder) -> None:
    """Raise InputError unless a teacher's features are as wide as those that the checkpoint predicts."""
    if got != wanted:
        raise InputError(
            f"the {kind} teacher must have features of {wanted} numbers as {encoder.file} predicts, got "
            f"{got} of {teacher}: name the teacher it was trained with, --teacher.{kind}"
        )


def text_features(
    texts: Sequence[str],
    config: TeacherConfig,
    encoder: PointEncoder,
    console: Console,
    *,
    store: Path | None = None,
    among: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Mean features [T, D] of the prompts of T texts, in the space that the checkpoint predicts.

    A checkpoint of standardized features gets them standardized, by the statistics of the texts and of those
    in `among`, such as all captions of a set; of a single text they cannot be.

    Args:
        texts: names of classes, captions, or a query.
        config: from `query_teacher`.
        encoder: the checkpoint.
        console: where lines go.
        store: folder for features of texts; None keeps nothing.
        among: other texts that give the statistics.

    Raises:
        InputError: weights are absent or another teacher's, or of another width than the text projection.
    """
    found = _same_weights(text_weights(config), "text", encoder, console)
    distinct = list(dict.fromkeys([*texts, *(among if is_standardized(encoder) else ())]))
    with ProgressBars(console) as bars:
        table = compute_texts(
            distinct,
            config,
            found,
            device=str(encoder.device),
            store=store,
            progress=bars,
            log=lambda text: say(console, text),
        )
    _check_width(table.shape[-1], encoder.model.config.text_dim, "text", config.text, encoder)
    row = {text: i for i, text in enumerate(distinct)}
    mean = table.astype(np.float32).mean(1)[[row[text] for text in texts]]
    if not is_standardized(encoder):
        return mean
    reference = [row[text] for text in dict.fromkeys(among or texts)]
    if len(reference) < 2:
        warn(console, "one text alone cannot be standardized as in training: expect little")
        return mean
    return Standardizer(table[reference]).mean_view(mean)


def picture_feature(
    path: Path, config: TeacherConfig, encoder: PointEncoder, console: Console
) -> NDArray[np.float32]:
    """The image teacher's feature [D] of a picture's plain view.

    Raises:
        InputError: no such picture; weights are absent or another teacher's, or of another width than the
            image projection.
    """
    from recon_fast.teachers.image import ImageTeacher

    picture = decode_picture(read_bytes(path), path)
    found = _same_weights(image_weights(config), "image", encoder, console)
    if is_standardized(encoder):
        warn(console, "one picture alone cannot be standardized as in training: expect little")
    teacher = ImageTeacher(config, encoder.device, found)
    feature = teacher(np.stack([teacher.view(picture, b"", 0)]))[0].numpy()
    _check_width(len(feature), encoder.model.config.image_dim, "image", config.image, encoder)
    return feature
