"""`recon-fast table RUN...`: results of runs in the form of the paper's tables, its numbers beside them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from recon_fast.errors import InputError
from recon_fast.schema import read_json

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


def read_result(run: Path) -> list[Row]:
    """The lines of a run's result.json. Raises InputError if it has none that can be read."""
    file = run / "result.json" if run.is_dir() else run
    if not file.is_file():
        raise InputError(f"run must be the folder of a finished run, with a result.json, got {run}")
    result: dict[str, Any] = read_json(file, _Result, "the result of a run")
    try:
        return _rows(result, str(run))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} must be the result of a run: {error!r}") from error


def _rows(result: dict[str, Any], run: str) -> list[Row]:
    task, data = result["task"], result["data"]
    chosen_by = result.get("selected_on") or ""
    start = "" if result.get("checkpoint") else "random initialisation"
    if task == "fewshot":
        return [
            Row(
                task,
                f"{data} {s['way']} way {s['shot']} shot",
                f"{s['mean']:.1f} ± {s['deviation']:.1f}",
                chosen_by,
                _joined(result.get("protocol", ""), start),
                run,
            )
            for s in result["settings"]
        ]
    if task == "partseg":
        text = f"{result['instance_miou']:.1f}"
        note = _joined(f"class mIoU {result['class_miou']:.1f}", start)
    elif task == "retrieve":
        text = f"{result['recall_at_1']:.1f}"
        note = _joined(f"chance {result['chance']:.1f}", start)
    else:
        text = f"{result['accuracy']:.2f}"
        voted = result.get("voted_accuracy")
        note = _joined("" if voted is None else f"{voted:.2f} voted", result.get("note", ""), start)
    return [Row(task, data, text, chosen_by, note, run)]


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def collect(runs: list[Path], published: bool = True) -> list[Row]:
    """Lines of all runs by task, each task's published ones after them.

    Raises:
        InputError: a run without a result.
    """
    rows = [row for run in runs for row in read_result(run)]
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
