"""INT8 of a network that is known by name: what the demo adds, and what a command without it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_latup.artifact import Artifact
from edge_latup.quantize.advice import advice, int8_options
from edge_latup.quantize.methods import options_of
from edge_latup.quantize.recipes import METHODS


def test_what_is_advised_can_be_given(tiny_fp32: Artifact) -> None:
    options = int8_options(tiny_fp32)
    for runtime in ("openvino", "tensorrt"):
        options_of(METHODS["int8"].recipes[runtime], options["keep_float"], None, None)


@pytest.mark.parametrize(
    ("keep", "estimator", "told"),
    [
        ((), None, "--keep-float encoder1.embedding --keep-float output --ranges mse"),
        (("output",), "kl", "--keep-float encoder1.embedding"),
        (("decoder1", "encoder1.embedding", "output"), None, "--ranges mse"),
        (("decoder1", "encoder1.embedding", "output"), "mse", None),
    ],
)
def test_what_is_missing_is_told(tiny_fp32: Artifact, keep: tuple[str, ...], estimator: str | None, told: str | None) -> None:
    found = advice(tiny_fp32, "int8", "openvino", keep, estimator)
    assert found is None if told is None else f"with {told}, " in str(found)


def test_nothing_is_told_where_there_is_nothing_to_say(tiny_fp32: Artifact) -> None:
    assert advice(tiny_fp32, "fp16", "openvino", ()) is None
    assert advice(tiny_fp32, "int8", "onnxruntime", ()) is None
    unknown = replace(
        tiny_fp32, manifest=tiny_fp32.manifest.model_copy(update={"spec": tiny_fp32.manifest.spec.model_copy(update={"network": None})})
    )
    assert advice(unknown, "int8", "openvino", ()) is None
