"""Features of clouds laid out in the plane: PCA, t-SNE, and UMAP where it is installed."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import ReportConfig
from recon_fast.errors import InputError
from recon_fast.tasks.embed import load
from recon_fast.viz.clouds import Picked, pick_clouds, thumbnails
from recon_fast.viz.html import packed


def layouts(features: NDArray[np.floating]) -> tuple[dict[str, NDArray[np.float64]], str]:
    """Positions [S, 2] by name of the method, and a line on how much of the variance PCA keeps.

    Args:
        features: [S, D], S of at least 4.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float64)
    pca = PCA(2, svd_solver="full").fit(features)
    found = {"PCA": pca.transform(features)}
    note = f"the two PCA axes keep {100 * float(pca.explained_variance_ratio_.sum()):.0f} % of the variance"
    perplexity = min(30.0, (len(features) - 1) / 3)
    found["t-SNE"] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    try:
        from umap import UMAP
    except ImportError:
        return found, note
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed takes its threads
        found["UMAP"] = UMAP(n_neighbors=min(15, len(features) - 1), random_state=0).fit_transform(features)
    return found, note


def embedding_map(checkpoint: Path, config: ReportConfig) -> dict[str, Any]:
    """Data for run.js: positions, names, classes and thumbnails of the shapes of `config.data`.

    Raises:
        InputError: the checkpoint or the data cannot be used, or fewer than 4 shapes can be.
    """
    assert config.data is not None
    encoder = load(checkpoint, config.device)
    picked, _ = pick_clouds([config.data], config.count, config.kind, config.up)
    return map_data(picked, encoder.embed([np.array(cloud.points) for cloud in picked]), checkpoint.name)


def map_data(picked: list[Picked], features: NDArray[np.floating], checkpoint: str) -> dict[str, Any]:
    """Data for run.js of clouds and their features [S, D]."""
    if len(picked) < 4:
        raise InputError(f"data must have at least 4 shapes for a map, got {len(picked)}")
    if not np.isfinite(features).all():
        raise InputError("features must be finite for a map: the model has diverged")
    places, note = layouts(features)
    classes = sorted({cloud.label or "" for cloud in picked})
    return {
        "checkpoint": checkpoint,
        "note": note,
        "names": [cloud.name for cloud in picked],
        "captions": [cloud.caption or "" for cloud in picked],
        "classes": classes,
        "labels": [classes.index(cloud.label or "") for cloud in picked],
        "places": {name: packed(np.asarray(xy, np.float32), "f4") for name, xy in places.items()},
        "thumbnails": thumbnails([cloud.points for cloud in picked]),
    }
