"""Small cases of every operator, to compare a backend's kernels with plain PyTorch on a device.

`failure` decides whether "auto" trusts the Triton kernels of an operator on a GPU: it runs the operator's
cases once per GPU, kernel sources and versions of torch and Triton, and remembers on disk what passed.
"""

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recon_fast.kernels import reference


class Case(NamedTuple):
    """A call of a backend's function, and the plain PyTorch function that gives what is right."""

    function: str
    expected: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    tolerance: float = 0.0  # of a float relative to the largest one; 0: every bit is the same


def _cloud(size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """[3, size, 3], away from the origin, every fourth point a copy of another."""
    cloud = torch.randn(3, size, 3, generator=generator) + 5
    cloud[:, 3::4] = cloud[:, 2::4][:, : len(cloud[0, 3::4])]
    return cloud.to(device)


def _lengths(size: int, device: torch.device) -> Tensor:
    """Of an empty, a whole and a shorter cloud."""
    return torch.tensor([0, size, size - size // 3], device=device)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    query, key, value = query.double(), key.double(), value.double()
    scores = ((query * scale) @ key.mT).masked_fill(~mask[:, None, None], float("-inf"))
    return reference.masked_cross_attention(query, key, value, mask, scale=scale), scores.logsumexp(-1)


def _attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    grad, query, key, value = grad.double(), query.double(), key.double(), value.double()
    return reference.masked_cross_attention_backward(grad, query, key, value, mask, scale)


def _fps_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    # One program, and few or many that exchange their farthest points.
    for size, count in ((1000, 300), (20_000, 40), (150_000, 40)):
        xyz, keywords = _cloud(size, generator, device), {"lengths": _lengths(size, device)}
        yield Case(
            "farthest_point_sample",
            reference.farthest_point_sample,
            (xyz, count),
            keywords | {"start_index": 7},
        )


def _knn_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    # A cloud in one tile, and one that is streamed and split.
    for size in (700, 20_000):
        queries, points = _cloud(50, generator, device), _cloud(size, generator, device)
        yield Case("knn", reference.knn, (queries, points, 20), {"lengths": _lengths(size, device)})


def _group_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    xyz, lengths = _cloud(700, generator, device), _lengths(700, device)
    centers = torch.randint(400, (3, 30), generator=generator).to(device)
    yield Case("group", reference.group_around, (xyz, centers, 20, lengths))
    neighbors = reference.group_around(xyz, centers, 20, lengths)[2]
    flow = torch.randn(3, 30, 20, 3, generator=generator).to(device)
    arguments = flow[:, :, 0], flow, centers, neighbors, 700
    yield Case("group_backward", reference.group_backward, arguments, tolerance=1e-5)


def _ball_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    queries, points = _cloud(50, generator, device), _cloud(700, generator, device)
    for padding in ("none", "first"):
        keywords = {"lengths": _lengths(700, device), "padding": padding}
        yield Case("ball_query", reference.ball_query, (queries, points, 0.8, 20), keywords)


def _feature_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    features = torch.randn(2, 40, 300, generator=generator).to(device)
    values = torch.randn(2, 40, 200, generator=generator).to(device)
    idx = torch.randint(-1, 300, (2, 200, 3), generator=generator).to(device)
    weights = torch.rand(2, 200, 3, generator=generator).to(device)
    yield Case("sum_features", reference.sum_features, (features, idx, weights), tolerance=1e-5)
    yield Case("scatter_features", reference.scatter_features, (values, idx, weights, 300), tolerance=1e-5)
    yield Case("match_features", reference.match_features, (values, features, idx), tolerance=1e-5)


def _nearest_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    src, dst = _cloud(300, generator, device), _cloud(5000, generator, device)
    yield Case(
        "nearest_neighbor", reference.nearest_neighbor, (src, dst), {"dst_lengths": _lengths(5000, device)}
    )
    keywords = {"src_lengths": _lengths(300, device).roll(1), "dst_lengths": _lengths(5000, device)}
    yield Case("mutual_nearest", reference.mutual_nearest, (src, dst), keywords)
    idx = torch.randint(-1, 5000, (3, 300, 2), generator=generator).to(device)
    grad = torch.randn(3, 300, 2, generator=generator).to(device)
    yield Case("distance_backward", reference.distance_backward, (grad, src, dst, idx), tolerance=1e-5)


def _chamfer_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    # Pairs in registers, and large ones.
    for size, other in ((32, 32), (300, 1000)):
        clouds = _cloud(size, generator, device), _cloud(other, generator, device)
        lengths = _lengths(size, device).roll(1), _lengths(other, device)
        for norm in ("l1", "l2"):
            yield Case(
                "chamfer_pairs",
                reference.chamfer_pairs,
                (*clouds, *lengths, norm, True, True),
                tolerance=1e-5,
            )


def _attention_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    kinds = [(torch.float32, 1e-5), (torch.float16, 4e-3)]
    if device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        kinds.append((torch.bfloat16, 3e-2))
    for dtype, tolerance in kinds:
        for keys in (26, 200):
            shape = 2, 6, keys, 64
            query, grad = torch.randn(2, 2, 6, 3, 64, generator=generator).to(device, dtype)
            key, value = torch.randn(2, *shape, generator=generator).to(device, dtype)
            mask = (torch.rand(2, keys, generator=generator) < 0.5).to(device)
            inputs = query, key, value, mask, 0.125
            yield Case("masked_cross_attention_forward", _attend, inputs, tolerance=tolerance)
            out, logsumexp = _attend(*inputs)
            arguments = grad, *inputs, out.to(dtype), logsumexp.float(), True
            yield Case(
                "masked_cross_attention_backward", _attend_backward, arguments, tolerance=2 * tolerance
            )


def _pool_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    values = torch.randn(9, 20, 70, generator=generator).to(device)
    yield Case("group_max", reference.group_max, (values,))
    grad = torch.randn(9, 70, generator=generator).to(device)
    x = torch.randn(9, 20, 30, generator=generator).to(device)
    weight = torch.randn(70, 30, generator=generator).to(device)
    arguments = grad, reference.group_max(values)[1], x, weight
    yield Case("linear_max_backward", reference.linear_max_backward, arguments, tolerance=1e-5)


def _edge_cases(device: torch.device, generator: torch.Generator) -> Iterator[Case]:
    idx = torch.randint(-3, 50, (200, 9), generator=generator).to(device)
    yield Case("neighbor_edges", reference.neighbor_edges, (idx,))


CASES: dict[str, Callable[[torch.device, torch.Generator], Iterator[Case]]] = {
    "farthest_point_sample": _fps_cases,
    "knn": _knn_cases,
    "sample_and_group": _group_cases,
    "ball_query": _ball_cases,
    "gather_features": _feature_cases,
    "interpolate_features": _feature_cases,
    "nearest_neighbor": _nearest_cases,
    "chamfer_distance": _chamfer_cases,
    "masked_cross_attention": _attention_cases,
    "linear_max": _pool_cases,
    "neighbor_edges": _edge_cases,
}


def _difference(got: Any, expected: Any, tolerance: float) -> str:
    """How far a result is from what is right; empty where it is as near as the case asks."""
    if isinstance(got, Tensor):
        got, expected = (got,), (expected,)
    for place, (have, want) in enumerate(zip(got, expected, strict=True)):
        name = f"result {place}: " if len(got) > 1 else ""
        if have.shape != want.shape:
            return f"{name}{tuple(have.shape)} instead of {tuple(want.shape)}"
        if not have.is_floating_point() or tolerance == 0:
            wrong = int((have != want).sum())
            if wrong:
                return f"{name}{wrong} of {want.numel()} numbers differ"
            continue
        have, want = have.double(), want.double()
        finite = want.isfinite()
        bound = tolerance * float(want[finite].abs().max()) if bool(finite.any()) else 0.0
        if not torch.equal(have[~finite], want[~finite]):
            return f"{name}another place is not finite"
        error = float((have - want)[finite].abs().max()) if bool(finite.any()) else 0.0
        if not error <= bound:
            return f"{name}off by {error:.2g}, at most {bound:.2g} is rounding"
    return ""


def run_cases(operator: str, device: torch.device, load: Callable[[str], Callable | None]) -> str:
    """What differs from the reference, or the error, of the functions that `load` gives; empty if nothing.

    A function that `load` does not give (None) is passed over.

    Raises:
        torch.OutOfMemoryError: the device has no room for the cases (about 100 MB).
    """
    generator = torch.Generator().manual_seed(0)
    # An operator may be called under autocast; what is compared here states its dtypes.
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for case in CASES[operator](device, generator):
            try:
                function = load(case.function)
                if function is None:
                    continue
                got = function(*case.arguments, **case.keywords)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a compiler's, a driver's, Triton's: whatever stops a kernel
                first = (str(error).strip().splitlines() or [""])[0]
                return f"{type(error).__name__}: {first}"
            expected = case.expected(*case.arguments, **case.keywords)
            if found := _difference(got, expected, case.tolerance):
                return f"{case.function}: {found}"
    return ""


_lock = threading.RLock()
verdicts: dict[tuple[str, torch.device], str] = {}
_warned: set[str] = set()


def failure(operator: str, device: torch.device, load: Callable[[str], Callable | None]) -> str | None:
    """Why the Triton kernels of an operator are not to be used on a GPU; empty if they are right there.

    None where that is not known and this is no moment to find out: a CUDA graph is being captured, or the
    device's memory is full. Each kind of failure is warned of once.
    """
    verdict = verdicts.get((operator, device))
    if verdict is not None:
        return verdict
    if torch.cuda.is_current_stream_capturing():
        return None
    with _lock, torch.cuda.device(device):
        if (operator, device) not in verdicts:
            passed, name = _read_passed(), _fingerprint(operator, device)
            if name in passed:
                verdicts[operator, device] = ""
                return ""
            try:
                verdict = run_cases(operator, device, load)
            except torch.OutOfMemoryError:
                return None
            verdicts[operator, device] = verdict
            if not verdict:
                _remember(passed | {name})
            elif verdict not in _warned:  # a GPU that Triton does not know fails all operators alike
                _warned.add(verdict)
                warnings.warn(
                    f"recon_fast: {operator} is left to plain PyTorch on "
                    f"{torch.cuda.get_device_name(device)}, since its Triton kernel fails there ({verdict}); "
                    "`recon-fast doctor` prints a table for a bug report, RECON_FAST_BACKEND=reference "
                    "keeps Triton out",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return verdicts[operator, device]


def _passed_file() -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache_home) / "recon-fast" / "kernels-passed.json"


@cache
def _sources() -> str:
    folder = Path(__file__).parent
    files = [Path(__file__), *sorted((folder / "triton").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _fingerprint(operator: str, device: torch.device) -> str:
    """The operator, the GPU, and every version that makes its kernels."""
    import triton

    about = torch.cuda.get_device_properties(device)
    gpu = f"{about.name} {about.major}.{about.minor} x{about.multi_processor_count}"
    return f"{operator}, {gpu}, torch {torch.__version__}, triton {triton.__version__}, sources {_sources()}"


def _read_passed() -> set[str]:
    try:
        names = json.loads(_passed_file().read_text())
    except (OSError, ValueError):  # not there yet, or damaged: the cases run again
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _remember(names: set[str]) -> None:
    file = _passed_file()
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(sorted(names), indent=1))
        aside.replace(file)
    except OSError:
        return  # a folder that cannot be written costs a second in every process
