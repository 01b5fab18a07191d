"""ONNX Runtime's static INT8: its quantizer places Q/DQ for its own kernels, the ranges are those that serve every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize.prepared import Prepared
from edge_latup.quantize.static_int8 import quiet

if TYPE_CHECKING:
    from edge_latup.quantize.ranges import Ranges

CONVOLUTIONS_ONLY: Final = "conv"
OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    CONVOLUTIONS_ONLY: ("Conv",),
    "conv+moves": ("Conv", "Concat", "MaxPool", "Resize"),
    "all": (),
}
"""Operations whose inputs and outputs are quantized: convolutions; also what only moves values between them; all that ONNX Runtime's
quantizer knows (its default). It has no INT8 ConvTranspose."""


def check_operators(name: str) -> None:
    """Refuse an unknown set of operators.

    Raises:
        InputError: it is none of `OPERATORS`.
    """
    if name not in OPERATORS:
        raise InputError(f"operators {name!r} are not known", f"choose one of: {', '.join(OPERATORS)}")


def onnxruntime_int8(folder: Path, prepared: Prepared, *, operators: str = CONVOLUTIONS_ONLY) -> None:
    """QDQ with uint8 activations and int8 weights per channel; `operators` is one of `OPERATORS`.

    Raises:
        InputError: there is no such set, or calibration met NaN.
        ArtifactError: ONNX Runtime's quantizer cannot quantize them in this graph.
    """
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.shape_inference import quant_pre_process

    check_operators(operators)
    kinds, shaped = _kinds(operators), folder / "shaped.onnx"
    with quiet(None):
        quant_pre_process(str(prepared.path), str(shaped), skip_symbolic_shape=True)
        ranges = prepared.ranges_of(_calibrated(shaped, kinds), inside=shaped)
        try:
            quantizer = QDQQuantizer(
                onnx.load(shaped, load_external_data=False), True, False, QuantType.QInt8, QuantType.QUInt8, _data(ranges), [], [],
                list(kinds), {},
            )  # fmt: skip
            quantizer.quantize_model()
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ArtifactError(f"ONNX Runtime cannot quantize {operators}: {error}", "choose --operators conv") from error
        quantizer.model.save_model_to_file(str(folder / "model.onnx"), False)
    shaped.unlink()


def _kinds(operators: str) -> Sequence[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return OPERATORS[operators] or sorted({*QLinearOpsRegistry, *QDQRegistry})


def _calibrated(path: Path, kinds: Sequence[str]) -> list[str]:
    """The tensors whose ranges ONNX Runtime's quantizer asks for: what it would calibrate itself."""
    from onnxruntime.quantization import CalibraterBase

    calibrater = CalibraterBase(path, kinds)
    tensors, _ = calibrater.select_tensors_to_calibrate(calibrater.model)
    return sorted(tensors)


def _data(ranges: Ranges) -> Any:
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData

    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, data)
