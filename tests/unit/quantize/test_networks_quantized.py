"""Attention gates, CBAM, squeeze-and-excitation, batch norms, residual sums and slices as a batch pass safely through every method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_networks import NETWORKS, tiny_spec_of, write_checkpoint_of

from edge_latup.artifact import Artifact
from edge_latup.cases.phantom import make_phantom
from edge_latup.export.cost import cost_of
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.manifest import RuntimeName, SeenCase
from edge_latup.quantize import prepared as prepared_module
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.equalise import equalise, tensors_to_watch
from edge_latup.quantize.methods import METHODS, quantize
from edge_latup.quantize.prepared import prepare
from edge_latup.quantize.ranges import Look, look
from edge_latup.quantize.static_int8 import openvino_int8
from edge_latup.runtimes import open_session
from edge_latup.segmentation import parity

WAYS: list[tuple[str, RuntimeName]] = [
    ("dynamic-range", "openvino"), ("fp16", "onnxruntime"), ("bf16", "openvino"), ("int8", "openvino"), ("int8", "onnxruntime"),
    ("dynamic-int8", "onnxruntime"),
]  # fmt: skip
AGREEMENT = {"dynamic-range": 0.97, "fp16": 0.999, "bf16": 0.95, "int8": 0.8, "dynamic-int8": 0.8}
"""Least share of voxels of the same class. Rounding moves some of an untrained network's, a wrong scale or axis moves most."""

OFTEN = ("attention-resnet-unet R2", "res-unet gate", "res-unet cbam")
"""What is compressed in every run of the tests; the others, and the other methods, in the slow ones."""


@pytest.fixture(scope="module", autouse=True)
def _small_phantom() -> Iterator[None]:
    """Parity is shown on a phantom of the BraTS size, which takes longer to draw than all that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        shape = (40, 36, 32)
        patch.setattr(parity, "BRATS_SHAPE", shape)
        patch.setattr(parity, "make_phantom", lambda seed, index: make_phantom(seed, index, shape=shape))
        parity._parity_input.cache_clear()
        yield
        parity._parity_input.cache_clear()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    folder = tmp_path_factory.mktemp("networks")

    @functools.cache
    def make(name: str) -> Artifact:
        return export_onnx(write_checkpoint_of(name, folder / f"{name}-checkpoint"), folder / name)

    return make


def inputs_of(name: str, count: int = 2) -> tuple[np.ndarray, ...]:
    """Smooth normalised volumes, as images are: noise alone would be averaged away by any convolution."""
    shape, found = tiny_spec_of(name).input_shape, []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = rng.standard_normal((*shape[:2], *(side // 4 for side in shape[2:])), dtype=np.float32)
        fine = coarse.repeat(4, 2).repeat(4, 3).repeat(4, 4)
        found.append(fine + 0.3 * rng.standard_normal(shape, dtype=np.float32))
    return tuple(found)


def decided(name: str, output: np.ndarray) -> np.ndarray:
    return output > 0.5 if tiny_spec_of(name).regions else output.argmax(1)


def _marked(name: str, way: tuple[str, RuntimeName]) -> Any:
    return () if name in OFTEN and way[0] in ("int8", "dynamic-range") else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "method", "runtime"), [pytest.param(name, *way, marks=_marked(name, way)) for name in NETWORKS for way in WAYS]
)
def test_a_compressed_network_decides_as_the_float_one(
    exported: Callable[[str], Artifact], tmp_path: Path, name: str, method: str, runtime: RuntimeName
) -> None:
    fp32, inputs = exported(name), inputs_of(name)
    looked_at = Calibration(inputs=inputs, cases=(SeenCase(name="case", sha256="a" * 64),))
    made = quantize(fp32, method, tmp_path / "made", runtime=runtime, calibration=looked_at if METHODS[method].needs_calibration else None)
    with open_session(fp32, "onnxruntime") as reference, open_session(made, runtime) as candidate:
        expected, found = (session.infer(inputs[0]) for session in (reference, candidate))
    assert np.isfinite(found).all()
    assert len(np.unique(decided(name, expected))) > 1
    assert (decided(name, expected) == decided(name, found)).mean() >= AGREEMENT[method]


def test_the_inputs_are_looked_at_twice_however_many_tensors_were_not_foreseen(
    exported: Callable[[str], Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Residual sums are read by quantizers, and no calibration foresees them all: one pass for all, and none for the next candidate."""
    passes: list[int] = []

    def counted(path: Path, tensors: Sequence[str], *others: Any, **named: Any) -> Look:
        passes.append(len(tensors))
        return look(path, tensors, *others, **named)

    monkeypatch.setattr(prepared_module, "look", counted)
    with prepare(exported("res-unet gate").model_path, inputs_of("res-unet gate")) as prepared:
        openvino_int8(tmp_path, prepared, preset="mixed")
        assert len(passes) == 2
        assert passes[1] > 1
        openvino_int8(tmp_path, prepared, preset="mixed", keep_float=["output"])
    assert len(passes) == 2


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in NETWORKS])
def test_equalising_changes_no_network(exported: Callable[[str], Artifact], name: str) -> None:
    import onnxruntime as ort

    path, inputs = exported(name).model_path, inputs_of(name)
    model = onnx.load(path)
    peaks = {tensor: np.abs(ends).max(axis=(0, 1)) for tensor, ends in look(path, tensors_to_watch(model), inputs).ranges.items()}
    changed = equalise(model, peaks)
    assert changed, "a network in which no channel can be equalised would show nothing"
    onnx.checker.check_model(model, full_check=True)

    def run(graph: bytes) -> np.ndarray:
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs[1]})[0])

    np.testing.assert_allclose(run(model.SerializeToString()), run(path.read_bytes()), atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norms_are_folded_at_export(exported: Callable[[str], Artifact], name: str) -> None:
    """The exporter folds each into the convolution before it; none is left that integer convolutions would have to wait for."""
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(exported(name).model_path).graph.node]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_costs_what_the_modules_cost(exported: Callable[[str], Artifact], name: str) -> None:
    """Convolutions and dense layers; batch norms are part of the convolutions by then."""
    fp32 = exported(name)
    graph, modules = cost_of(fp32.folder), cost_of(fp32.folder.with_name(f"{name}-checkpoint"))
    assert graph.macs == modules.macs
    assert graph.convolution_macs == modules.convolution_macs
