"""ReCon for point clouds: operators, pretraining and downstream protocols.

`recon_fast.load(path)` gives a checkpoint that embeds clouds, `create_model(name)` a module to train, and
`list_models()` the names; `pretrain`, `finetune`, `svm`, `embed` and `open_dataset` are the commands of the
same names for programs. Importing this package loads nothing heavy, not even torch; import
`recon_fast.kernels`, `recon_fast.models` and so on as needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon_fast.api import embed, finetune, open_dataset, pretrain, svm
    from recon_fast.checkpoint.create import create_model, list_models
    from recon_fast.tasks.embed import load

__version__ = "0.1.0"
__all__ = ["create_model", "embed", "finetune", "list_models", "load", "open_dataset", "pretrain", "svm"]

_MODULES = {"create_model": "checkpoint.create", "list_models": "checkpoint.create", "load": "tasks.embed"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"recon_fast.{_MODULES.get(name, 'api')}"), name)
