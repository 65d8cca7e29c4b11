"""`recon-fast table RUN...`: results of runs in the form of the paper's tables, its numbers beside them."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from recon_fast.config.compare import FREE_OF_SEEDS, settings_but
from recon_fast.errors import InputError
from recon_fast.schema import read_json, read_yaml

TASKS = {
    "finetune": "Fine-tuning, accuracy in %",
    "mlp3": "Three layers on a frozen encoder, accuracy in %",
    "linear": "A linear layer on a frozen encoder, accuracy in %",
    "fewshot": "Few-shot, accuracy in %",
    "svm": "Linear SVM, accuracy in %",
    "knn": "Nearest neighbours, accuracy in %",
    "zeroshot": "Zero-shot, accuracy in %",
    "retrieve": "Retrieval, recall in %",
    "partseg": "Part segmentation, mean IoU in %",
}
_HEADER = ("data", "result", "chosen by", "note", "run")
Format = Literal["markdown", "csv", "latex"]


class _Result(TypedDict):
    """What every result.json has."""

    task: str
    data: str


class Row(NamedTuple):
    """A line of a table."""

    task: str
    data: str
    result: str
    chosen_by: str
    note: str
    run: str  # or whose number it is


def merged(runs: Sequence[Path], best: bool = False) -> list[Row]:
    """The lines of runs that differ in the seed alone: the mean of their results, or the best of them.

    Raises:
        InputError: one has no result.json that can be read.
    """
    results = []
    for run in runs:
        file = run / "result.json" if run.is_dir() else run
        if not file.is_file():
            raise InputError(f"run must be the folder of a finished run, with a result.json, got {run}")
        results.append(read_json(file, _Result, "the result of a run"))
        try:
            _rows(results[-1:], "", best)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} must be the result of a run: {error!r}") from error
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    try:
        return _rows(results, f"{runs[0]}{others}", best)
    except LookupError as error:
        raise InputError(f"{runs[0]}{others} must be runs of one kind: {error!r}") from error


def _rows(results: list[dict[str, Any]], run: str, best: bool) -> list[Row]:
    result = results[0]
    task, data = result["task"], result["data"]
    chosen_by = result.get("selected_on") or ""
    start = "" if result.get("checkpoint") else "random initialisation"

    def number(key: str, digits: int = 1) -> str:
        return _number([one[key] for one in results], digits, best)

    if task == "fewshot":
        rows = []
        for i, s in enumerate(result["settings"]):
            text = f"{s['mean']:.1f} ± {s['deviation']:.1f}"
            if len(results) > 1:
                text = _number([one["settings"][i]["mean"] for one in results], 1, best)
            note = _joined(result.get("protocol", ""), start)
            rows.append(Row(task, f"{data} {s['way']} way {s['shot']} shot", text, chosen_by, note, run))
        return rows
    if task == "partseg":
        text = number("instance_miou")
        note = _joined(f"class mIoU {number('class_miou')}", start)
    elif task == "retrieve":
        text = number("recall_at_1")
        note = _joined(f"chance {result['chance']:.1f}", start)
    else:
        text = number("accuracy", 2)
        voted = "" if result.get("voted_accuracy") is None else f"{number('voted_accuracy', 2)} voted"
        own = result.get("note", "")
        if len(results) > 1 and "knn" in result:
            own = f"kNN {_number([one['knn']['accuracy'] for one in results], 2, best)}"
        note = _joined(voted, own, start)
    return [Row(task, data, text, chosen_by, note, run)]


def _number(values: list[float], digits: int, best: bool) -> str:
    """A number as text; of several, their mean, sample deviation and count, or the best."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    if best:
        return f"{max(values):.{digits}f} (best of {len(values)})"
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) * (value - mean) for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ({len(values)} seeds)"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _groups(runs: Sequence[Path]) -> list[list[Path]]:
    """Runs by their settings; those of a group differ in the seed, and in no setting that a result is of."""
    groups: dict[Any, list[Path]] = {}
    seen: Counter[Any] = Counter()
    for run in runs:
        file = (run if run.is_dir() else run.parent) / "config.yaml"
        if not file.is_file():
            groups[run] = [run]
            continue
        config = read_yaml(file)
        settings, seed = repr(settings_but(FREE_OF_SEEDS, config)), repr(config.get("seed"))
        seen[settings, seed] += 1  # the second run of a seed is of another group
        groups.setdefault((settings, seen[settings, seed]), []).append(run)
    return list(groups.values())


def collect(runs: Sequence[Path], published: bool = True, best: bool = False) -> list[Row]:
    """Lines of all runs by task, each task's published ones after them.

    Args:
        runs: folders of runs, folders of seeds, or files result.json.
        published: the paper's lines too.
        best: as of `merged`; runs that differ in the seed alone are one line.

    Raises:
        InputError: a run without a result.
    """
    single: list[Path] = []
    for run in runs:
        seeds = [file.parent for file in run.glob("seed-*/result.json")]
        single += sorted(seeds, key=lambda seed: (len(seed.name), seed.name)) or [run]
    single = list({run.resolve(): run for run in single}.values())  # one that is named twice is one
    rows = [row for group in _groups(single) for row in merged(group, best)]
    tasks = dict.fromkeys(row.task for row in rows)
    if published:
        rows += [row for row in PUBLISHED if row.task in tasks]
    order = list(TASKS)
    return sorted(rows, key=lambda row: order.index(row.task) if row.task in order else len(order))


def render(rows: list[Row], form: Format) -> str:
    """The tables as Markdown, CSV or LaTeX."""
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(("task", *_HEADER))
        writer.writerows(rows)
        return out.getvalue()
    tables = []
    for task in dict.fromkeys(row.task for row in rows):
        own = [row[1:] for row in rows if row.task == task]
        tables.append((_markdown if form == "markdown" else _latex)(TASKS.get(task, task), own))
    return "\n\n".join(tables) + "\n"


def _markdown(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"### {title}", "", _line(_HEADER), "|---|--:|---|---|---|"]
    return "\n".join(lines + [_line(cells) for cells in rows])


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\^{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
)


def _latex(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    body = [" & ".join(cell.translate(_ESCAPES) for cell in cells) + r" \\" for cells in (_HEADER, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{title.translate(_ESCAPES)}}}",
            r"\begin{tabular}{lrlll}",
            r"\hline",
            body[0],
            r"\hline",
            *body[1:],
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


SOURCE = "Qi, Dong et al. 2023 (arXiv 2302.02318)"
# ReCon, tables 1 to 6. Accuracies in percent; segmentation is the mean IoU over instances.
PUBLISHED = tuple(
    Row(task, data, result, "test", note, f"published: {SOURCE}")
    for task, data, result, note in (
        ("finetune", "ScanObjectNN OBJ_BG", "95.18", "95.35 voted"),
        ("finetune", "ScanObjectNN OBJ_ONLY", "93.29", "93.80 voted"),
        ("finetune", "ScanObjectNN PB_T50_RS", "90.63", "91.26 voted"),
        ("finetune", "ModelNet40 1k", "94.5", "voted"),
        ("finetune", "ModelNet40 8k", "94.7", "voted"),
        ("fewshot", "ModelNet40 5 way 10 shot", "97.3 ± 1.9", ""),
        ("fewshot", "ModelNet40 5 way 20 shot", "98.9 ± 1.2", ""),
        ("fewshot", "ModelNet40 10 way 10 shot", "93.3 ± 3.9", ""),
        ("fewshot", "ModelNet40 10 way 20 shot", "95.8 ± 3.0", ""),
        ("svm", "ModelNet40", "93.4", ""),
        ("partseg", "ShapeNetPart", "86.4", "instance mIoU"),
        ("zeroshot", "ModelNet10", "75.6", "81.6 on train and test"),
        ("zeroshot", "ModelNet40", "61.7", "66.8 on train and test"),
        ("zeroshot", "ScanObjectNN", "43.7", ""),
    )
)
