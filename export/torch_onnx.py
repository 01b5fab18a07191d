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

from edge_latup.artifact import Artifact, refuse_existing, sha256_of, write_artifact
from edge_latup.errors import ArtifactError
from edge_latup.export.names import name_nodes
from edge_latup.manifest import Manifest, RuntimeName, Step
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE, parity_input, prove
from edge_latup.spec import ModelSpec, Size
from edge_latup.versions import versions_of

OPSET: Final = 20
OLDEST_OPSET: Final = 17
"""The newest that TensorRT 8.5 reads, which is what JetPack 5 has for Xavier boards."""
EXPORTER_OPSET: Final = 18
"""The oldest that PyTorch's exporter writes."""
PROVEN_IN: Final[dict[RuntimeName, dict[str, float]]] = {"onnxruntime": EXPORT_TOLERANCE, "openvino": RUNTIME_TOLERANCE}
PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "edge-latup")
AXES: Final = ("depth", "height", "width")
FREE_BLOCKS: Final = (2, 64)
"""Fewest and most divisors a free axis may hold. torch.export takes a size of 1 for fixed, so the deepest grid keeps two."""


def _dynamic_shapes(divisor: int) -> tuple[dict[int, Any]]:
    """Free spatial sizes, each a multiple of the network's divisor."""
    from torch.export import Dim

    fewest, most = FREE_BLOCKS
    return ({axis: divisor * Dim(f"{name}_blocks", min=fewest, max=most) for axis, name in enumerate(AXES, start=2)},)


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


def _write_onnx(network: Any, path: Path, spec: ModelSpec, dynamic: bool, opset: int = OPSET) -> None:
    import torch

    shapes = _dynamic_shapes(spec.divisor) if dynamic else None
    write_graph(network, torch.zeros(spec.input_shape), path, shapes=shapes, output="probabilities", opset=opset)


def write_graph(
    network: Any, example: Any, path: Path, *, shapes: Any = None, output: str | None = None, opset: int = OPSET
) -> None:  # fmt: skip
    """Trace a module with an example tensor into one ONNX file, whose nodes are called what its modules are."""
    import torch

    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), dynamo=True, opset_version=max(opset, EXPORTER_OPSET), external_data=False, verbose=False,
            input_names=["image"], output_names=None if output is None else [output], optimize=True, dynamic_shapes=shapes,
        )  # fmt: skip
    _slim(path, network, opset)


def _slim(path: Path, network: Any, opset: int) -> None:
    """Name the nodes after their modules, bring the file to its opset, then drop what only the exporter needs.

    That doubles a small file and names local folders.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    name_nodes(model.graph, network)
    model = _lowered(model, opset)
    graph = model.graph
    # A shape noted for a constant is redundant, and wrong as soon as a later tool stores the constant otherwise.
    constants = {tensor.name for tensor in graph.initializer}
    shapes = [value for value in graph.value_info if value.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(shapes)
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _lowered(model: Any, opset: int) -> Any:
    """The model in an older opset than the exporter writes."""
    from onnx import version_converter

    if opset >= EXPORTER_OPSET:
        return model
    for node in model.graph.node:
        # It says nothing where there are axes, has no place in an older opset, and onnx's converter leaves it where it is.
        kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes" or attribute.i]
        del node.attribute[:]
        node.attribute.extend(kept)
    return version_converter.convert_version(model, opset)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds the weights of a checkpoint of this package."""
    from edge_latup.networks.build import WEIGHTS_NAME

    return (folder / WEIGHTS_NAME).is_file()


def checkpoint_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's weights, as the recipe of what was exported from it states it."""
    from edge_latup.networks.build import WEIGHTS_NAME

    return sha256_of(checkpoint / WEIGHTS_NAME)


def refuse_no_checkpoint(folder: Path) -> None:
    """Refuse a folder that cannot be exported because it is no checkpoint, before anything slow comes first.

    Raises:
        SpecError: its spec is missing or damaged.
    """
    from edge_latup.networks.build import read_checkpoint_spec

    read_checkpoint_spec(folder)


def reference_output(checkpoint: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The checkpoint's output on `batch` in PyTorch, float32."""
    import torch

    from edge_latup.networks.build import load_checkpoint

    network, _ = load_checkpoint(checkpoint)
    with torch.inference_mode():
        output: NDArray[np.float32] = network(torch.from_numpy(batch)).numpy()
    return output


def export_onnx(
    checkpoint: Path, out: Path, *, size: Size | None = None, dynamic: bool = False, opset: int = OPSET, origin: Step | None = None,
    overwrite: bool = False,
) -> Artifact:  # fmt: skip
    """Export a checkpoint folder to `out` and prove parity with PyTorch in ONNX Runtime and in OpenVINO (FP32 pinned).

    Args:
        checkpoint: folder with model.safetensors and spec.json.
        out: artifact folder to make.
        size: spatial size; default the spec's crop.
        dynamic: leave the spatial size free (multiples of the spec's divisor); parity is proven at `size`.
        opset: of ONNX, from 17 to 20.
        origin: what the checkpoint was made by, as the recipe's first step.
        overwrite: replace an existing artifact.

    Raises:
        SpecError: the checkpoint cannot be loaded.
        ArtifactError: the network does not take `size`, parity is outside its tolerance, or `out` exists. Nothing is left behind.
    """
    from edge_latup.networks.build import load_checkpoint

    refuse_existing(out, overwrite)
    network, spec = load_checkpoint(checkpoint)
    sized = _sized(spec, size or spec.spatial.size, dynamic)
    manifest = _onnx_manifest(checkpoint, out.name, sized, dynamic, opset)
    if origin is not None:
        manifest = manifest.model_copy(update={"recipe": (origin, *manifest.recipe)})
    batch = parity_input(sized, sized.spatial.size)
    expected = reference_output(checkpoint, batch)

    def write_model(folder: Path) -> None:
        _write_onnx(network, folder / "model.onnx", sized, dynamic, opset)

    def prove_parity(draft: Artifact) -> Manifest:
        parity, regions = [], sized.regions is not None
        for runtime, tolerance in PROVEN_IN.items():
            with open_session(draft, runtime) as session:
                found, names = session.infer(batch), ("pytorch fp32", f"{runtime} fp32")
                parity.append(prove(expected, found, names, tolerance, input_shape=batch.shape, regions=regions))
        return draft.manifest.model_copy(update={"parity": tuple(parity)})

    return write_artifact(out, manifest, write_model, examine=prove_parity, overwrite=overwrite)


def _sized(spec: ModelSpec, size: Size, dynamic: bool) -> ModelSpec:
    """The spec with its crop or window at `size`."""
    if bad := [side for side in size if side <= 0 or side % spec.divisor]:
        raise ArtifactError(
            f"size {size}: {bad[0]} is not a multiple of {spec.divisor}", f"choose multiples of {spec.divisor}, such as 128"
        )
    fewest, most = (blocks * spec.divisor for blocks in FREE_BLOCKS)
    if dynamic and not all(fewest <= side <= most for side in size):
        raise ArtifactError(
            f"size {size}: a free axis holds {fewest} to {most} voxels", "choose a --size in that range, or leave out --dynamic"
        )
    return spec.model_copy(update={"spatial": spec.spatial.model_copy(update={"size": size})})


def _onnx_manifest(checkpoint: Path, name: str, spec: ModelSpec, dynamic: bool, opset: int) -> Manifest:
    from edge_latup.networks.build import seen_cases

    step = Step(
        operation="export",
        parameters={
            "checkpoint_sha256": checkpoint_digest(checkpoint),
            "opset": opset,
            "dynamic": dynamic,
            "size": list(spec.spatial.size),
        },
        versions=versions_of(*PACKAGES),
    )
    return Manifest(
        name=name,
        spec=spec,
        format="onnx",
        runtimes=("openvino", "onnxruntime"),
        precision="fp32",
        storage="float32",
        input_shape=(*spec.input_shape[:2], -1, -1, -1) if dynamic else spec.input_shape,
        recipe=(step,),
        trained_on=seen_cases(checkpoint),
    )


def export_reference(checkpoint: Path, out: Path, *, overwrite: bool = False) -> Artifact:
    """Make the PyTorch reference artifact: the checkpoint's weights with a manifest, so that it is benched like any other.

    Raises:
        SpecError: the checkpoint cannot be loaded.
        ArtifactError: `out` exists.
    """
    from edge_latup.networks.build import WEIGHTS_NAME, load_checkpoint, seen_cases

    _, spec = load_checkpoint(checkpoint)
    weights = checkpoint / WEIGHTS_NAME
    step = Step(operation="reference", parameters={"checkpoint_sha256": sha256_of(weights)}, versions=versions_of("torch"))
    manifest = Manifest(
        name=out.name,
        spec=spec,
        format="checkpoint",
        runtimes=("pytorch",),
        precision="fp32",
        storage="float32",
        input_shape=spec.input_shape,
        recipe=(step,),
        trained_on=seen_cases(checkpoint),
    )

    def copy_weights(folder: Path) -> None:
        shutil.copyfile(weights, folder / WEIGHTS_NAME)

    return write_artifact(out, manifest, copy_weights, overwrite=overwrite)
