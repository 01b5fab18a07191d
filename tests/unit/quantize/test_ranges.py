"""Ranges found inside the graph are those of the tensors themselves, over every input, which are read one at a time."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from unet_graph import image_of, outputs_of, unet_graph

from edge_latup.errors import InputError
from edge_latup.quantize import ranges as module
from edge_latup.quantize.ranges import Looker, look, widest

BOTH = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
TENSORS = ("image", "skip", "up.y", "normed", "both", "probabilities")


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "unet.onnx"
    onnx.save(unet_graph(8), path)
    return path


@BOTH
@settings(max_examples=5)
@given(st.permutations([0, 1, 2]), st.integers(1, 3))
def test_they_are_the_smallest_and_largest_values_over_the_inputs(runtime: Looker, unet: Path, order: list[int], count: int) -> None:
    images = [image_of(seed=seed) * (seed + 1) for seed in order[:count]]
    found = widest(look(unet, TENSORS, images, runtime=runtime).ranges)
    seen = [outputs_of(onnx.load(unet), image, list(TENSORS)) for image in images]
    for name in TENSORS:
        expected = min(values[name].min() for values in seen), max(values[name].max() for values in seen)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    assert list(found) == list(TENSORS)


@BOTH
def test_inputs_are_read_one_at_a_time_and_let_go(unet: Path, runtime: Looker) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def images() -> Iterator[np.ndarray]:
        for seed in range(4):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 1
            image = image_of(seed=seed)
            alive.append(weakref.ref(image))
            yield image
            del image

    look(unet, ["skip"], images(), runtime=runtime)
    assert len(alive) == 4


PROBE = """
import resource, sys
import numpy as np
from pathlib import Path
from edge_latup.quantize.ranges import look
look(Path(sys.argv[1]), sys.argv[2].split(","), [np.ones((1, 8, 64, 64, 64), np.float32)], runtime=sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@BOTH
def test_memory_does_not_grow_with_the_number_of_tensors(tmp_path: Path, runtime: Looker) -> None:
    """A chain of sixteen tensors of 8 MiB: those that were kept until the end would add up to 128 MiB."""
    names = [f"t{step}" for step in range(17)]
    nodes = [helper.make_node("Sin", [before], [after]) for before, after in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 64, 64, 64]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), tmp_path / "chain.onnx")

    def peak(asked: list[str]) -> int:
        """KiB."""
        command = [sys.executable, "-c", PROBE, tmp_path / "chain.onnx", ",".join(asked), runtime]
        done = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
        return int(done.stdout)

    assert peak(names) - peak(names[-1:]) < 40 * 1024


@BOTH
@pytest.mark.parametrize("most", [1, 300, 10**6])
def test_samples_are_values_on_a_lattice(unet: Path, runtime: Looker, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLED", most)
    images = [image_of(seed=seed) for seed in range(2)]
    found = look(unet, TENSORS, images, runtime=runtime)
    assert set(found.samples) == set(TENSORS)
    seen = [outputs_of(onnx.load(unet), image, list(TENSORS)) for image in images]
    for name in TENSORS:
        step = math.ceil(max(1, seen[0][name].size / most) ** (1 / 3))
        expected = np.concatenate([values[name][0, :, ::step, ::step, ::step].reshape(len(values[name][0]), -1) for values in seen], axis=1)
        np.testing.assert_allclose(found.samples[name], expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_of_a_file_whose_slices_take_no_steps_there_are_ranges_but_no_samples(tmp_path: Path, runtime: Looker) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negated", ends[:1], ends[1:])
    image = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 4)).astype(np.float32)
    for opset in (9, 10):
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), tmp_path / "model.onnx")
        found = look(tmp_path / "model.onnx", ["y"], [image], runtime=runtime)
        np.testing.assert_allclose(widest(found.ranges)["y"], (-image.max(), -image.min()), rtol=1e-6)
        assert set(found.samples) == ({"y"} if opset == 10 else set())


def test_the_file_is_not_changed(unet: Path) -> None:
    before = unet.read_bytes()
    look(unet, ["skip", "skip"], [image_of()])
    assert unet.read_bytes() == before


def test_what_cannot_be_calibrated_is_refused(unet: Path) -> None:
    with pytest.raises(InputError, match="has no tensor 'skipped'"):
        look(unet, ["skipped"], [image_of()])
    with pytest.raises(InputError, match="there are none") as caught:
        look(unet, ["skip"], [])
    assert "--calibration" in caught.value.hint


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_with_tensor_and_input(unet: Path, value: float, runtime: Looker) -> None:
    bad = image_of()
    bad[0, 0, 1, 2, 3] = value
    with pytest.raises(InputError, match="'image' is NaN or infinite for calibration input 2"):
        look(unet, ["image"], [image_of(), bad], runtime=runtime)
