"""From any ONNX segmentation network to an artifact: rewritten once into the house form, and proven equal to its original."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.artifact import Artifact, refuse_existing, write_artifact
from edge_latup.errors import ArtifactError, SpecError
from edge_latup.export.foreign_chain import merge
from edge_latup.export.foreign_check import check_free, check_input, check_output_name
from edge_latup.export.foreign_graph import to_house
from edge_latup.export.foreign_model import Foreign, read_foreign
from edge_latup.export.foreign_run import activated, check_output, run_original, to_foreign
from edge_latup.export.foreign_spec import ForeignSpec, read_foreign_spec
from edge_latup.manifest import Manifest, Parity, RuntimeName, Step
from edge_latup.runtimes import open_session
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE, prove
from edge_latup.versions import versions_of

PACKAGES: Final = ("onnx", "onnxruntime", "openvino", "edge-latup")
Reference = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""What a network computes where it came from, in its own layout: float32 batch in, float32 output out."""
Proof = tuple[NDArray[np.float32], NDArray[np.float32]]
"""An input (1, C, D, H, W) and the output (1, K, D, H, W) that it must give."""
RANDOM_INPUT: Final = "standard normal values, seed 0"
UNCHECKED: Final = (
    "No file tells the order of its modalities, axes of equal size, the normalisation, or what each channel means: "
    "segment a labelled case and compare"
)


def import_onnx(models: Sequence[Path], spec_path: Path, out: Path, *, dynamic: bool = False, overwrite: bool = False) -> Artifact:
    """Import an ONNX network, or a chain of region networks, as an artifact that the whole road takes.

    The graph is rewritten into the house form; on random input it must give what the untouched file gives in ONNX Runtime, fed in its
    own layout. A runtime besides ONNX Runtime that cannot run it, or computes something else, is left out and the recipe says why.

    Args:
        models: ONNX files; several are a chain, one for each region.
        spec_path: spec.toml.
        out: artifact folder to make.
        dynamic: leave free the sizes that are free in the file; parity is proven at the spec's size and at a larger one.
        overwrite: replace an existing artifact.

    Raises:
        SpecError: the spec is not valid.
        ArtifactError: a file is no ONNX that can be imported, or the spec does not say what is in it. Nothing is left behind.
    """
    refuse_existing(out, overwrite)
    return import_foreign(models, read_foreign_spec(spec_path), out, dynamic=dynamic, overwrite=overwrite)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an ONNX file came from that was made for the import alone. told: for the recipe; reference: what it must compute."""

    told: Mapping[str, Any]
    reference: Reference


def import_foreign(
    models: Sequence[Path], spec: ForeignSpec, out: Path, *, dynamic: bool = False, overwrite: bool = False, origin: Origin | None = None
) -> Artifact:  # fmt: skip
    """`import_onnx` with a spec that was read or made already; with `origin`, parity is proven against the network it came from.

    Raises:
        SpecError, ArtifactError: see `import_onnx`.
    """
    refuse_existing(out, overwrite)
    if len(models) != len(spec.imports):
        raise SpecError(
            f"{spec.path} has {len(spec.imports)} [import] tables for {len(models)} ONNX files", "a chain has one [[import]] for each file"
        )
    chain = [Foreign(model=read_foreign(path), spec=spec, nth=nth) for nth, path in enumerate(models)]
    outputs = [check_output_name(foreign).name for foreign in chain]
    for foreign in chain:
        found = check_input(foreign, foreign.model.inputs)
        if dynamic:
            check_free(foreign, found)
    proofs = [_proof(chain, outputs, origin)]
    if dynamic:
        proofs.append(_proof_of_another_size(chain, outputs))
    proto = merge([to_house(foreign, name, dynamic=dynamic) for foreign, name in zip(chain, outputs, strict=True)])
    manifest = _manifest(out.name, spec, chain, outputs, {"dynamic": dynamic, **({} if origin is None else origin.told)})
    original = "original onnxruntime fp32" if origin is None else "original pytorch fp32"

    def write_model(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(proto.SerializeToString())

    return write_artifact(out, manifest, write_model, examine=lambda draft: _prove(draft, proofs, original), overwrite=overwrite)


def random_batch(spec: ForeignSpec) -> NDArray[np.float32]:
    """The same standard normal values every time, float32 (1, C, D, H, W): no two axes or channels look alike."""
    return np.random.default_rng(0).standard_normal(spec.model.input_shape, dtype=np.float32)


def _proof(chain: Sequence[Foreign], outputs: Sequence[str], origin: Origin | None = None) -> Proof:
    """A random input and the probabilities (1, K, D, H, W) that the untouched files, or the network of the origin, give for it."""
    batch = random_batch(chain[0].spec)
    found = [check_output(foreign, name, run_original(foreign, name, batch)) for foreign, name in zip(chain, outputs, strict=True)]
    if origin is not None:
        how = chain[0].how
        found = [check_output(chain[0], outputs[0], origin.reference(to_foreign(batch, how)))]
    expected = [activated(values, foreign.how) for values, foreign in zip(found, chain, strict=True)]
    return batch, np.concatenate(expected, axis=1)


def _proof_of_another_size(chain: Sequence[Foreign], outputs: Sequence[str]) -> Proof:
    """The same one divisor larger along each axis: sizes that a file calls free may still be written into its graph.

    Raises:
        ArtifactError: the file does not run there.
    """
    spec = chain[0].spec
    size = tuple(side + spec.model.divisor for side in spec.model.spatial.size)
    model = spec.model.model_copy(update={"spatial": spec.model.spatial.model_copy(update={"size": size})})
    larger = dataclasses.replace(spec, model=model)
    try:
        return _proof([dataclasses.replace(foreign, spec=larger) for foreign in chain], outputs)
    except ArtifactError as error:
        hint = f"leave out --dynamic, or {spec.change('divisor', str(2 * spec.model.divisor))}"
        raise ArtifactError(f"sizes are not free in multiples of {spec.model.divisor}: {error.message}", hint) from error


def _prove(draft: Artifact, proofs: Sequence[Proof], original: str) -> Manifest:
    """Parity in ONNX Runtime, which must hold, and in OpenVINO, without which the artifact is for ONNX Runtime alone."""
    proven, left_out = _parities(draft, "onnxruntime", EXPORT_TOLERANCE, proofs, original), {}
    runtimes: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
    try:
        proven += _parities(draft, "openvino", RUNTIME_TOLERANCE, proofs, original)
    except ArtifactError as error:
        runtimes, left_out = ("onnxruntime",), {"openvino": error.message.replace(str(draft.folder), draft.manifest.name)}
    step = draft.manifest.recipe[0]
    told = step.model_copy(update={"parameters": {**step.parameters, "left_out_runtimes": left_out}})
    return draft.manifest.model_copy(update={"parity": tuple(proven), "runtimes": runtimes, "recipe": (told,)})


def _parities(draft: Artifact, runtime: RuntimeName, tolerance: dict[str, float], proofs: Sequence[Proof], original: str) -> list[Parity]:
    names, regions = (original, f"{runtime} fp32"), draft.manifest.spec.regions is not None
    with open_session(draft, runtime) as session:
        found = [
            prove(expected, session.infer(batch), names, tolerance, input_shape=batch.shape, regions=regions) for batch, expected in proofs
        ]
    return [parity.model_copy(update={"input": RANDOM_INPUT}) for parity in found]


def _manifest(name: str, spec: ForeignSpec, chain: Sequence[Foreign], outputs: Sequence[str], told: Mapping[str, Any]) -> Manifest:
    step = Step(
        operation="import",
        parameters={"networks": [_told(foreign, output) for foreign, output in zip(chain, outputs, strict=True)], **told},
        versions=versions_of(*PACKAGES),
    )
    shape = spec.model.input_shape
    return Manifest(
        name=name, spec=spec.model, format="onnx", runtimes=("openvino", "onnxruntime"), precision="fp32", storage="float32",
        input_shape=(*shape[:2], -1, -1, -1) if told["dynamic"] else shape, recipe=(step,),
    )  # fmt: skip


def _told(foreign: Foreign, output: str) -> dict[str, Any]:
    """What the recipe keeps of one file."""
    return {
        "file": foreign.path.name,
        "sha256": foreign.model.sha256,
        "opset": foreign.model.opset,
        "output": output,
        "dropped_outputs": [other.name for other in foreign.model.outputs if other.name != output],
        **foreign.how.model_dump(mode="json", exclude={"output"}),
    }
