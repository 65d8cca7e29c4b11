"""Other packages' point-cloud operators under their own names, on the kernels of this package.

    import recon_fast.compat
    recon_fast.compat.install()
    from pointnet2_ops.pointnet2_utils import furthest_point_sample  # no compiler, GPU and CPU

`docs/drop-in.md` lists the names and the differences. What is really installed is left alone.
"""

from recon_fast.compat.finder import PACKAGES, install, status, uninstall

__all__ = ["PACKAGES", "install", "status", "uninstall"]
