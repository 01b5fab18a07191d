"""Static INT8: one quantizer per runtime, because a file made for one runs no INT8 kernel in the other."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_latup.errors import ArtifactError, InputError
from edge_latup.quantize.calibration import Image
from edge_latup.quantize.estimators import COUNTING, estimated
from edge_latup.quantize.grids import zero_aligned
from edge_latup.quantize.histograms import histogram_of
from edge_latup.quantize.paired_taps import pair_taps
from edge_latup.quantize.prepared import Prepared
from edge_latup.quantize.ranges import ChannelRanges
from edge_latup.quantize.weights import SMALLEST, quantize_per_channel, round_keeping_sums
from edge_latup.records import write_text
from edge_latup.runtimes.openvino import import_openvino, openvino_core, without_telemetry
from edge_latup.runtimes.openvino_graph import WITHOUT_BIASES

if TYPE_CHECKING:
    import openvino as ov

LEFT_FLOAT: Final = ("MatMul", "MVN", "ReduceMean", "Multiply")
"""What NNCF would quantize beside convolutions: dense layers, norms, and the means and gates of squeeze-and-excitation."""
MOVING: Final = ("Interpolate", "MaxPool", "Concat", "Reshape", "Transpose", "Pad", "StridedSlice")
"""What hands 8-bit values on."""
OUTPUT_AXES: Final = {"Convolution": 0, "ConvolutionBackpropData": 1}
PLACING_SIZE: Final = 64


@contextmanager
def quiet(name: str | None) -> Iterator[None]:
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


def openvino_int8(
    folder: Path, prepared: Prepared, *, preset: str, keep_float: Sequence[str] = (), paired: bool = False
) -> None:  # fmt: skip
    """Post-training quantization on the OpenVINO graph: NNCF places the quantizers, `prepared` has the ranges.

    Weights are symmetric per channel. Only what convolutions read is quantized: of squeeze-and-excitation and of norms' inputs,
    8 bits change means over millions of voxels, and save next to no time. `keep_float` names modules, such as "decoder1", whose
    convolutions compute in float; their weights are stored in 8 bits like the others. `paired` is for CPUs with AMX: see `pair_taps`.

    Raises:
        InputError: no operation of the graph belongs to one of them.
    """
    ov = import_openvino()
    # convert_model folds the shape arithmetic that read_model keeps, so the XML, which is not small beside int8 weights, shrinks.
    model = ov.convert_model(prepared.path)
    ignored = [name for module in keep_float for name in _operations_of(model, module)]
    plain = model.clone()
    _round_weights(model, ignored)
    quantized = _placed(model, prepared.inputs[0], preset, ignored)
    _set_ranges(quantized, plain, prepared)
    _drop_idle(quantized)
    _store_float_weights_small(quantized)
    if paired:
        pair_taps(quantized)
    save_ir(quantized, folder)


def _float_weights(model: ov.Model) -> Iterator[tuple[Any, int, NDArray[np.float32]]]:
    """Each convolution that reads a plain constant, with the axis of its output channels and the weights."""
    for node in model.get_ordered_ops():
        axis = OUTPUT_AXES.get(node.get_type_name())
        if axis is not None and node.input_value(1).get_node().get_type_name() == "Constant":
            yield node, axis, node.input_value(1).get_node().get_data()


def _store_float_weights_small(model: ov.Model) -> None:
    """Store the weights of convolutions that were left in float as int8 per output channel; their arithmetic stays float.

    As method dynamic-range does, which costs next to no accuracy: what INT8 harms is activations.
    """
    from openvino import opset13 as ops

    for node, axis, weight in _float_weights(model):
        if weight.size < SMALLEST:
            continue
        values, scales = quantize_per_channel(weight, axis)
        shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
        small = ops.multiply(ops.convert(ops.constant(values), "f32"), ops.constant(scales.reshape(shape)))
        node.input(1).replace_source_output(small.output(0))
    model.validate_nodes_and_infer_types()


def _round_weights(model: ov.Model, ignored: Sequence[str]) -> None:
    """Put the weights of convolutions that will be INT8 onto the grid that NNCF is about to use, so that it rounds no more.

    It rounds to nearest; `round_keeping_sums` costs less accuracy.
    """
    from openvino import opset13 as ops

    for node, axis, weight in _float_weights(model):
        if node.get_friendly_name() in ignored:
            continue
        others = tuple(other for other in range(weight.ndim) if other != axis)
        step = np.abs(weight).max(axis=others, keepdims=True) / 127
        step = np.where(step > 0, step, 1).astype(np.float32)
        node.input(1).replace_source_output(ops.constant(round_keeping_sums(weight / step) * step).output(0))


def _placed(model: ov.Model, image: Image, preset: str, ignored: Sequence[str]) -> ov.Model:
    """The model with quantizers where NNCF wants them. Their ranges are of a small crop, so that this takes seconds and little memory."""
    full, size = list(image.shape), [min(PLACING_SIZE, length) for length in image.shape[2:]]
    crop = image[(slice(None), slice(None), *(slice(length) for length in size))]
    if not _reshaped(model, list(crop.shape)):
        crop = image
    with quiet("nncf"), without_telemetry():
        import nncf

        quantized: ov.Model = nncf.quantize(
            model,
            nncf.Dataset([crop]),
            subset_size=1,
            preset=nncf.QuantizationPreset(preset),
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(names=list(ignored), types=list(LEFT_FLOAT), validate=False),
            # Of a small crop it would be another bias; with equalised channels there is next to nothing to correct.
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
        )
    if not _reshaped(quantized, full):
        raise ArtifactError("the quantized graph does not take the full size again", "report this with the model's operators")
    return quantized


def _reshaped(model: ov.Model, shape: list[int]) -> bool:
    """Whether a graph could be given another input size; one with sizes written into it cannot, and is left as it was."""
    before = model.inputs[0].get_partial_shape()
    try:
        model.reshape({0: shape})
    except RuntimeError:
        model.reshape({0: before})
        return False
    return True


def _set_ranges(model: ov.Model, plain: ov.Model, prepared: Prepared) -> None:
    """Give every activation's quantizer the range that calibration found; those that must share one get the widest of theirs."""
    groups: dict[tuple[float, float], list[Any]] = {}
    for node in model.get_ordered_ops():
        # NNCF gives quantizers whose tensors meet in a concat the very same range.
        if _is_activation_quantizer(node):
            groups.setdefault((_limit(node, 1), _limit(node, 2)), []).append(node)
    # Asked for together: what was not foreseen costs one more pass over the inputs, and not one for each.
    prepared.ranges_of([name for members in groups.values() for name in _asked_of(members, prepared)])
    for members in groups.values():
        low, high = _range_of(members, plain, prepared)
        for node in members:
            _set_limits(node, *zero_aligned(low, high))
    model.validate_nodes_and_infer_types()


def _drop_idle(model: ov.Model) -> None:
    """Remove quantizers whose values no integer convolution ends up with: before a layer that is left in float they only round."""
    for node in reversed(model.get_ordered_ops()):
        if _is_activation_quantizer(node) and not any(_reads_integers(port.get_node()) for port in node.output(0).get_target_inputs()):
            for port in list(node.output(0).get_target_inputs()):
                port.replace_source_output(node.input_value(0))
    model.validate_nodes_and_infer_types()


def _is_activation_quantizer(node: Any) -> bool:
    return bool(node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant")


def _reads_integers(node: Any) -> bool:
    """Whether an operation multiplies 8-bit weights, quantizes for one that does, or moves values towards one."""
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return True
    if "Convolution" in kind:
        return bool(node.input_value(1).get_node().get_type_name() != "Constant")
    moves = kind in MOVING
    return moves and any(_reads_integers(port.get_node()) for output in node.outputs() for port in output.get_target_inputs())


def _limit(node: Any, index: int) -> float:
    return float(node.input_value(index).get_node().get_data().min())


def _range_of(quantizers: Sequence[Any], plain: ov.Model, prepared: Prepared) -> tuple[float, float]:
    """The widest range of what some quantizers read; of them, what only moves values has the range of what it moves."""
    if names := _asked_of(quantizers, prepared):
        found = list(prepared.ranges_of(names).values())
    else:
        found = [_range_inside(plain, node.input_value(0).get_node().get_friendly_name(), prepared) for node in quantizers]
    return min(low for low, _ in found), max(high for _, high in found)


def _asked_of(quantizers: Sequence[Any], prepared: Prepared) -> list[str]:
    """Names in ONNX of what some quantizers read, as far as calibration knows their ranges; else the first name, if there is any."""
    names = [name for node in quantizers for name in sorted(node.input_value(0).get_names())]
    return [name for name in names if name in prepared.known] or names[:1]


def _range_inside(plain: ov.Model, name: str, prepared: Prepared) -> tuple[float, float]:
    """The range of an operation's output that has no name in ONNX: a norm without its scale, which went into the next weights."""
    found: ChannelRanges = {name: np.array([[[values.min()], [values.max()]] for values in _seen(plain, name, prepared)], np.float64)}
    histograms = {}
    if prepared.estimator in COUNTING:
        histograms[name] = histogram_of(_seen(plain, name, prepared), float(np.abs(found[name]).max()))
    return estimated(prepared.estimator, found, histograms)[name]


def _seen(plain: ov.Model, name: str, prepared: Prepared) -> Iterator[NDArray[np.float32]]:
    """The values of an operation's output for each calibration input."""
    ov, model = import_openvino(), plain.clone()
    port = next(node.output(0) for node in model.get_ordered_ops() if node.get_friendly_name() == name)
    model.add_outputs([port])
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32})
    for image in prepared.inputs:
        yield compiled([image])[len(compiled.outputs) - 1]


def _set_limits(node: Any, low: float, high: float) -> None:
    from openvino import opset13 as ops

    for index, value in ((1, low), (2, high), (3, low), (4, high)):
        constant = ops.constant(np.full(node.input_value(index).get_node().get_data().shape, value, np.float32))
        node.input(index).replace_source_output(constant.output(0))


def _operations_of(model: ov.Model, module: str) -> list[str]:
    """Names of the convolutions of a module or of those inside it."""
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if "Convolution" in node.get_type_name()]
    found = [name for name in names if f"{name}/".startswith((f"{module}/", f"{module}."))]
    if not found:
        known = (name.removesuffix(WITHOUT_BIASES) for name in names)
        raise InputError(f"no convolution belongs to {module!r}", f"the graph has: {', '.join(known)}")
    return found


def onnxruntime_dynamic(source: Path, folder: Path) -> None:
    """ONNX Runtime's dynamic quantization (ConvInteger, MatMulInteger): small, and slower than FP32 for 3-D convolutions."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source, load_external_data=False)
    # The quantizer transposes the weights of Gemm and then trips over the shapes that the exporter noted for them.
    del model.graph.value_info[:]
    with quiet(None):
        quantize_dynamic(model, str(folder / "model.onnx"), weight_type=QuantType.QUInt8)
