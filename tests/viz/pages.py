"""What tests of pages share."""

import json
import re

from safetensors.torch import save_file

from recon_fast.checkpoint.files import weights_metadata

NASTY = "a <script>window.hacked = 1</script> <b>chair</b>"


def write_model(path, model, teacher=None):
    """Write a model's checkpoint, as a run does."""
    save_file(model.state_dict(), path, weights_metadata(model, teacher))
    return path


def page_data(text):
    """What a page's scripts get."""
    return json.loads(re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL)[1])


def write_run(folder, *, lr=0.1, end="finished", steps=5, name="procedural"):
    """A run's log, settings and record, made up."""
    folder.mkdir()
    lines = [{"step": 10 * i, "loss": 1 / i, "lr": lr, "step_ms": 5.0} for i in range(1, steps + 1)]
    lines.append({"step": 10 * steps, "probe_svm": 61.25, "probe_zero_shot": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(f"out: {folder.name}\noptim:\n  lr: {lr}\n  clip_grad: null\n")
    start = {"from_step": 0, "to_step": 10 * steps, "wall_seconds": 75.0, "end": end, "data": {"name": name}}
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    return folder
