"""INT8 in OpenVINO computes what its file says, but for one thread where dense layers read INT8, which is refused.

The reference is the same quantized graph in float arithmetic: OpenVINO with its low-precision kernels switched off.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_latup.artifact import Artifact
from edge_latup.bench.demo import demo_checkpoint
from edge_latup.cases.cohort import write_cohort
from edge_latup.errors import InputError
from edge_latup.export.torch_onnx import export_onnx
from edge_latup.quantize.calibration import make_calibration
from edge_latup.quantize.methods import quantize
from edge_latup.runtimes import open_session
from edge_latup.runtimes.base import SessionOptions
from edge_latup.runtimes.openvino import import_openvino, openvino_core, without_telemetry
from edge_latup.segmentation.parity import parity_input
from edge_latup.targets.host import cpu_flags

SIDE = 48
ANOTHER_CLASS = 0.02
"""Share of voxels that kernels which round elsewhere may decide otherwise; measured 0.002 to 0.009."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("int8")
    list(write_cohort(folder / "cases", cases=1, seed=6, shape=(64, 64, 56)))
    fp32 = export_onnx(demo_checkpoint(), folder / "fp32", size=(SIDE, SIDE, SIDE))
    return quantize(fp32, "int8", folder / "int8", calibration=make_calibration([folder / "cases"], fp32.manifest.spec))


def in_float(model: Path, batch: np.ndarray) -> Any:
    """The quantized graph with every quantization as declared, and every convolution in float32."""
    ov = import_openvino()
    settings = {"INFERENCE_PRECISION_HINT": ov.Type.f32, "LP_TRANSFORMS_MODE": "OFF"}
    return openvino_core().compile_model(str(model), "CPU", settings)([batch])[0]


@pytest.fixture(scope="module")
def dense(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """What NNCF makes of the same network where it is told to leave nothing in float."""
    ov, folder = import_openvino(), tmp_path_factory.mktemp("dense") / "int8"
    shutil.copytree(artifact.folder, folder)
    with without_telemetry():
        import nncf

        model = ov.convert_model(artifact.folder.parent / "fp32" / "model.onnx")
        crop = parity_input(artifact.manifest.spec, (SIDE, SIDE, SIDE))
        ov.save_model(nncf.quantize(model, nncf.Dataset([crop]), subset_size=1), folder / "model.xml", compress_to_fp16=False)
    return replace(artifact, folder=folder)


def another_class(artifact: Artifact, threads: int) -> float:
    """Share of voxels in which INT8 kernels decide otherwise than the file says; the worst of three compilations."""
    batch = parity_input(artifact.manifest.spec, (SIDE, SIDE, SIDE))
    expected = in_float(artifact.model_path, batch).argmax(1)
    ov = import_openvino()
    settings = {"INFERENCE_PRECISION_HINT": ov.Type.f32, "INFERENCE_NUM_THREADS": threads}
    found = [openvino_core().compile_model(str(artifact.model_path), "CPU", settings)([batch])[0] for _ in range(3)]
    return max(float(np.mean(one.argmax(1) != expected)) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_executed_is_what_the_file_says(artifact: Artifact, threads: int) -> None:
    batch = parity_input(artifact.manifest.spec, (SIDE, SIDE, SIDE))
    expected = in_float(artifact.model_path, batch)
    for _ in range(2):
        with open_session(artifact, "openvino", SessionOptions(threads=threads)) as session:
            found = session.infer(batch)
        assert float(np.mean(found.argmax(1) != expected.argmax(1))) <= ANOTHER_CLASS


@pytest.mark.slow
def test_dense_layers_that_read_int8_are_refused_on_one_thread(dense: Artifact) -> None:
    with pytest.raises(InputError, match="with that OpenVINO is wrong on one thread") as caught:
        open_session(dense, "openvino", SessionOptions(threads=1))
    assert "--threads 2" in caught.value.hint


@pytest.mark.slow
def test_they_are_right_on_two_threads(dense: Artifact) -> None:
    assert another_class(dense, 2) <= ANOTHER_CLASS


@pytest.mark.slow
@pytest.mark.skipif("avx512_vnni" not in cpu_flags(), reason="seen on CPUs with AVX-512-VNNI")
def test_they_are_still_wrong_on_one_thread(dense: Artifact) -> None:
    """The reason for the refusal. Should this fail, look whether OpenVINO is mended, and take the refusal out."""
    assert another_class(dense, 1) > 2 * ANOTHER_CLASS
