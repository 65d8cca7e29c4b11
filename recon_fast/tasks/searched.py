"""A set that is searched: features of its shapes, its clouds, and the checkpoint that made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.frozen import FeatureKind, ReadingConfig, RetrieveConfig
from recon_fast.errors import InputError
from recon_fast.tasks.cloud_sets import CloudSet, open_clouds
from recon_fast.tasks.embed import PointEncoder, describe_encoder, open_encoder
from recon_fast.tasks.embed_files import embed_set
from recon_fast.tasks.feature_file import FeatureSet, is_feature_file, read_features
from recon_fast.tasks.text_space import query_teacher, text_features
from recon_fast.tasks.zeroshot import beside

QueryKind = Literal["key", "shape", "picture", "text"]
# Which features a query is compared with, the first where the set is yet to be embedded.
COMPARABLE: dict[QueryKind, tuple[FeatureKind, ...]] = {
    "text": ("zeroshot", "zeroshot_text"),
    "picture": ("zeroshot_image", "zeroshot"),
}


def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of x [S, D] with length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


class Searched:
    """The set that is searched; its clouds and the encoder are opened when somebody asks.

    Args:
        data: a file that `recon-fast embed` wrote, or anything that it embeds.
        config: settings.
        console: where lines and bars go.
    """

    def __init__(self, data: str | Path, config: RetrieveConfig, console: Console) -> None:
        self.path, self.config, self.console = Path(data).expanduser(), config, console
        self.file = read_features(self.path) if is_feature_file(self.path) else None
        self._encoder: PointEncoder | None = None
        self._clouds: CloudSet | None = None

    @property
    def encoder(self) -> PointEncoder:
        """The checkpoint, which must be the one that made the features."""
        if self._encoder is None:
            about = {} if self.file is None else self.file.attributes
            checkpoint = self.config.checkpoint or about.get("checkpoint")
            if checkpoint is None:
                raise InputError("checkpoint must be given with --checkpoint, got none")
            c = self.config
            self._encoder = open_encoder(checkpoint, c.model, c.device, c.precision, self.console)
            wanted = about.get("checkpoint_sha256")
            if self.file is not None and describe_encoder(self._encoder)["checkpoint_sha256"] != wanted:
                raise InputError(
                    f"{self.path} was made with another checkpoint than {self._encoder.file}: embed "
                    f"it again, or name its own with --checkpoint ({about.get('checkpoint')})"
                )
        return self._encoder

    @property
    def clouds(self) -> CloudSet:
        """The clouds; of a file of features those that it was made from."""
        if self._clouds is None:
            paths, reading, least = [str(self.path)], self.config.data, 1
            if self.file is not None:
                try:
                    paths = self.file.attributes["sources"]
                    reading = ReadingConfig(**self.file.attributes["reading"])
                except (KeyError, TypeError) as error:
                    raise InputError(
                        f"{self.path} must state its clouds and how they were read: {error}"
                    ) from error
            else:
                least = self.encoder.least_points
            self._clouds = open_clouds(paths, reading, least, self.console)
        return self._clouds

    @property
    def keys(self) -> list[str]:
        """Of its shapes."""
        return self.clouds.shapes.keys if self.file is None else self.file.keys

    def features(self, kinds: Sequence[FeatureKind]) -> tuple[FeatureSet, FeatureKind]:
        """Features of one of the kinds, the first where they have to be made."""
        if self.file is not None:
            kind = self.file.attributes["kind"]
            if kind not in kinds:
                wanted = " or ".join(kinds)
                raise InputError(
                    f"{self.path} must hold features {wanted} for this query, got {kind}: "
                    f"embed the clouds again with --kind {kinds[0]}"
                )
            return self.file, kind
        self.encoder.head(kinds[0])
        c = self.config
        return embed_set(
            self.clouds, self.encoder, kinds[0], c.data.num_points, c.batch_size, self.console
        ), kinds[0]

    def text_features(self, texts: list[str], found: FeatureSet) -> NDArray[np.float32]:
        """Features [T, D] of texts, standardised by the set's captions or class names where need be."""
        among = found.captions or [name.replace("_", " ") for name in found.class_names]
        teacher = query_teacher(self.config.teacher, self.encoder)
        store = None if self.file is not None else beside(str(self.path))
        return text_features(texts, teacher, self.encoder, self.console, store=store, among=among)
