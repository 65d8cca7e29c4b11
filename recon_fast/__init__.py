"""ReCon for point clouds: operators, pretraining and downstream protocols.

`recon_fast.load(path)` gives a checkpoint that embeds clouds. Importing this package loads nothing heavy, not
even torch; import `recon_fast.kernels`, `recon_fast.models` and so on as needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon_fast.tasks.embed import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from recon_fast.tasks.embed import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
