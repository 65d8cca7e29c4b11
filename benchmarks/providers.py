"""Who is measured at what: our kernels, their reference in plain PyTorch, the same compiled, peers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch

from benchmarks.peers import PEERS, Provider, modules_of
from recon_fast import kernels
from recon_fast.kernels import reference, use_backend

OPERATORS = {
    "fps": "farthest_point_sample",
    "knn": "knn",
    "group": "sample_and_group",
    "ball": "ball_query",
    "gather": "gather_features",
    "interpolate": "interpolate_features",
    "chamfer": "chamfer_distance",
    "cross-attention": "masked_cross_attention",
}
OURS = "ours"


@cache
def _compiled(name: str) -> Callable[..., Any]:
    return torch.compile(getattr(reference, name), dynamic=False, fullgraph=True)


def _run_compiled(name: str, *inputs: Any) -> Any:
    return _compiled(name)(*inputs)


def _own(operator: str) -> list[Provider]:
    name = OPERATORS[operator]
    plain = getattr(reference, name)
    return [
        Provider(OURS, operator, getattr(kernels, name), exact=True),
        Provider("reference", operator, plain, exact=True, limit=1e8),
        Provider("compiled reference", operator, partial(_run_compiled, name), limit=1e8, compiles=True),
    ]


def providers(operator: str, kind: str) -> list[Provider]:
    """All that can run an operator here, ours first."""
    every = _own(operator) + [p for p in PEERS if p.operator == operator]
    return [p for p in every if kind in p.kinds and not isinstance(modules_of(p), str)]


def call(provider: Provider, *inputs: Any, **setting: Any) -> Any:
    modules = modules_of(provider)
    assert not isinstance(modules, str), modules
    return provider.run(*modules, *inputs, **setting)


def backend_of(provider: Provider, kind: str) -> AbstractContextManager[None]:
    """What our operators run with while this provider is measured: the kernels, never a silent fallback."""
    return (
        use_backend({"cpu": "cpu", "cuda": "triton"}[kind])
        if provider.name.startswith(OURS)
        else nullcontext()
    )


def roll_call(kind: str) -> list[str]:
    """Two lines: the peers found, and those left out with the reason."""
    here: dict[str, bool] = {}
    for p in PEERS:
        for module in p.modules:
            name = module.split(".")[0]
            if name != "torch":
                here[name] = kind in p.kinds and not isinstance(modules_of(p), str)
    reasons = {p.modules[0].split(".")[0]: modules_of(p) for p in PEERS if isinstance(modules_of(p), str)}
    found = sorted(name for name, found in here.items() if found)
    missing = [f"{name} ({reasons.get(name, f'not for {kind}')})" for name in sorted(here) if not here[name]]
    return [f"peers found: {', '.join(found) or 'none'}", f"peers left out: {', '.join(missing) or 'none'}"]
