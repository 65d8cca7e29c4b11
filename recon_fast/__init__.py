"""ReCon for point clouds: operators, pretraining and downstream protocols.

Importing this package loads nothing heavy; import `recon_fast.kernels`, `recon_fast.models` and so on as
needed.
"""

__version__ = "0.1.0"
