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
