"""The operators in numba: SIMD loops, index for index equal to `recon_fast.kernels.reference`.

One file per operator; `launch` runs them on as many threads as torch uses, `spatial` holds what they share.
Import a submodule only when its operator runs: numba takes half a second to load.
"""
