"""Features of clouds from any checkpoint: check, normalise, sample, encode in batches."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from recon_fast.checkpoint.restore import Restored, restore, untrained_architecture, weights_name
from recon_fast.config.frozen import EmbedConfig, FeatureKind, RetrieveConfig, SvmConfig, ZeroShotConfig
from recon_fast.config.model import SHIPPED, UNTRAINED
from recon_fast.console import ProgressBars, warn
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.data.conventions import check_conventions
from recon_fast.data.readers.clouds import looks_transposed
from recon_fast.data.shapes import Shapes
from recon_fast.device import autocast, resolve_device, resolve_precision
from recon_fast.errors import InputError
from recon_fast.kernels import farthest_point_sample
from recon_fast.models import Encoding, PretrainModel, build_model
from recon_fast.models.classifier import classification_feature
from recon_fast.models.tokenizer import take_groups
from recon_fast.training.probe import RATIO, svm_feature, zero_shot_feature

KINDS: tuple[FeatureKind, ...] = get_args(FeatureKind)
Cloud = NDArray | Tensor
# Points of a cloud per group, as in all official protocols: 1024 and 64, 2048 and 128, 8192 and 512.
_POINTS_PER_GROUP = 16
_BATCH = {"cpu": 16, "cuda": 256}  # on a CPU 4 to 32 are equally fast, within a tenth


class PointEncoder:
    """A checkpoint in evaluation mode, which turns clouds into features.

    Attributes:
        model: `ReCon`, `TwoTower`, `Classifier` or `PartSegmenter`, on `device`.
        teacher: what the checkpoint says of its frozen teachers; None if nothing.
        report: what an official checkpoint held; None for one of ours.
        notes: what of the file was passed over, in lines for people.
        file: where the weights lie; None for weights at random.
        conventions: of the clouds it was trained on, see `training_conventions`; {} if unknown.
        device: where it runs.
        dtype: torch.bfloat16 or torch.float32, of the matrix products.
    """

    def __init__(self, restored: Restored, device: torch.device, dtype: torch.dtype) -> None:
        self.model = restored.model.to(device).eval()
        self.teacher, self.report, self.notes = restored.teacher, restored.report, restored.notes
        self.file, self.conventions = restored.file, restored.conventions
        self.device, self.dtype = device, dtype

    @property
    def aligned(self) -> bool:
        """Whether its image and text teachers share a space; where nobody says, whether it can be."""
        config = self.model.config
        return bool((self.teacher or {}).get("aligned", config.image_dim == config.text_dim))

    @property
    def least_points(self) -> int:
        """Points that a cloud must have."""
        return max(self.model.config.num_group, self.model.config.group_size)

    @property
    def usual_points(self) -> int:
        """Points that larger clouds are reduced to, unless told otherwise."""
        return max(_POINTS_PER_GROUP * self.model.config.num_group, self.model.config.group_size)

    @property
    def usual_batch(self) -> int:
        """Clouds that are encoded at once, unless told otherwise."""
        return _BATCH.get(self.device.type, _BATCH["cuda"])

    def embed(
        self,
        points: Cloud | Sequence[Cloud],
        kind: FeatureKind = "svm",
        *,
        batch_size: int | None = None,
        num_points: int | None = None,
        normalize: bool = True,
        ratio: float = RATIO,
    ) -> Any:
        """Features of clouds; the same clouds always give the same features.

        Args:
            points: [B, N, 3], one cloud [N, 3], or a list of clouds [N_i, 3] of any sizes; numpy or torch, of
                any real number type.
            kind: "svm", [max of the global tokens, max + mean of the local tokens], 2C: the official feature
                for linear classifiers; "global", the global tokens in a row, 3C (cls, img, text);
                "classification", those and the max over the local tokens, 4C; "zeroshot", what is compared
                with text features, ratio text + img where both teachers share a space, else text alone;
                "zeroshot_text" and "zeroshot_image", one projection alone.
            batch_size: clouds encoded at once; None takes 16 on a CPU, 256 on a GPU.
            num_points: larger clouds are reduced to so many points, by farthest-point sampling from their
                first point; smaller ones are taken as they are. None takes 16 per group, as the official
                protocols: 1024 for 64 groups.
            normalize: centre each cloud and scale it to the unit sphere, as in training; False takes the
                coordinates as they are.
            ratio: weight of the text projection in "zeroshot".

        Returns:
            float32 [B, D], or [D] for one cloud; numpy for numpy, torch on the given device for torch.

        Raises:
            InputError: clouds of another shape, not finite, or with fewer points than groups or a group has;
                a kind that the model has not.
        """
        head = self.head(kind, ratio)
        clouds, place = _clouds(points)
        num_points = _count("num_points", num_points, self.usual_points)
        batch_size = _count("batch_size", batch_size, self.usual_batch)
        if num_points < self.least_points:
            text = f"num_points must be at least {self.least_points} for this model"
            raise InputError(f"{text}, got {num_points}")
        for i, cloud in enumerate(clouds):
            self._check(cloud, place.format(i))
        sizes = [min(len(cloud), num_points) for cloud in clouds]
        order = sorted(range(len(clouds)), key=lambda i: sizes[i])
        features = []
        with torch.inference_mode(), autocast(self.device, self.dtype):
            for _, same in groupby(order, key=lambda i: sizes[i]):
                while rows := list(islice(same, batch_size)):
                    batch = self._batch([clouds[i] for i in rows], num_points, normalize)
                    features.append(head(self.model.encode(batch)).float().cpu())
        out = torch.cat(features)[torch.tensor(order).argsort()]  # outside: an ordinary tensor
        if isinstance(points, np.ndarray | Tensor) and points.ndim == 2:
            out = out[0]
        first = clouds[0]
        return out.to(first.device) if isinstance(first, Tensor) else out.numpy()

    def sampled(self, cloud: Cloud, name: str = "points") -> Tensor:
        """A cloud [N, 3] as training sees it: unit sphere, farthest-point sample of 16 points a group.

        Returns:
            float32 [1, min(N, 16 G), 3], on the device.

        Raises:
            InputError: as `embed`; `name` is what messages call the cloud.
        """
        self._check(cloud, name)
        return self._batch([cloud], self.usual_points, True)

    def head(self, kind: str, ratio: float = RATIO) -> Callable[[Encoding], Tensor]:
        """From an encoding to features [B, D]. Raises InputError for a kind that the model has not."""
        model = self.model
        if kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if kind == "svm":
            return svm_feature
        if kind == "global":
            return lambda encoding: encoding.global_tokens.flatten(1)
        if kind == "classification":
            return classification_feature
        wanted = "an image" if kind == "zeroshot_image" else "a text"
        projection = None
        if isinstance(model, PretrainModel):
            projection = model.img_proj if kind == "zeroshot_image" else model.text_proj
        if not isinstance(model, PretrainModel) or projection is None:
            what = "one without" if isinstance(model, PretrainModel) else f"a {model.task['kind']}"
            raise InputError(
                f"kind {kind!r} needs a pretraining checkpoint with {wanted} projection, got {what}"
            )
        if kind == "zeroshot_image":
            return lambda encoding: projection(encoding.global_tokens[:, -2])
        aligned = self.aligned and kind == "zeroshot"
        return lambda encoding: cast(Tensor, zero_shot_feature(model, encoding, aligned, ratio))

    def _check(self, cloud: Cloud, name: str) -> None:
        """Raise InputError unless a cloud can be encoded; `name` is what messages call it."""
        if cloud.ndim != 2 or cloud.shape[1] != 3:
            hint = ""
            if cloud.ndim == 2 and looks_transposed(*cloud.shape):
                hint = ": it looks transposed"
            elif cloud.ndim == 2 and cloud.shape[1] > 3:
                hint = "; its first three columns are [:, :3]"
            raise InputError(f"{name} must be [N, 3], got {tuple(cloud.shape)}{hint}")
        least = self.least_points
        if len(cloud) < least:
            raise InputError(f"{name} must have at least {least} points for this model, got {len(cloud)}")
        if isinstance(cloud, Tensor):
            real = cloud.dtype != torch.bool and not cloud.is_complex()
        else:
            real = cloud.dtype.kind in "fiu"
        if not real:
            raise InputError(f"{name} must be real numbers, got {cloud.dtype}")
        values = _tensor(cloud)
        finite = values.isfinite().all(1)
        if not finite.all():
            bad = int((~finite).sum())
            raise InputError(f"{name} must be finite, got NaN or inf in {bad} of {len(cloud)} points")
        if not values.float().isfinite().all():
            largest = float(values.abs().max())
            raise InputError(f"{name} must fit into float32, got coordinates up to {largest:.3g}")

    def _batch(self, clouds: Sequence[Cloud], num_points: int, normalize: bool) -> Tensor:
        """The clouds, normalised and reduced: [B, N, 3] float32 on the device."""
        ready: list[Tensor] = [torch.empty(0)] * len(clouds)
        for size in {len(cloud) for cloud in clouds}:
            rows = [i for i, cloud in enumerate(clouds) if len(cloud) == size]
            same = torch.stack([_tensor(clouds[i]).to(self.device) for i in rows])
            same = (unit_sphere(same) if normalize else same).float()
            if size > num_points:
                skip = self.model.config.skip_near_origin
                idx = farthest_point_sample(same, num_points, skip_near_origin=skip)
                same = take_groups(same, idx)
            for i, cloud in zip(rows, same, strict=True):
                ready[i] = cloud
        return torch.stack(ready)


def _clouds(points: Any) -> tuple[Sequence[Cloud], str]:
    """The single clouds, and how a cloud is called in messages, to be formatted with its number."""
    if isinstance(points, np.ndarray | Tensor):
        if points.ndim == 2:
            return [points], "points"
        if points.ndim != 3:
            raise InputError(f"points must be [B, N, 3] or [N, 3], got {tuple(points.shape)}")
    elif not isinstance(points, list | tuple) or not all(isinstance(c, np.ndarray | Tensor) for c in points):
        raise InputError(f"points must be an array, a tensor or a list of those, got {type(points).__name__}")
    if not len(points):
        raise InputError("points must hold at least one cloud, got none")
    return list(points), "points[{}]"


def _tensor(cloud: Cloud) -> Tensor:
    """A cloud in float64, so that coordinates far from the origin survive its centring."""
    return cloud.detach().double() if isinstance(cloud, Tensor) else torch.from_numpy(cloud.astype(float))


def _count(name: str, value: int | None, default: int) -> int:
    if value is not None and value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
    return default if value is None else value


def load(
    path: str | Path = SHIPPED,
    device: str | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    *,
    num_heads: int | None = None,
    num_group: int | None = None,
    group_size: int | None = None,
) -> PointEncoder:
    """A checkpoint of any kind, ready to embed clouds.

    Args:
        path: "procedural", the encoder that comes with the package; or a run's folder, a checkpoint's folder,
            a model.safetensors, or an official checkpoint of pretraining, classification, few-shot learning
            or segmentation.
        device: where it runs; None takes the GPU if there is one.
        precision: of the matrix products; "auto" takes bf16 where the device multiplies it fast.
        num_heads: attention heads, of official checkpoints of unusual width.
        num_group: groups of a cloud, where an official checkpoint was trained with an unusual number (128 for
            ScanObjectNN, 512 for ModelNet40 with 8192 points).
        group_size: points of a group, likewise.

    Raises:
        InputError: a checkpoint that cannot be read or is of no model of this package, an unknown device.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"precision must be auto, fp32 or bf16, got {precision!r}")
    sizes = {"num_heads": num_heads, "num_group": num_group, "group_size": group_size}
    encoder = open_checkpoint(path, device or "auto", precision, **sizes)
    for note in encoder.notes:
        warnings.warn(note, stacklevel=2)
    return encoder


def open_checkpoint(
    path: str | Path, device: str, precision: Literal["auto", "fp32", "bf16"], **sizes: int | None
) -> PointEncoder:
    """As `load`, which warns of what was passed over; here the caller says the encoder's `notes`."""
    where = resolve_device(device)
    return PointEncoder(restore(path, **sizes), where, resolve_precision(precision, where))


_CHUNK = 4  # batches that are handed to the encoder at once, which sorts their clouds by size
EncodingConfig = SvmConfig | ZeroShotConfig | EmbedConfig | RetrieveConfig


def open_encoder(checkpoint: str | None, config: EncodingConfig, console: Console) -> PointEncoder:
    """The encoder of a checkpoint, or an untrained one, which is said.

    Raises:
        InputError: as `recon_fast.tasks.embed.load`.
    """
    given = {name: getattr(config.model, name) for name in ("num_heads", "num_group", "group_size")}
    if checkpoint not in UNTRAINED:
        encoder = open_checkpoint(checkpoint, config.device, config.precision, **given)
        warn(console, *encoder.notes)
        return encoder
    warn(console, "the encoder is untrained: its numbers are what training has to beat")
    architecture = untrained_architecture(config.model.size)
    architecture = replace(architecture, **{name: value for name, value in given.items() if value})
    device = resolve_device(config.device)
    torch.manual_seed(config.seed if isinstance(config, SvmConfig) else 0)
    restored = Restored(build_model(architecture), None, None, None, {})
    return PointEncoder(restored, device, resolve_precision(config.precision, device))


def embed_in_turn(
    encoder: PointEncoder,
    clouds: Iterable[NDArray],
    total: int,
    config: EncodingConfig,
    console: Console,
    kind: FeatureKind = "svm",
    num_points: int | None = None,
    ratio: float = RATIO,
) -> Iterator[NDArray[np.float32]]:
    """Features of `total` clouds [N_i, 3] in order, in blocks [n, D], with a bar; a few batches are held at a
    time. `config` says how they are encoded; `num_points`, where given, overrides it.

    Raises:
        InputError: as `PointEncoder.embed`, or an encoder whose features are not finite.
    """
    clouds, size, done = iter(clouds), _CHUNK * (config.batch_size or encoder.usual_batch), 0
    points = num_points or config.data.num_points
    with ProgressBars(console) as bars:
        bars("embedding", done, total)
        while block := list(islice(clouds, size)):
            features = encoder.embed(
                block, kind, batch_size=config.batch_size, num_points=points, ratio=ratio
            )
            if not np.isfinite(features).all():
                raise InputError(f"the encoder must give finite features, got NaN or inf: {encoder.file}")
            done += len(block)
            bars("embedding", done, total)
            yield features


def warn_of_conventions(shapes: Shapes, encoder: PointEncoder, console: Console) -> None:
    """Say what about `shapes` is not as the encoder knows it."""
    if encoder.conventions:
        warn(console, *check_conventions(shapes, encoder.conventions))


def describe_encoder(encoder: PointEncoder) -> dict[str, Any]:
    """Where the weights lie and their sha256, None for weights at random; architecture; JSON-able."""
    config = encoder.model.config
    digest = None
    if encoder.file is not None:
        with encoder.file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "checkpoint": None if encoder.file is None else weights_name(encoder.file),
        "checkpoint_sha256": digest,
        "width": config.dim,
        "groups": config.num_group,
        "precision": str(encoder.dtype)[6:],
    }
