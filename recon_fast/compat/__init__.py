"""Other packages' point-cloud operators under their own names, on the kernels of this package.

    import recon_fast.compat
    recon_fast.compat.install()
    from pointnet2_ops.pointnet2_utils import furthest_point_sample  # no compiler, GPU and CPU

`docs/drop-in.md` lists the names and the differences. What is really installed is left alone. `SERVED` says
everything: a module that is to be answered is one entry there, and functions in a file of this folder.
"""

import sys
from collections.abc import Sequence
from importlib import import_module, invalidate_caches
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_POINTNET2_UTILS = (
    "BallQuery FurthestPointSampling GatherOperation GroupAll GroupingOperation QueryAndGroup "
    "ThreeInterpolate ThreeNN ball_query furthest_point_sample gather_operation grouping_operation "
    "three_interpolate three_nn"
)
_POINTOPS = (
    "aggregation ball_query ball_query_and_group batch2offset farthest_point_sampling furthestsampling "
    "grouping grouping2 interpolation interpolation2 knn_query knn_query_and_group knnquery offset2batch "
    "subtraction"
)
_PYTORCH3D_OPS = "ball_query knn_gather knn_points sample_farthest_points"

# Each module that is answered: a file of this folder, and which of its names the module has. A name that the
# file calls otherwise is `theirs=ours`. Packages that only hold others (pytorch3d, say) are not listed.
SERVED = {
    "pointnet2_ops.pointnet2_utils": ("pointnet2", _POINTNET2_UTILS),
    "pointnet2_ops.pointnet2_modules": (
        "pointnet2",
        "PointnetFPModule PointnetSAModule PointnetSAModuleMSG build_shared_mlp",
    ),
    "knn_cuda": ("knn_cuda", "KNN"),
    "chamfer": ("chamfer", "backward forward"),
    "extensions.chamfer_dist": (
        "chamfer",
        "ChamferDistanceL1 ChamferDistanceL2 ChamferDistanceL2_split ChamferFunction",
    ),
    "chamfer3D.dist_chamfer_3D": ("chamfer", "chamfer_3DDist chamfer_3DFunction"),
    "chamfer_distance": ("chamfer", "ChamferDistance=ChamferDistancePair"),
    "chamferdist": ("chamfer", "ChamferDistance=ChamferDistanceReduced"),
    "pytorch3d.ops": ("pytorch3d", _PYTORCH3D_OPS),
    "pytorch3d.ops.knn": ("pytorch3d", _PYTORCH3D_OPS),
    "pytorch3d.loss": ("pytorch3d", "chamfer_distance"),
    "pytorch3d.loss.chamfer": ("pytorch3d", "chamfer_distance"),
    "torch_cluster": ("torch_cluster", "__version__ fps knn knn_graph nearest radius radius_graph"),
    "pointops": ("pointops", _POINTOPS),
}
# With the packages around them, each in front of what it holds.
_MODULES = dict.fromkeys(
    ".".join(parts[:depth])
    for parts in (name.split(".") for name in SERVED)
    for depth in range(1, len(parts) + 1)
)
PACKAGES = tuple(sorted(name for name in _MODULES if "." not in name))
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
        if spec is not None and (spec.origin is not None or name not in SERVED):
            return spec
    return None


class _Loader(Loader):
    """Fills a module with the names that `SERVED` gives it."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ not in SERVED:
            return
        file, names = SERVED[module.__name__]
        source = import_module(f"{__package__}.{file}")
        module.__doc__ = source.__doc__
        for name in names.split():
            theirs, _, ours = name.partition("=")
            setattr(module, theirs, getattr(source, ours or theirs))


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.served: set[str] = set()
        self.forced: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.split(".")[0]
        if fullname not in _MODULES or package not in self.served:
            return None
        if package not in self.forced and _found_elsewhere(fullname, path) is not None:
            return None
        holds = any(name.startswith(f"{fullname}.") for name in _MODULES)
        return ModuleSpec(fullname, _Loader(), origin=_OURS, is_package=holds)


_finder = _Finder()


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
        for name in _MODULES:
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
    for name in [name for name in _MODULES if _is_ours(name)]:
        del sys.modules[name]
    _finder.served.clear()
    _finder.forced.clear()


def status() -> dict[str, str]:
    """Who serves each module: "recon_fast", the file or folder of an installed one, or "nobody"."""
    rows: dict[str, str] = {}
    folders: dict[str, Sequence[str] | None] = {"": None}  # where the modules of an installed package lie
    for name in _MODULES:
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
    return isinstance(getattr(spec, "loader", None), _Loader)
