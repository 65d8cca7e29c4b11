"""Settings of the commands that write pages, and their parsers."""

from dataclasses import dataclass
from pathlib import Path

from recon_fast.checks import check_numbers
from recon_fast.config import Kind, StatedUp
from recon_fast.errors import InputError
from recon_fast.settings import command_parser, parse, typed


@dataclass(frozen=True)
class ShowConfig:
    """What `recon-fast show` draws, and where to.

    Attributes:
        out: the page to write.
        png: folder for pictures of each cloud as PNG as well; null writes none.
        count: clouds taken from each data set that is named, spread over its held-out shapes.
        kind: how to read a folder, as `--data.kind` of pretrain.
        up: axis that points up in the data sets, which are turned to have y up; auto takes what they state.
        seed: of the masks.
        captions: a text file with one caption a line; the nearest to the text token are shown. null takes the
            captions of the data sets.
        device: where the model runs; auto takes the GPU if there is one.
    """

    out: str = "show.html"
    png: str | None = None
    count: int = 8
    kind: Kind = "auto"
    up: StatedUp = "auto"
    seed: int = 0
    captions: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_numbers(self, count=1)


@dataclass(frozen=True)
class ReportConfig:
    """What `recon-fast report` writes.

    Attributes:
        out: the page to write.
        follow: write the page again every so many seconds until all runs have ended, and let an open page
            reload itself; 0 writes it once.
        data: clouds for a map of embeddings by the newest checkpoint of the first run: a data set, or the
            word `procedural`; null draws none.
        kind: how to read a folder, as `--data.kind` of pretrain.
        up: axis that points up in the data, which is turned so that y is up; auto takes what it states.
        count: shapes on the map, at most.
        device: where the model runs; auto takes the GPU if there is one.
    """

    out: str = "report.html"
    follow: float = 0
    data: str | None = None
    kind: Kind = "auto"
    up: StatedUp = "auto"
    count: int = 400
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.follow < 1e6:
            raise InputError(f"follow must be a number of seconds, got {self.follow}")
        check_numbers(self, count=4)


@dataclass(frozen=True)
class InspectConfig:
    """What `recon-fast inspect` writes.

    Attributes:
        out: the page to write.
        kind: how to read a folder, as `--data.kind` of pretrain.
        thumbnails: shapes on the wall, at most, spread over the set.
        workers: threads that read files; null takes one per core.
    """

    out: str = "data.html"
    kind: Kind = "auto"
    thumbnails: int = 240
    workers: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, thumbnails=0, workers=1)


def parse_show(argv: list[str]) -> tuple[Path, list[str], ShowConfig]:
    """Checkpoint, clouds and settings of `recon-fast show`."""
    parser = command_parser("show", "What a model rebuilds and looks at, as one page that needs no network.")
    parser.add_argument("checkpoint", help="run, checkpoint, model.safetensors or official .pth")
    parser.add_argument(
        "clouds", nargs="+", help="files of clouds or meshes, data sets, or the word procedural"
    )
    parser.add_class_arguments(ShowConfig, as_group=False)
    settings = parse(parser, argv)
    return Path(settings["checkpoint"]), settings["clouds"], typed(ShowConfig, settings)


def parse_report(argv: list[str]) -> tuple[list[Path], ReportConfig]:
    """Runs and settings of `recon-fast report`."""
    parser = command_parser("report", "Curves, probes, settings and hardware of runs as one page.")
    parser.add_argument("runs", nargs="+", help="folders of runs, finished or going on")
    parser.add_class_arguments(ReportConfig, as_group=False)
    settings = parse(parser, argv)
    return [Path(run) for run in settings["runs"]], typed(ReportConfig, settings)


def parse_inspect(argv: list[str]) -> tuple[str, InspectConfig]:
    """Data and settings of `recon-fast inspect`."""
    parser = command_parser(
        "inspect", "Sizes, classes, duplicates, broken files and thumbnails of a data set."
    )
    parser.add_argument("data", help="folder, .h5, few-shot .pkl, packed set, or the word procedural")
    parser.add_class_arguments(InspectConfig, as_group=False)
    settings = parse(parser, argv)
    return settings["data"], typed(InspectConfig, settings)
