"""Classifiers by name, as timm users expect; saved to, and read from, a folder or the Hugging Face Hub."""

from collections.abc import Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download

from recon_fast.checkpoint.files import save_weights, weights_metadata
from recon_fast.checkpoint.restore import SHIPPED_FILE, WEIGHTS, Restored, restore, untrained_architecture
from recon_fast.config import ReConConfig
from recon_fast.config.model import SHIPPED
from recon_fast.errors import InputError
from recon_fast.files import whole_file
from recon_fast.models import Classifier

Head = Literal["mlp3", "linear"]
_SIZES = {"recon_tiny": "tiny", "recon_small": "small", "recon_base": "base", f"recon_{SHIPPED}": "auto"}
_FIXED = ("dim", "depth", "num_heads")  # by the name of a model


class HubClassifier(
    Classifier,
    PyTorchModelHubMixin,
    library_name="recon-fast",
    paper_url="https://arxiv.org/abs/2302.02318",
    tags=["point-cloud"],
):
    """A `Classifier` with `save_pretrained`, `from_pretrained` and `push_to_hub` of huggingface_hub.

    The folder holds a model.safetensors, which every command and `recon_fast.load` take as a checkpoint.

    Attributes:
        conventions: of the clouds that its checkpoint was trained on, see `Restored`.
    """

    conventions: Mapping[str, Any] = MappingProxyType({})

    def _save_pretrained(self, save_directory: Path) -> None:
        with whole_file(save_directory / WEIGHTS) as aside:
            save_weights(self, aside, weights_metadata(self, None, dict(self.conventions)))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, num_classes: int | None = None, head: Head | None = None, **how: Any
    ) -> "HubClassifier":
        """The model of a folder or a name on the Hub, in evaluation mode; `num_classes` and `head` as of
        `create_model`.
        """
        how.pop("config", None)  # of config.json; the weights state it themselves
        folder = Path(model_id)
        restored = restore(folder if folder.is_dir() else hf_hub_download(model_id, WEIGHTS, **how))
        return _classifier(restored.model.config, restored, num_classes, head).eval()


def list_models(filter: str = "*", pretrained: bool = False) -> list[str]:
    """Names that `create_model` takes and that match a pattern such as "recon_*"; with `pretrained`, those
    whose weights come with the package.
    """
    names = [f"recon_{SHIPPED}"] if pretrained else _SIZES
    return [name for name in names if fnmatchcase(name, filter)]


def create_model(
    name: str,
    pretrained: bool | str | Path = False,
    num_classes: int | None = None,
    head: Head | None = None,
    **changes: Any,
) -> HubClassifier:
    """A classifier, or without classes an encoder, as an ordinary module in training mode.

    Args:
        name: one of `list_models()`: recon_tiny, recon_small and recon_base as in the paper, or
            recon_procedural, the encoder that comes with the package.
        pretrained: True for the weights that come with the package; or a checkpoint of that size: a run's
            folder, a checkpoint's folder, a model.safetensors, an official .pth.
        num_classes: number of logits; 0 gives the feature [B, 4C]. None takes the head of the checkpoint
            where it is of a classifier, else 0. A head of as many classes comes from the checkpoint, any
            other starts fresh.
        head: "mlp3" or "linear"; None takes the checkpoint's, else "mlp3".
        changes: fields of `ReConConfig`, such as num_group, group_size and drop_path; what is not given is as
            the checkpoint says.

    Raises:
        InputError: an unknown name or field, a checkpoint that cannot be read or is of another size.
    """
    if name not in _SIZES:
        raise InputError(f"name must be one of {', '.join(_SIZES)}, got {name!r}")
    known = {field.name for field in fields(ReConConfig)}
    if not changes.keys() <= known:
        unknown = next(iter(changes.keys() - known))
        raise InputError(f"{unknown} must be one of {', '.join(sorted(known))}")
    config = replace(untrained_architecture(_SIZES[name]), **changes)
    if pretrained is False:
        return _classifier(config, None, num_classes, head)
    if pretrained is True and name not in list_models(pretrained=True):
        raise InputError(
            f"pretrained must be a checkpoint for {name}, got True, which is for recon_{SHIPPED}"
        )
    restored = restore(SHIPPED_FILE if pretrained is True else pretrained)
    found = restored.model.config
    for field in _FIXED:
        wanted, got = getattr(config, field), getattr(found, field)
        if wanted != got:
            raise InputError(
                f"pretrained must have {field} {wanted} for {name}, got {got} in {restored.file}"
            )
    return _classifier(replace(found, **changes), restored, num_classes, head)


def _classifier(
    config: ReConConfig, restored: Restored | None, num_classes: int | None, head: Head | None
) -> HubClassifier:
    """A classifier with the encoder of a checkpoint, and its head where that is wanted."""
    source = None if restored is None else restored.model
    task: dict[str, Any] = (
        source.task if isinstance(source, Classifier) else {"num_classes": 0, "head": "mlp3"}
    )
    wanted = task["num_classes"] if num_classes is None else num_classes, head or task["head"]
    model = HubClassifier(config, *wanted)
    if restored is not None and source is not None:
        model.conventions = restored.conventions
        model.encoder.load_state_dict(source.encoder.state_dict())
    if isinstance(source, Classifier) and wanted == (task["num_classes"], task["head"]):
        model.head.load_state_dict(source.head.state_dict())
        model.task = task
    return model
