"""Static INT8: one quantizer per runtime, because a file made for one runs no INT8 kernel in the other."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_latup.errors import InputError
from edge_latup.quantize.calibration import Image
from edge_latup.records import write_text
from edge_latup.runtimes.openvino import import_openvino, without_telemetry

if TYPE_CHECKING:
    import openvino as ov

ORT_OPERATIONS: Final = ("Conv",)
"""ONNX Runtime has no INT8 ConvTranspose, and Q/DQ around anything else here only costs time."""


@contextmanager
def _quiet(name: str | None) -> Iterator[None]:
    """Silence a quantizer that logs advice for its own authors and draws progress bars on stdout; None is the root logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def save_ir(model: ov.Model, folder: Path) -> None:
    """Write model.xml and model.bin with float16 scales and biases, and no white space in the XML."""
    import_openvino().save_model(model, folder / "model.xml", compress_to_fp16=True)
    path = folder / "model.xml"
    write_text(re.sub(r">\s+<", "><", path.read_text(encoding="utf-8")), path)


def openvino_int8(source: Path, folder: Path, inputs: Sequence[Image], *, preset: str, keep_float: Sequence[str] = ()) -> None:
    """Post-training quantization by NNCF on the OpenVINO graph: symmetric weights per channel, min-max activations.

    `keep_float` names modules, such as "decoder1", whose operations are left in float.

    Raises:
        InputError: no operation of the graph belongs to one of them.
    """
    ov = import_openvino()
    with _quiet("nncf"), without_telemetry():
        import nncf

        # convert_model folds the shape arithmetic that read_model keeps, so the XML, which is not small beside int8 weights, shrinks.
        model = ov.convert_model(source)
        ignored = [name for module in keep_float for name in _operations_of(model, module)]
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset(preset),
            target_device=nncf.TargetDevice.CPU,
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
        )
    save_ir(quantized, folder)


def _operations_of(model: ov.Model, module: str) -> list[str]:
    """Names of the convolutions of a module or of those inside it."""
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if "Convolution" in node.get_type_name()]
    found = [name for name in names if name.partition("/")[0] == module or name.startswith(f"{module}.")]
    if not found:
        raise InputError(f"no convolution belongs to {module!r}", f"the graph has: {', '.join(name.partition('/')[0] for name in names)}")
    return found


class _Reader:
    """Feeds calibration inputs to ONNX Runtime's quantizer."""

    def __init__(self, name: str, inputs: Sequence[Image]) -> None:
        self._feeds = iter([{name: batch} for batch in inputs])

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        return next(self._feeds, None)


def onnxruntime_int8(source: Path, folder: Path, inputs: Sequence[Image]) -> None:
    """ONNX Runtime's own static quantization: QDQ, uint8 activations, int8 weights per channel, convolutions only."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    with _quiet(None):
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        name = onnx.load(prepared, load_external_data=False).graph.input[0].name
        quantize_static(
            str(prepared),
            str(folder / "model.onnx"),
            _Reader(name, inputs),
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
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source, load_external_data=False)
    # The quantizer transposes the weights of Gemm and then trips over the shapes that the exporter noted for them.
    del model.graph.value_info[:]
    with _quiet(None):
        quantize_dynamic(model, str(folder / "model.onnx"), weight_type=QuantType.QUInt8)
