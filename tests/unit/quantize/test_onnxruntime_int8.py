"""ONNX Runtime's INT8 file carries the ranges that serve every runtime, and runs the kernels that its own calibration led to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import CONVOLUTIONS, Compress

from edge_latup.artifact import Artifact
from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize import onnxruntime_int8 as module
from edge_latup.quantize import operators as choosing
from edge_latup.quantize.calibration import Calibration
from edge_latup.quantize.estimators import PERCENTILE
from edge_latup.quantize.methods import quantize
from edge_latup.quantize.operators import choose_fastest, quantize_fastest_operators
from edge_latup.quantize.prepared import prepare
from edge_latup.quantize.ranges import look, usual
from edge_latup.quantize.surgery.measure import Comparison, Effort
from edge_latup.runtimes import open_session


def ranges_in(path: Path) -> dict[str, tuple[float, float]]:
    """What the QuantizeLinear of each activation covers, by the tensor's name."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            scale, zero = float(stored[node.input[1]]), int(stored[node.input[2]])
            assert stored[node.input[2]].dtype == np.uint8
            found[node.input[0]] = (-zero * scale, (255 - zero) * scale)
    return found


@pytest.mark.parametrize("estimator", [None, PERCENTILE])
def test_the_ranges_in_the_file_are_those_found_for_every_runtime(
    estimator: str | None, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepare(tiny_fp32.model_path, tiny_calibration.inputs, outputs=True) as prepared:
        monkeypatch.setattr("edge_latup.quantize.prepared.look", lambda *_, **__: pytest.fail("looked again"))
        own = prepared.by(estimator or prepared.estimator)
        made = quantize(
            tiny_fp32, "int8", tmp_path / "int8", runtime="onnxruntime", calibration=tiny_calibration, prepared=own
        )  # fmt: skip
        found = ranges_in(made.model_path)
        assert len(found) > CONVOLUTIONS
        for name, (low, high) in found.items():
            expected = own.known[name]
            step = (high - low) / 255
            assert low == pytest.approx(min(expected[0], 0), abs=step)
            assert high == pytest.approx(max(expected[1], 0), abs=step)
    assert made.manifest.recipe[-1].parameters["ranges"] == own.estimator
    assert made.manifest.recipe[-1].parameters["operators"] == "conv"


def test_they_are_those_of_the_tensors_themselves(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    with prepare(tiny_fp32.model_path, tiny_calibration.inputs, equalised=False, outputs=True) as prepared:
        module.onnxruntime_int8(tmp_path, prepared)
    found = ranges_in(tmp_path / "model.onnx")
    expected = usual(look(tiny_fp32.model_path, sorted(found), tiny_calibration.inputs).ranges)
    for name, (low, high) in found.items():
        np.testing.assert_allclose((low, high), (min(expected[name][0], 0), max(expected[name][1], 0)), atol=(high - low) / 255)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def calibrated_by_onnx_runtime(folder: Path, source: Path, images: Any) -> None:
    """What `quantize_static` makes with its own calibrator: the reference for which kernels run."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        feeds = iter([{"image": image} for image in images])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quant_pre_process(str(source), str(folder / "shaped.onnx"), skip_symbolic_shape=True)
    quantize_static(
        str(folder / "shaped.onnx"), str(folder / "model.onnx"), Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"],
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip


def test_the_executed_kernels_are_those_after_its_own_calibration(
    compressed: Compress, tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    ours = compressed("int8", "onnxruntime")
    with prepare(tiny_fp32.model_path, tiny_calibration.inputs) as prepared:
        calibrated_by_onnx_runtime(tmp_path, prepared.path, tiny_calibration.inputs)
    theirs = Artifact(folder=tmp_path, manifest=ours.manifest)

    def executed(artifact: Artifact) -> list[tuple[str, str, str]]:
        with open_session(artifact, "onnxruntime") as session:
            return sorted((kernel.operation, kernel.precision, str(kernel.implementation)) for kernel in session.executed_kernels())

    assert executed(ours) == executed(theirs)
    assert sum(operation == "QLinearConv" for operation, *_ in executed(ours)) == CONVOLUTIONS


def test_what_was_not_foreseen_is_looked_up(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    """All operators: tensors with fewer axes, of attention, are quantized too."""
    for estimator in (None, PERCENTILE):
        made = quantize(
            tiny_fp32, "int8", tmp_path / f"all-{estimator}", runtime="onnxruntime", calibration=tiny_calibration, operators="all",
            estimator=estimator,
        )  # fmt: skip
        assert made.manifest.recipe[-1].parameters["operators"] == "all"
        assert len(ranges_in(made.model_path)) > 60
        assert made.manifest.parity[-1].relative_l2 < 0.6


def test_an_unknown_set_of_operators_is_refused(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="operators 'convs' are not known") as refused:
        quantize(tiny_fp32, "int8", tmp_path / "out", runtime="onnxruntime", calibration=tiny_calibration, operators="convs")
    assert "conv, conv+moves, all" in refused.value.hint
    with pytest.raises(InputError, match="only int8 for ONNX Runtime chooses"):
        quantize(tiny_fp32, "int8", tmp_path / "out", calibration=tiny_calibration, operators="conv")
    assert not (tmp_path / "out").exists()


def comparison(*ratios: float) -> Comparison:
    return Comparison(
        before_ms=(100.0,) * len(ratios), after_ms=tuple(100 * ratio for ratio in ratios), before_peak_bytes=1, after_peak_bytes=1,
        threads=2, difference={"max_abs": 0.0},
    )  # fmt: skip


def test_convolutions_alone_stay_unless_another_set_is_faster_beyond_the_noise() -> None:
    faster, fastest, noisy = comparison(0.9, 0.9, 0.9), comparison(0.8, 0.8, 0.8), comparison(0.5, 0.97, 1.4)
    assert choose_fastest({"conv+moves": noisy, "all": comparison(1.2, 1.2)}, {}).chosen == "conv"
    assert choose_fastest({"conv+moves": faster, "all": noisy}, {}).chosen == "conv+moves"
    assert choose_fastest({"conv+moves": faster, "all": fastest}, {}).chosen == "all"
    assert choose_fastest({}, {"all": "cannot"}).why == "no other set is faster beyond the noise"


def test_the_fastest_set_is_kept_with_its_samples(
    tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[str, str]] = []

    def compare_models(before: Artifact, after: Artifact, *others: Any) -> Comparison:
        timed.append(tuple(one.manifest.recipe[-1].parameters["operators"] for one in (before, after)))  # type: ignore[arg-type]
        return comparison(0.7, 0.7, 0.7)

    real = choosing.quantize

    def without_all(*arguments: Any, **options: Any) -> Artifact:
        if options["operators"] == "all":
            raise ArtifactError("ONNX Runtime cannot quantize all", "")
        return real(*arguments, **options)

    monkeypatch.setattr(choosing, "compare_models", compare_models)
    monkeypatch.setattr(choosing, "quantize", without_all)
    made = quantize_fastest_operators(tiny_fp32, tmp_path / "made", calibration=tiny_calibration)
    assert timed == [("conv", "conv+moves")]
    parameters = made.manifest.recipe[-1].parameters
    assert (made.manifest.name, parameters["operators"], parameters["operator_choice"]["chosen"]) == ("made", "conv+moves", "conv+moves")
    assert parameters["operator_choice"]["measured"]["conv+moves"]["after_ms"] == pytest.approx([70.0] * 3)
    assert parameters["operator_choice"]["failed"] == {"all": "ONNX Runtime cannot quantize all"}


@pytest.mark.slow
def test_operators_are_timed_in_fresh_processes(tiny_fp32: Artifact, tiny_calibration: Calibration, tmp_path: Path) -> None:
    told: list[str] = []
    made = quantize_fastest_operators(
        tiny_fp32, tmp_path / "made", calibration=tiny_calibration, effort=Effort(pairs=2, seconds=0), tell=told.append
    )
    choice = made.manifest.recipe[-1].parameters["operator_choice"]
    assert set(choice["measured"]) | set(choice["failed"]) == {"conv+moves", "all"}
    assert told[-1].startswith(f"operators {choice['chosen']} kept")
