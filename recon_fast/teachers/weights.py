"""Where teachers' weights lie on this machine, and how a file becomes a state dict, without any network."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recon_fast.config.teacher import TeacherConfig
from recon_fast.errors import InputError
from recon_fast.files import is_torchscript

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
        return _open_clip(config, "image", name.removeprefix(OPEN_CLIP))
    import timm
    import torch

    if not timm.is_model(name):
        raise InputError(f"teacher.image must be a timm model or {OPEN_CLIP}NAME, got {name!r}")
    try:
        pretrained = timm.get_pretrained_cfg(name, allow_unregistered=False)
        assert pretrained is not None  # by allow_unregistered
    except RuntimeError as error:
        raise InputError(
            f"teacher.image must be a model and tag that timm knows, got {name!r}: {error}"
        ) from error
    own, url = pretrained.hf_hub_filename, str(pretrained.url or "")
    files = [own] if own else ["model.safetensors", "pytorch_model.bin"]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return _find(config, "image", name, pretrained.hf_hub_id, files, url, cache)


def text_weights(config: TeacherConfig) -> Weights:
    """Look for the text teacher's weights."""
    name = config.text or ""
    return _find(config, "text", name) if name == "tiny" else _open_clip(config, "text", name)


def describe_weights(config: TeacherConfig) -> list[tuple[str, str]]:
    """(teacher, where its weights were found or looked for), without building a model."""
    rows = []
    for name, look in ((config.image, image_weights), (config.text, text_weights)):
        if name is not None:
            found = look(config)
            where = f"random, seed {config.seed}" if found.random else f"not found: {', '.join(found.looked)}"
            rows.append((f"{found.argument} {found.model}", str(found.file) if found.file else where))
    return rows


def _open_clip(config: TeacherConfig, kind: str, name: str) -> Weights:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if ":" in name or open_clip.get_model_config(name) is None:
        raise InputError(f"teacher.{kind} must name an open_clip model, got {name!r}")
    pretrained = get_pretrained_cfg(name, config.text_pretrained)
    if not pretrained and config.weights == "local" and not getattr(config, f"{kind}_weights"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"teacher.text_pretrained of {name} must be one of {tags}; got {config.text_pretrained!r}"
        )
    repository, _, filename = (pretrained.get("hf_hub") or "").rpartition("/")
    filename = filename or "open_clip_pytorch_model.bin"
    safe = "open_clip_model" if filename == "open_clip_pytorch_model.bin" else Path(filename).stem
    return _find(config, kind, name, repository, [f"{safe}.safetensors", filename], pretrained.get("url"))


def _find(
    config: TeacherConfig,
    kind: str,
    model: str,
    repository: str | None = None,
    filenames: Sequence[str] = (),
    url: str | None = None,
    url_cache: Path = Path("~/.cache/clip"),  # open_clip's
) -> Weights:
    """A file the user named, else the Hugging Face cache, else the cache of files that came from a URL."""
    argument, file = f"teacher.{kind}", getattr(config, f"{kind}_weights")
    if config.weights == "random":
        return Weights(argument, model, None, random=True)
    if file is not None:
        path = Path(file).expanduser()
        if not path.is_file():
            raise InputError(f"{argument}_weights must be a file, got {file}, which is no file at all")
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
        path = url_cache.expanduser() / url.rsplit("/", 1)[-1]
        get = get or f"fetch {url}, "
        if path.is_file() and not is_torchscript(path):
            return Weights(argument, model, path, (str(path),))
        looked.append(f"{path}{' (a TorchScript archive, which holds code: not used)' * path.is_file()}")
    return Weights(argument, model, None, tuple(looked), get)


def read_state(file: Path) -> dict[str, "torch.Tensor"]:
    """State dict of a .safetensors file or of a torch file that holds only tensors; no code of it runs.

    Wrappers of training checkpoints ("state_dict", "model", EMA copies first) and prefixes ("module.",
    "_orig_mod.") are taken off.
    """
    import torch

    from recon_fast.checkpoint.files import read_torch_file

    wanted = f"weight file {file} must be a whole .safetensors file or a torch file of tensors only"
    try:
        content, _ = read_torch_file(file)
    except InputError as error:
        raise InputError(f"{wanted}: {error}") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise InputError(f"{wanted}, got {type(content).__name__} of other things")
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in content.items()}


def load_state(
    model: "torch.nn.Module",
    state: Mapping[str, "torch.Tensor"],
    file: Path,
    name: str,
    spare: Sequence[str] = (),
) -> None:
    """Fill a model from a state dict, or raise an `InputError` that names the first key that does not fit.

    Keys that start with one of `spare` (a classifier that the teacher does without) may be left over.
    """
    from recon_fast.checkpoint.files import match, refuse_unfit

    where, names = f"weight file {file} of {name}", {key: key for key in model.state_dict()}
    update, report = match(where, state, model, names, lambda key: key.startswith(tuple(spare)))
    refuse_unfit(where, report.missing, report.unexpected)
    model.load_state_dict(update, strict=False)
