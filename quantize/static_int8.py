"""Static INT8: one quantizer per runtime, because a file made for one runs no INT8 kernel in the other."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.quantize.calibration import Calibration
from edge_latup.records import write_text

if TYPE_CHECKING:
    import openvino as ov

ORT_OPERATIONS: Final = ("Conv",)
"""ONNX Runtime has no INT8 ConvTranspose, and Q/DQ around anything else here only costs time."""


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def save_ir(model: ov.Model, folder: Path) -> None:
    """Write model.xml and model.bin with float16 scales and biases, and no white space in the XML (a tenth of the INT8 file)."""
    import openvino as ov

    ov.save_model(model, folder / "model.xml", compress_to_fp16=True)
    path = folder / "model.xml"
    write_text(re.sub(r">\s+<", "><", path.read_text(encoding="utf-8")), path)


def openvino_int8(source: Path, folder: Path, calibration: Calibration, options: dict[str, Any]) -> None:
    """Post-training quantization by NNCF on the OpenVINO graph: symmetric weights per channel, min-max activations."""
    with _quiet("nncf"):
        import nncf
        import openvino as ov

        # convert_model folds the shape arithmetic that read_model keeps: half the operations, and a smaller file.
        model = ov.convert_model(source)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(calibration.inputs)),
            subset_size=len(calibration.inputs),
            preset=nncf.QuantizationPreset(options["preset"]),
            target_device=nncf.TargetDevice.CPU,
            fast_bias_correction=True,
        )
    save_ir(quantized, folder)


class _Reader:
    """Feeds calibration inputs to ONNX Runtime's quantizer."""

    def __init__(self, name: str, calibration: Calibration) -> None:
        self._feeds = iter([{name: batch} for batch in calibration.inputs])

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        return next(self._feeds, None)


def onnxruntime_int8(source: Path, folder: Path, calibration: Calibration) -> None:
    """ONNX Runtime's own static quantization: QDQ, uint8 activations, int8 weights per channel, convolutions only."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    name = onnx.load(prepared, load_external_data=False).graph.input[0].name
    quantize_static(
        str(prepared),
        str(folder / "model.onnx"),
        _Reader(name, calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(ORT_OPERATIONS),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    prepared.unlink()


def onnxruntime_dynamic(source: Path, folder: Path) -> None:
    """ONNX Runtime's dynamic quantization (ConvInteger, MatMulInteger): small, and slower than FP32 for 3-D convolutions."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet("root"):
        quantize_dynamic(str(source), str(folder / "model.onnx"), weight_type=QuantType.QUInt8)
