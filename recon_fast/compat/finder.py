"""Imports of other packages' names, answered by modules of this folder where nothing else answers."""

import sys
from collections.abc import Sequence
from importlib import import_module, invalidate_caches
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# The module of this folder whose names a module has; None for a package that only holds others.
_SHIMS: dict[str, str | None] = {
    "pointnet2_ops": None,
    "pointnet2_ops.pointnet2_utils": "pointnet2_utils",
    "pointnet2_ops.pointnet2_modules": "pointnet2_modules",
    "knn_cuda": "knn_cuda",
    "chamfer": "chamfer_extension",
    "extensions": None,
    "extensions.chamfer_dist": "chamfer_dist",
    "chamfer3D": None,
    "chamfer3D.dist_chamfer_3D": "chamfer_3d",
    "chamfer_distance": "chamfer_tuple",
    "chamferdist": "chamferdist",
    "pytorch3d": None,
    "pytorch3d.ops": "pytorch3d_ops",
    "pytorch3d.ops.knn": "pytorch3d_ops",
    "pytorch3d.loss": "pytorch3d_loss",
    "pytorch3d.loss.chamfer": "pytorch3d_loss",
    "torch_cluster": "torch_cluster",
    "pointops": "pointops",
}
PACKAGES = tuple(sorted({name.split(".")[0] for name in _SHIMS}))
_OURS = "recon_fast"


def _found_elsewhere(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """What any other finder finds under a name.

    A folder without __init__.py counts only where no names of its own are wanted: sources that wait for a
    compiler often lie in a folder of the package's name.
    """
    for finder in sys.meta_path:
        if finder is _finder or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(name, path)
        if spec is not None and (spec.origin is not None or _SHIMS[name] is None):
            return spec
    return None


class _ShimLoader(Loader):
    def __init__(self, source: str | None):
        self.source = source

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if self.source is not None:
            source = import_module(f"{__package__}.{self.source}")
            module.__doc__ = source.__doc__
            module.__dict__.update({name: getattr(source, name) for name in source.__all__})


class _ShimFinder(MetaPathFinder):
    def __init__(self) -> None:
        self.served: set[str] = set()
        self.forced: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.split(".")[0]
        if fullname not in _SHIMS or package not in self.served:
            return None
        if package not in self.forced and _found_elsewhere(fullname, path) is not None:
            return None
        inner = any(name.startswith(f"{fullname}.") for name in _SHIMS)
        return ModuleSpec(fullname, _ShimLoader(_SHIMS[fullname]), origin=_OURS, is_package=inner)


_finder = _ShimFinder()


def install(*packages: str, force: bool = False) -> None:
    """Let code that imports other packages' operators get those of this package.

    Args:
        packages: which of `PACKAGES`; none means all.
        force: serve them even where they are installed. What was imported already keeps what it has.

    Raises:
        ValueError: a package that is not known.
    """
    for name in packages:
        if name not in PACKAGES:
            raise ValueError(f"packages must be some of {PACKAGES}, got {name!r}")
    chosen = set(packages or PACKAGES)
    _finder.served |= chosen
    if force:
        _finder.forced |= chosen
        for name in _SHIMS:
            if name.split(".")[0] in chosen and not _is_ours(name):
                sys.modules.pop(name, None)
    if _finder not in sys.meta_path:
        # In front: other finders take a folder of sources for a module. What is installed it leaves to them.
        sys.meta_path.insert(0, _finder)
    invalidate_caches()


def uninstall() -> None:
    """Undo `install`: later imports find what they would have found without it."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in [name for name in _SHIMS if _is_ours(name)]:
        del sys.modules[name]
    _finder.served.clear()
    _finder.forced.clear()


def status() -> dict[str, str]:
    """Who serves each module: "recon_fast", the file or folder of an installed one, or "nobody"."""
    rows: dict[str, str] = {}
    folders: dict[str, Sequence[str] | None] = {"": None}  # where the modules of an installed package lie
    for name in _SHIMS:
        package, parent = name.split(".")[0], name.rpartition(".")[0]
        forced = package in _finder.served and package in _finder.forced
        spec = None if forced or parent not in folders else _found_elsewhere(name, folders[parent])
        if spec is None:
            rows[name] = _OURS if package in _finder.served else "nobody"
            continue
        folder = spec.submodule_search_locations
        if folder is not None:
            folders[name] = list(folder)
        rows[name] = spec.origin or next(iter(folder or [""]))
    return rows


def _is_ours(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return isinstance(getattr(spec, "loader", None), _ShimLoader)
