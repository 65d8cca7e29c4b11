"""Who answers an import: what is installed, else this package, else nobody."""

import importlib
import sys

import pytest

from recon_fast import compat

NAMES = {
    "pointnet2_ops.pointnet2_utils": "furthest_point_sample gather_operation three_nn three_interpolate "
    "grouping_operation ball_query QueryAndGroup GroupAll",
    "pointnet2_ops.pointnet2_modules": "PointnetSAModule PointnetSAModuleMSG PointnetFPModule",
    "knn_cuda": "KNN",
    "chamfer": "forward backward",
    "extensions.chamfer_dist": "ChamferDistanceL1 ChamferDistanceL2 ChamferDistanceL2_split ChamferFunction",
    "chamfer3D.dist_chamfer_3D": "chamfer_3DDist",
    "chamfer_distance": "ChamferDistance",
    "chamferdist": "ChamferDistance",
    "pytorch3d.ops": "sample_farthest_points knn_points knn_gather ball_query",
    "pytorch3d.ops.knn": "knn_points knn_gather",
    "pytorch3d.loss": "chamfer_distance",
    "torch_cluster": "fps knn radius nearest knn_graph radius_graph",
    "pointops": "furthestsampling farthest_point_sampling knn_query ball_query grouping interpolation "
    "subtraction aggregation",
}


@pytest.fixture(autouse=True)
def _as_before():
    before = dict(sys.modules)
    yield
    compat.uninstall()
    for name in compat.PACKAGES:
        for module in [m for m in sys.modules if m.split(".")[0] == name]:
            if module in before:
                sys.modules[module] = before[module]
            else:
                del sys.modules[module]


def forget(package):
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        del sys.modules[module]


@pytest.mark.parametrize("name", NAMES)
def test_everything_imports(name):
    compat.install(force=True)
    module = importlib.import_module(name)
    assert all(hasattr(module, member) for member in NAMES[name].split())
    assert module.__spec__.origin == "recon_fast"
    assert compat.status()[name] == "recon_fast"
    assert importlib.import_module(name.split(".")[0]).__spec__.origin == "recon_fast"


def test_all_that_the_files_offer_is_served():
    served: dict[str, set[str]] = {}
    for file, names in compat.SERVED.values():
        served.setdefault(file, set()).update(name.rpartition("=")[2] for name in names.split())
    for file, names in served.items():
        module = importlib.import_module(f"recon_fast.compat.{file}")
        offered = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        }
        assert offered <= names | {"KNN"}, "KNN is also the tuple that pytorch3d.ops returns"


def test_modules_are_not_there_before_and_after():
    for _ in range(2):
        assert compat.status()["pointops"] == "nobody"
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("pointops")
        compat.install()
        compat.install()
        assert sys.meta_path.count(compat._finder) == 1
        assert importlib.import_module("pointops").knn_query
        compat.uninstall()
        assert "pointops" not in sys.modules


def test_some_packages_alone():
    compat.install("knn_cuda")
    assert importlib.import_module("knn_cuda").KNN
    assert compat.status()["pointops"] == "nobody"
    with pytest.raises(ValueError, match=r"packages must be some of .*, got 'knn'"):
        compat.install("knn")


def test_what_is_installed_stays(tmp_path, monkeypatch):
    path = tmp_path / "torch_cluster.py"
    path.write_text("fps = 'theirs'\n")
    inner = tmp_path / "extensions"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "other.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget("torch_cluster")
    compat.install()
    assert compat.status()["torch_cluster"] == str(path)
    assert importlib.import_module("torch_cluster").fps == "theirs"
    assert compat.status()["extensions"] == str(inner / "__init__.py")
    assert compat.status()["extensions.chamfer_dist"] == "recon_fast"
    assert importlib.import_module("extensions.other").x == 1
    assert importlib.import_module("extensions.chamfer_dist").ChamferDistanceL1  # which they do not have
    compat.install("torch_cluster", force=True)
    assert compat.status()["torch_cluster"] == "recon_fast"
    assert importlib.import_module("torch_cluster").fps.__module__ == "recon_fast.compat.torch_cluster"
    compat.uninstall()
    assert importlib.import_module("torch_cluster").fps == "theirs"


def test_a_folder_of_sources_is_no_package(tmp_path, monkeypatch):
    for name in ("chamfer", "extensions"):
        (tmp_path / name).mkdir()
    (tmp_path / "chamfer" / "chamfer.cu").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    compat.install()
    assert importlib.import_module("chamfer").forward
    assert compat.status()["extensions"] == str(tmp_path / "extensions")
    assert importlib.import_module("extensions.chamfer_dist").ChamferFunction
