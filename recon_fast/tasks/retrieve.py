"""Nearest shapes to a shape, a text or a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon_fast.config.frozen import RetrieveConfig
from recon_fast.data.readers.clouds import FILES
from recon_fast.data.readers.pictures import PICTURE_SUFFIXES, decode_picture, read_picture_bytes
from recon_fast.errors import InputError
from recon_fast.tasks.cloud_sets import CloudSet, open_clouds
from recon_fast.tasks.embed_files import embed_set
from recon_fast.tasks.searched import COMPARABLE, QueryKind, Searched, unit
from recon_fast.tasks.sheet import Cell, check_sheet, write_sheet
from recon_fast.tasks.text_space import is_standardized, picture_feature, query_teacher


@dataclass(frozen=True)
class Match:
    """A shape that was found."""

    rank: int  # from 1
    key: str
    class_name: str  # "" without labels
    caption: str  # "" without captions
    cosine: float


@dataclass
class Retrieval:
    """What was found for a query."""

    query: str
    kind: QueryKind
    among: int  # shapes
    matches: list[Match]

    def show(self, console: Console) -> None:
        """A table on a terminal, elsewhere lines with tabs: rank, key, class, caption, cosine."""
        rows = [(str(m.rank), m.key, m.class_name, m.caption, f"{m.cosine:.4f}") for m in self.matches]
        if not console.is_terminal:
            console.file.writelines("\t".join(row) + "\n" for row in rows)  # rich would expand the tabs
            return
        table = Table("rank", "key", "class", "caption", "cosine", title=f"{self.kind}: {escape(self.query)}")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


def retrieve(
    data: str | Path, query: str, config: RetrieveConfig | None = None, console: Console | None = None
) -> Retrieval:
    """The shapes of a set that are nearest to a query by cosine.

    Args:
        data: a file that `recon-fast embed` wrote, or anything that it embeds.
        query: key of a shape of the set, which is not found itself; file of a cloud or of a picture; a text.
        config: settings; with `sheet`, a page of thumbnails is written.
        console: where lines and bars go; stderr by default.

    Raises:
        InputError: no such file, features of another kind or checkpoint, a checkpoint without projections, a
            teacher that is absent or another than the checkpoint's.
    """
    config, console = config or RetrieveConfig(), console or Console(stderr=True)
    sheet = None if config.sheet is None else Path(config.sheet).expanduser()
    if sheet is not None:
        check_sheet(sheet)
    searched = Searched(data, config, console)
    kind = _kind_of(query, searched.keys) if config.query == "auto" else config.query
    if kind == "key" and query not in searched.keys:
        raise InputError(f"query must be the key of a shape in {data}, got {query}")
    kinds = COMPARABLE.get(kind, (config.kind,))
    if kind in ("key", "shape") and searched.file is not None:
        kinds = (searched.file.attributes["kind"],)  # shapes can be compared by any
    found, feature_kind = searched.features(kinds)
    if kind == "picture" and feature_kind == "zeroshot" and not searched.encoder.aligned:
        raise InputError(f"{data} must hold features zeroshot_image for a picture, got zeroshot")
    features = found.features
    own = searched.keys.index(query) if kind == "key" else None
    shown: CloudSet | None = None
    if own is not None:
        wanted = features[own]
    elif kind == "shape":
        shown = open_clouds([query], config.data, searched.encoder.least_points, console)
        points = config.data.num_points
        if searched.file is not None:
            points = searched.file.attributes.get("num_points")
        wanted = embed_set(
            shown, searched.encoder, feature_kind, points, config.batch_size, console
        ).features[0]
    else:
        if kind == "text":
            wanted = searched.text_features([query], found)[0]
        else:
            teacher = query_teacher(config.teacher, searched.encoder)
            wanted = picture_feature(Path(query).expanduser(), teacher, searched.encoder, console)
        if is_standardized(searched.encoder):
            features = features - features.mean(0)
    cosine = unit(features) @ unit(wanted[None])[0]
    order = [int(i) for i in np.argsort(-cosine, kind="stable") if i != own][: config.top]
    matches = [
        Match(
            rank,
            found.keys[i],
            found.class_of(i),
            "" if found.captions is None else found.captions[i],
            float(cosine[i]),
        )
        for rank, i in enumerate(order, 1)
    ]
    result = Retrieval(query, kind, len(found.keys), matches)
    if sheet is not None:
        _write_sheet(sheet, result, searched, shown)
    return result


def _kind_of(query: str, keys: Sequence[str]) -> QueryKind:
    """What a query is; a missing file is not taken for a text."""
    if query in keys:
        return "key"
    suffix = Path(query).suffix.lower()
    for kind, suffixes in (("picture", PICTURE_SUFFIXES), ("shape", FILES)):
        if suffix in suffixes:
            if not Path(query).expanduser().is_file():
                raise InputError(f"query must be a key, a file or a text, got {query}: no such file")
            return kind  # type: ignore[return-value]
    return "text"


def _write_sheet(path: Path, result: Retrieval, searched: Searched, shown: CloudSet | None) -> None:
    """Thumbnails of what was found, after the query where that is no text; `shown` is the query of a file."""
    keys = searched.clouds.shapes.keys
    place = {key: i for i, key in enumerate(keys)}
    missing = [match.key for match in result.matches if match.key not in place]
    if missing:
        raise InputError(f"the clouds of {searched.path} changed: {missing[0]} is not there any more")
    cells = []
    if result.kind == "picture":
        file = Path(result.query).expanduser()
        cells.append(Cell(decode_picture(read_picture_bytes(file), file), "query"))
    elif result.kind == "key":
        (cloud,) = searched.clouds.read([place[result.query]])
        cells.append(Cell(cloud, "query"))
    elif shown is not None:
        (cloud,) = shown.read([0])
        cells.append(Cell(cloud, "query"))
    clouds = searched.clouds.read([place[match.key] for match in result.matches])
    cells += [
        Cell(cloud, f"{m.rank}. {m.caption or m.class_name or m.key}  {m.cosine:.3f}")
        for cloud, m in zip(clouds, result.matches, strict=True)
    ]
    write_sheet(path, f"nearest to {result.query}", cells)
