"""Tables of results: ours, theirs beside them, in three formats."""

import csv
import io
import json

import pytest

from recon_fast.cli import main
from recon_fast.errors import InputError
from recon_fast.tasks.table import PUBLISHED, TASKS, collect, render


@pytest.fixture
def runs(tmp_path):
    results = {
        "a": {"task": "finetune", "data": "my|set_1", "accuracy": 91.234, "voted_accuracy": 92.0,
              "selected_on": "validation", "checkpoint": "x"},
        "b": {"task": "fewshot", "data": "ModelNet40", "selected_on": "last epoch", "checkpoint": None,
              "protocol": "full", "settings": [{"way": 5, "shot": 10, "mean": 90.04, "deviation": 2.06}]},
        "c": {"task": "partseg", "data": "parts", "instance_miou": 80.0, "class_miou": 75.06,
              "checkpoint": "x"},
    }  # fmt: skip
    for name, result in results.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    return [tmp_path / name for name in results]


def test_ours_and_theirs_are_told_apart(runs):
    rows = collect(runs)
    ours = [row for row in rows if not row.run.startswith("published")]
    assert [(row.task, row.data, row.result, row.chosen_by) for row in ours] == [
        ("finetune", "my|set_1", "91.23", "validation"),
        ("fewshot", "ModelNet40 5 way 10 shot", "90.0 ± 2.1", "last epoch"),
        ("partseg", "parts", "80.0", ""),
    ]
    assert "random initialisation" in ours[1].note
    theirs = [row for row in rows if row not in ours]
    assert len(theirs) == sum(p.task in {"finetune", "fewshot", "partseg"} for p in PUBLISHED)
    assert all(row.chosen_by == "test" and "2302.02318" in row.run for row in theirs)
    assert all(p.task in TASKS for p in PUBLISHED)
    assert len(collect(runs, published=False)) == 3


def test_formats(runs):
    rows = collect(runs)
    markdown = render(rows, "markdown")
    assert "### Fine-tuning, accuracy in %" in markdown
    assert "| my\\|set_1 | 91.23 | validation | 92.00 voted |" in markdown
    parsed = list(csv.reader(io.StringIO(render(rows, "csv"))))
    assert parsed[0][:3] == ["task", "data", "result"]
    assert parsed[1][1] == "my|set_1"
    assert len(parsed) == len(rows) + 1
    latex = render(rows, "latex")
    assert r"my|set\_1 & 91.23" in latex
    assert r"90.0 $\pm$ 2.1" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3


def test_command(runs, capsys, tmp_path):
    assert main(["table", *map(str, runs), "--format", "csv", "--published", "false"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["table", str(tmp_path / "nowhere")]) == 2
    assert "finished run" in capsys.readouterr().err


def test_what_is_no_result(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"result\.json must be the result of a run: "):
        collect([tmp_path])
    (tmp_path / "result.json").write_text("[1")
    with pytest.raises(InputError, match=r"result\.json must be the result of a run: "):
        collect([tmp_path])
