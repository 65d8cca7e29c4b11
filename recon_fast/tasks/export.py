"""Encoders and classifiers as files that need no model of this package: torch.export archives and ONNX."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import recon_fast
from recon_fast.config import ExportConfig
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.errors import InputError, first_line
from recon_fast.files import whole_file
from recon_fast.models import Classifier
from recon_fast.tasks.embed import PointEncoder, describe_encoder, load

METADATA = "recon-fast.json"  # in a .pt2 archive; "recon-fast" among the metadata of an ONNX file
TOLERANCE = 1e-4  # of what a file gives, relative to the largest number


class Program(nn.Module):
    """Raw clouds to features or logits: what `PointEncoder.embed` does, as one graph.

    Args:
        encoder: its model is left with what the output needs.
        kind: of the features, as of `embed`; "logits" for a classifier.
    """

    def __init__(self, encoder: PointEncoder, kind: str) -> None:
        super().__init__()
        model, self.num_points = encoder.model, encoder.usual_points
        self.head: Callable = encoder.head("classification" if kind == "logits" else kind)
        needed = {"encoder", "contrast_encoder"} | ({"head"} if kind == "logits" else set())
        needed |= {"img_proj", "text_proj"} if kind.startswith("zeroshot") else set()
        for name, _ in list(model.named_children()):
            if name not in needed:
                setattr(model, name, None)
        self.model: Any = model
        self.logits = kind == "logits"

    def forward(self, points: Tensor) -> Tensor:
        """points [B, N, 3], float32, of any scale -> [B, D]."""
        points = unit_sphere(points.double()).float()
        count, skip = torch.sym_min(points.shape[1], self.num_points), self.model.config.skip_near_origin
        # Not the public function, whose check of `count` torch.export takes for a limit on N.
        idx = torch.ops.recon_fast.farthest_point_sample(points, count, None, 0, skip)
        points = points.gather(1, idx[..., None].expand(-1, -1, 3))
        feature = self.head(self.model.encode(points))
        return self.model.head(feature) if self.logits else feature


def export(checkpoint: str | Path, out: str | Path, config: ExportConfig | None = None) -> list[Path]:
    """Write a checkpoint as a program of points [B, N, 3], float32, to features or logits [B, D], float32.

    Clouds are centred, scaled and sampled within, as `recon_fast.load(checkpoint).embed` does. B is any, N at
    least the number of groups and that of a group's points.

    Args:
        checkpoint: as of `recon_fast.load`.
        out: a file .pt2, for torch.export.load where recon_fast.kernels is imported; a file .onnx, of
            standard operators; or a name without a suffix, for both.
        config: what it gives, sizes that the checkpoint does not state, and whether to replace what is there.

    Returns:
        The files, each of which was read again and gave what the model gives, to 1e-4.

    Raises:
        InputError: as `load` and `embed`; a missing package; an output that exists, cannot be written or
            gives something else. No file is left then.
    """
    config, out = config or ExportConfig(), Path(out).expanduser()
    if out.suffix not in ("", *_WRITERS):
        raise InputError(f"out must be a file {' or '.join(_WRITERS)}, or a name without suffix, got {out}")
    if not out.parent.is_dir():
        raise InputError(f"out must lie in a folder that exists, got {out}")
    files = [out] if out.suffix else [out.with_suffix(suffix) for suffix in _WRITERS]
    for file in files:
        if file.exists() and not config.overwrite:
            raise InputError(f"out must not exist yet (or give --overwrite true), got {file}")
        missing = [name for name in _WRITERS[file.suffix][1] if find_spec(name) is None]
        if missing:
            raise InputError(f"{file.suffix} needs {missing[0]}: pip install 'recon-fast[export]'")
    sizes = {name: getattr(config, name) for name in ("num_heads", "num_group", "group_size")}
    encoder = load(checkpoint, "cpu", "fp32", **sizes)
    logits = isinstance(encoder.model, Classifier) and encoder.model.num_classes > 0
    kind = config.kind or ("logits" if logits else "svm")
    program = Program(encoder, kind).eval().requires_grad_(False)
    generator, usual = torch.Generator().manual_seed(0), encoder.usual_points
    few = torch.randn(1, usual, 3, generator=generator)  # is taken as it is
    many = torch.randn(2, usual * 5 // 4, 3, generator=generator)  # is sampled
    clouds = {"points": {0: Dim("batch"), 1: Dim("points", min=encoder.least_points)}}
    exported = torch.export.export(program, (many,), dynamic_shapes=clouds)
    for graph in exported.graph_module.modules():  # blocks without autocast are graphs of their own
        for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names this machine's folders
    metadata = json.dumps(_describe(encoder, kind, program(few).shape[1]))
    with ExitStack() as stack:
        for file in files:
            write, _ = _WRITERS[file.suffix]
            try:
                run = write(exported, many, stack.enter_context(whole_file(file)), metadata)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
                raise InputError(f"{file} cannot be written: {first_line(error)}") from error
            for points in (few, many):
                want, got = program(points), run(points)
                off = float((want - got).abs().max() / want.abs().max())
                if not off <= TOLERANCE:
                    raise InputError(f"{file} must give what the model gives, got {off:.2g} beside it")
    return files


def _describe(encoder: PointEncoder, kind: str, dim: int) -> dict[str, Any]:
    return {
        **describe_encoder(encoder),
        "output": kind,
        "dim": dim,
        "class_names": encoder.model.task.get("class_names") if kind == "logits" else None,
        "least_points": encoder.least_points,
        "num_points": encoder.usual_points,
        "up": encoder.conventions.get("up"),
        "versions": {"recon_fast": recon_fast.__version__, "torch": torch.__version__},
    }


def _write_torch(exported: ExportedProgram, _points: Tensor, file: Path, metadata: str) -> Callable:
    with file.open("wb") as stream:
        torch.export.save(exported, stream, extra_files={METADATA: metadata})
    with file.open("rb") as stream:
        return torch.export.load(stream).module()


def _write_onnx(exported: ExportedProgram, points: Tensor, file: Path, metadata: str) -> Callable:
    import onnx
    import onnxruntime

    from recon_fast.tasks.onnx_operators import translations

    program = torch.onnx.export(
        exported, (points,), dynamo=True, verbose=False, input_names=["points"], output_names=["output"],
        dynamic_shapes={"points": {0: "batch", 1: "points"}}, custom_translation_table=translations(),
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"recon-fast": metadata})
    file.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda points: torch.from_numpy(session.run(None, {"points": points.numpy()})[0])


# By suffix: what writes a file and gives back what it does, and the packages that are needed.
_WRITERS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    ".pt2": (_write_torch, ()),
    ".onnx": (_write_onnx, ("onnx", "onnxscript", "onnxruntime")),
}
