"""From a checkpoint to a one-file ONNX artifact, with parity proven before anything is written."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact, sha256_of, write_artifact
from edge_latup.errors import ArtifactError
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE, parity_input, prove
from edge_latup.manifest import Manifest, RuntimeName, Step
from edge_latup.runtimes import open_session
from edge_latup.spec import ModelSpec, Size
from edge_latup.versions import versions_of

OPSET: Final = 20
PROVEN_IN: Final[dict[RuntimeName, dict[str, float]]] = {"onnxruntime": EXPORT_TOLERANCE, "openvino": RUNTIME_TOLERANCE}
DIVISOR_NAMES: Final = ("depth", "height", "width")


def _dynamic_shapes(divisor: int) -> tuple[dict[int, Any]]:
    """Free spatial sizes, each a multiple of the network's divisor."""
    from torch.export import Dim

    return ({axis: divisor * Dim(f"{name}_blocks", min=2, max=64) for axis, name in enumerate(DIVISOR_NAMES, start=2)},)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of every optional package that is not installed, none of which this network needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _write_onnx(network: Any, path: Path, spec: ModelSpec, shape: tuple[int, ...], dynamic: bool) -> None:
    import torch

    example = torch.zeros(shape)
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), dynamo=True, opset_version=OPSET, external_data=False, input_names=["image"],
            output_names=["probabilities"], dynamic_shapes=_dynamic_shapes(spec.divisor) if dynamic else None, optimize=True, verbose=False,
        )  # fmt: skip


def _slim(path: Path) -> None:
    """Drop what only the exporter needs (stack traces, module paths): it doubles the file of a small network and names local folders."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def reference_output(checkpoint: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The checkpoint's output on `batch` in PyTorch, float32."""
    import torch

    from edge_latup.networks.build import load_checkpoint

    network, _ = load_checkpoint(checkpoint)
    with torch.inference_mode():
        output: NDArray[np.float32] = network(torch.from_numpy(batch)).numpy()
    return output


def export_onnx(checkpoint: Path, out: Path, *, size: Size | None = None, dynamic: bool = False, overwrite: bool = False) -> Artifact:
    """Export a checkpoint folder to `out` and prove parity with PyTorch in ONNX Runtime and in OpenVINO (FP32 pinned).

    Args:
        checkpoint: folder with model.safetensors and spec.json.
        out: artifact folder to make.
        size: spatial size; default the spec's crop.
        dynamic: leave the spatial size free (multiples of the spec's divisor); parity is proven at `size`.
        overwrite: replace an existing artifact.

    Raises:
        SpecError: the checkpoint cannot be loaded.
        ArtifactError: parity is outside its tolerance, or `out` exists. Nothing is left behind.
    """
    from edge_latup.networks.build import WEIGHTS_NAME, load_checkpoint, seen_cases

    network, spec = load_checkpoint(checkpoint)
    size = size or spec.spatial.size
    if bad := [side for side in size if side % spec.divisor or side <= 0]:
        raise ArtifactError(f"size {size}: {bad[0]} is not a multiple of {spec.divisor}", f"choose multiples of {spec.divisor}, such as 128")
    sized = spec.model_copy(update={"spatial": spec.spatial.model_copy(update={"size": size})})
    step = Step(
        operation="export",
        parameters={"checkpoint_sha256": sha256_of(checkpoint / WEIGHTS_NAME), "opset": OPSET, "dynamic": dynamic, "size": list(size)},
        versions=versions_of("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "edge-latup"),
    )
    channels = len(spec.modalities)
    manifest = Manifest(
        name=out.name, spec=sized, format="onnx", runtimes=("openvino", "onnxruntime"), precision="fp32", storage="float32",
        input_shape=(1, channels, -1, -1, -1) if dynamic else (1, channels, *size), recipe=(step,), trained_on=seen_cases(checkpoint),
    )  # fmt: skip
    batch = parity_input(sized, size)
    expected = reference_output(checkpoint, batch)

    def write_model(folder: Path) -> None:
        path = folder / "model.onnx"
        _write_onnx(network, path, sized, (1, channels, *size), dynamic)
        _slim(path)

    def prove_parity(draft: Artifact) -> Manifest:
        parity = []
        for runtime, tolerance in PROVEN_IN.items():
            with open_session(draft, runtime) as session:
                parity.append(prove(expected, session.infer(batch), ("pytorch fp32", f"{runtime} fp32"), tolerance))
        return draft.manifest.model_copy(update={"parity": tuple(parity)})

    return write_artifact(out, manifest, write_model, examine=prove_parity, overwrite=overwrite)


def export_reference(checkpoint: Path, out: Path, *, overwrite: bool = False) -> Artifact:
    """Make the PyTorch reference artifact: the checkpoint's weights with a manifest, so that it is benched like any other."""
    from edge_latup.networks.build import WEIGHTS_NAME, load_checkpoint, seen_cases

    _, spec = load_checkpoint(checkpoint)
    manifest = Manifest(
        name=out.name, spec=spec, format="checkpoint", runtimes=("pytorch",), precision="fp32", storage="float32", input_shape=spec.input_shape,
        trained_on=seen_cases(checkpoint), recipe=(Step(operation="reference", parameters={"checkpoint_sha256": sha256_of(checkpoint / WEIGHTS_NAME)}, versions=versions_of("torch")),),
    )  # fmt: skip
    return write_artifact(out, manifest, lambda folder: _copy(checkpoint / WEIGHTS_NAME, folder), overwrite=overwrite)


def _copy(source: Path, folder: Path) -> None:
    shutil.copyfile(source, folder / source.name)
