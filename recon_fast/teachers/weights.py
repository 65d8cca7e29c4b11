"""Where teachers' weights lie on this machine, and how a file becomes a state dict, without any network."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_fast.config.teacher import TeacherConfig
from recon_fast.errors import InputError
from recon_fast.schema import instead

if TYPE_CHECKING:
    import torch

OPEN_CLIP = "open_clip:"  # prefix of image teachers that are towers of an open_clip model


@dataclass(frozen=True)
class Weights:
    """The result of looking for one teacher's weights."""

    argument: str  # "teacher.image" or "teacher.text"
    model: str
    file: Path | None  # None: random, or not found
    looked: tuple[str, ...] = ()  # every place, in order
    get: str = ""  # command that fetches them
    random: bool = False

    def require(self) -> "Weights":
        """Self, or an `InputError` that says where the weights were looked for and how to get them."""
        if self.file is None and not self.random:
            raise InputError(
                f"no weights for {self.argument} {self.model!r}: looked for {', '.join(self.looked)}. "
                f"Nothing is downloaded by itself: {self.get}name a file with --{self.argument}_weights "
                "FILE, or try things out with --teacher.weights random"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weight file, or "random"."""
        return "random" if self.file is None else _sha256(self.file.resolve(), self.file.stat().st_mtime_ns)


@lru_cache
def _sha256(file: Path, _modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def image_weights(config: TeacherConfig) -> Weights:
    """Look for the image teacher's weights."""
    name = config.image or ""
    if name.startswith(OPEN_CLIP):
        return _open_clip(config, name.removeprefix(OPEN_CLIP), "teacher.image", config.image_weights)
    import timm

    if not timm.is_model(name):
        raise InputError(f"teacher.image must be a timm model or {OPEN_CLIP}NAME, got {name!r}")
    try:
        pretrained = timm.get_pretrained_cfg(name, allow_unregistered=False)
        assert pretrained is not None  # by allow_unregistered
    except RuntimeError as error:
        raise InputError(
            f"teacher.image must be a model and tag that timm knows, got {name!r}: {error}"
        ) from error
    if config.weights == "random":
        return Weights("teacher.image", name, None, random=True)
    own = pretrained.hf_hub_filename
    files = [own] if own else ["model.safetensors", "pytorch_model.bin"]
    url = str(pretrained.url) if pretrained.url else None
    return _find("teacher.image", name, config.image_weights, pretrained.hf_hub_id, files, url, _torch_hub)


def text_weights(config: TeacherConfig) -> Weights:
    """Look for the text teacher's weights."""
    name = config.text or ""
    if name == "tiny":
        if config.weights == "random":
            return Weights("teacher.text", name, None, random=True)
        return _find("teacher.text", name, config.text_weights, None, [], None, _clip_cache)
    return _open_clip(config, name, "teacher.text", config.text_weights)


def describe_weights(config: TeacherConfig) -> list[tuple[str, str]]:
    """(teacher, where its weights were found or looked for), without building a model."""
    rows = []
    for name, look in ((config.image, image_weights), (config.text, text_weights)):
        if name is not None:
            found = look(config)
            where = f"random, seed {config.seed}" if found.random else f"not found: {', '.join(found.looked)}"
            rows.append((f"{found.argument} {found.model}", str(found.file) if found.file else where))
    return rows


def _open_clip(config: TeacherConfig, name: str, argument: str, file: str | None) -> Weights:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if ":" in name or open_clip.get_model_config(name) is None:
        raise InputError(f"{argument} must name an open_clip model, got {name!r}")
    if config.weights == "random":
        return Weights(argument, name, None, random=True)
    pretrained = get_pretrained_cfg(name, config.text_pretrained)
    if not pretrained and not file:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"teacher.text_pretrained of {name} must be one of {tags}; got {config.text_pretrained!r}"
        )
    repository, _, filename = (pretrained.get("hf_hub") or "").rpartition("/")
    filename = filename or "open_clip_pytorch_model.bin"
    safe = "open_clip_model" if filename == "open_clip_pytorch_model.bin" else Path(filename).stem
    return _find(
        argument,
        name,
        file,
        repository,
        [f"{safe}.safetensors", filename],
        pretrained.get("url"),
        _clip_cache,
    )


def _torch_hub() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _clip_cache() -> Path:
    return Path("~/.cache/clip").expanduser()


def _find(
    argument: str,
    model: str,
    file: str | None,
    repository: str | None,
    filenames: list[str],
    url: str | None,
    url_cache: Callable[[], Path],
) -> Weights:
    """A file the user named, else the Hugging Face cache, else the cache of files that came from a URL."""
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise InputError(f"{argument}_weights must be a file, got {file}, which is {_kind(path)}")
        return Weights(argument, model, path, (str(path),))
    looked, get = [], ""
    if repository:
        from huggingface_hub import constants, try_to_load_from_cache

        get = f"run `hf download {repository} {filenames[0]}`, "
        for filename in filenames:
            hit = try_to_load_from_cache(repository, filename, cache_dir=constants.HF_HUB_CACHE)
            if isinstance(hit, str):
                return Weights(argument, model, Path(hit), (hit,))
        folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        looked.append(f"{folder} ({' or '.join(filenames)})")
    if url:
        from recon_fast.checkpoint import is_torchscript  # imported here: it loads torch

        path = url_cache() / url.rsplit("/", 1)[-1]
        get = get or f"fetch {url}, "
        if path.is_file() and not is_torchscript(path):
            return Weights(argument, model, path, (str(path),))
        looked.append(
            f"{path} (a TorchScript archive, which holds code: not used)" if path.is_file() else str(path)
        )
    return Weights(argument, model, None, tuple(looked), get)


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "no file at all" if not path.exists() else "something else"


def read_state(file: Path) -> dict[str, "torch.Tensor"]:
    """State dict of a .safetensors file or of a torch file that holds only tensors.

    Wrappers of training checkpoints ("state_dict", "model", EMA copies first) and prefixes ("module.",
    "_orig_mod.") are taken off. Objects other than tensors and plain containers are refused, so no code of
    the file runs.
    """
    import torch
    from safetensors.torch import load_file

    from recon_fast.checkpoint import is_torchscript

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if is_torchscript(file):
            raise InputError(
                f"weight file {file} must hold only tensors, got a TorchScript archive, which holds code; "
                "use the .safetensors file of the same model"
            )
        with warnings.catch_warnings():
            # torch's note about newer pickles says nothing that the outcome does not
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # zip, tensor and format errors of a damaged file have no common type
        first = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise InputError(
            f"weight file {file} must be a whole .safetensors file or a torch file of tensors only: "
            f"{first}{instead(file)}"
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise InputError(
            f"weight file {file} must hold a state dict of tensors, got {type(content).__name__}"
        )
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in content.items()}


def load_state(
    model: "torch.nn.Module",
    state: Mapping[str, "torch.Tensor"],
    file: Path,
    name: str,
    spare: Iterable[str] = (),
) -> None:
    """Fill a model from a state dict, or raise an `InputError` that names the first key that does not fit.

    Keys that start with one of `spare` (a classifier that the teacher does without) may be left over.
    """
    wanted = model.state_dict()
    prefix = f"weight file {file} does not fit {name}"
    for key, value in wanted.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):
                continue
            raise InputError(f"{prefix}: {key} {list(value.shape)} is wanted, and not in the file")
        if state[key].shape != value.shape:
            raise InputError(f"{prefix}: {key} must be {list(value.shape)}, got {list(state[key].shape)}")
    for key in state:
        if key not in wanted and not key.startswith(tuple(spare)):
            raise InputError(f"{prefix}: {key} {list(state[key].shape)} is in the file, and not wanted")
    model.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
