"""What one convolution reaches on this CPU in each precision: the ceiling of any network made of such convolutions."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge_latup.runtimes.base import usable_cores
from edge_latup.runtimes.openvino import import_openvino, openvino_core

Shape = tuple[int, int, int, int]
SHAPES: Final = ((64, 64, 3, 48), (128, 128, 3, 32), (256, 256, 3, 16), (32, 32, 5, 64))
"""(input channels, output channels, kernel side, volume side) of convolutions that suit the kernels; the best one counts."""
RUNS: Final = 7
WARM_UP: Final = 2


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The best rate of `SHAPES` in one precision. executed: the precision read back from the runtime."""

    precision: str
    executed: str
    gmacs: float
    """10^9 multiply-accumulates a second, median of the runs of the best shape."""
    shape: tuple[int, int, int, int]
    runs: int = RUNS
    threads: int = 0


def quantized(ops: Any, value: Any, low: float) -> Any:
    """A FakeQuantize between `low` and 1: uint8, or where `low` is -1 int8 without -128, so that zero stays zero."""
    bounds = [ops.constant(np.float32(bound)) for bound in (low, 1.0)]
    return ops.fake_quantize(value, *bounds, *bounds, levels=255 if low < 0 else 256)


def _model(shape: tuple[int, int, int, int], *, int8: bool) -> Any:
    """One convolution; with `int8` its input is quantized to 0..1 and its weights to -1..1, as INT8 artifacts declare it."""
    ov = import_openvino()
    import openvino.opset13 as ops

    channels, out, kernel, side = shape
    image = ops.parameter([1, channels, side, side, side], dtype=np.float32, name="image")
    weights = np.random.default_rng(0).uniform(-1, 1, (out, channels, kernel, kernel, kernel)).astype(np.float32)
    first, second = ops.relu(image), ops.constant(weights)
    if int8:
        first, second = quantized(ops, first, 0.0), quantized(ops, second, -1.0)
    pads = [kernel // 2] * 3
    found = ops.convolution(first, second, [1, 1, 1], pads, pads, [1, 1, 1])
    # Quantized at its end too: an output of four bytes a value would be measured as memory, not as arithmetic.
    return ov.Model([quantized(ops, ops.relu(found), 0.0) if int8 else ops.relu(found)], [image], "rate")


def _measure(shape: tuple[int, int, int, int], precision: str, threads: int) -> tuple[float, str]:
    """(GMAC/s, precision that was executed) of one shape."""
    ov = import_openvino()
    kinds = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}
    settings = {"INFERENCE_PRECISION_HINT": kinds[precision], "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    compiled = openvino_core().compile_model(_model(shape, int8=precision == "int8"), "CPU", settings)
    channels, out, kernel, side = shape
    image = np.random.default_rng(1).random((1, channels, side, side, side), dtype=np.float32)
    request, samples = compiled.create_infer_request(), []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        request.infer([image], share_inputs=True)
        samples.append(time.perf_counter() - began)
    operations = compiled.get_runtime_model().get_ordered_ops()
    executed = next(str(node.get_rt_info()["runtimePrecision"].astype(str)) for node in operations if _convolves(node))
    macs = channels * out * kernel**3 * math.pow(side, 3)
    return macs / statistics.median(samples[WARM_UP:]) / 1e9, executed.lower()


def _convolves(node: Any) -> bool:
    return "onvolution" in str(node.get_rt_info()["layerType"].astype(str))


def convolution_rates(precisions: tuple[str, ...], threads: int = 0, *, shapes: tuple[Shape, ...] = ()) -> list[Rate]:
    """The best rate in each of `precisions` ("fp32", "bf16", "int8"), on `threads` threads (0: every core this process may use).

    `shapes` are tried instead of SHAPES where they are given. Seconds, on an idle machine; a busy one gives lower figures.
    """
    rates = []
    for precision in precisions:
        used = threads or usable_cores()
        found = {shape: _measure(shape, precision, used) for shape in shapes or SHAPES}
        best = max(found, key=lambda shape: found[shape][0])
        rates.append(Rate(precision=precision, executed=found[best][1], gmacs=found[best][0], shape=best, threads=used))
    return rates
