"""Parsers."""

from pathlib import Path

from recon_fast.config import InspectConfig, ReportConfig, ShowConfig
from recon_fast.settings import command_parser, parse, typed


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
