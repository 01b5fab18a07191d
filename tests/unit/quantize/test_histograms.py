"""Histograms are numpy's of each whole tensor over all inputs, however the graph is cut, and few tensors exist at once."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from unet_graph import image_of, outputs_of, unet_graph

from edge_latup.artifact import Artifact
from edge_latup.errors import InputError
from edge_latup.quantize.histograms import BINS, count_values, find_histograms, histogram_of
from edge_latup.quantize.prepared import activations
from edge_latup.quantize.ranges import look, widest
from edge_latup.quantize.segments import for_each_tensor, plan_groups, plan_segments

TENSORS = ("both", "image", "skip", "pooled", "up.y", "normed", "last.y")


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("histograms") / "unet.onnx"
    onnx.save(unet_graph(8), path)
    return path


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_groups_hold_every_tensor_once_within_the_budget(sizes: list[int], budget: int) -> None:
    groups = plan_groups(sizes, budget)
    assert [number for group in groups for number in group] == list(range(len(sizes)))
    sums = [sum(sizes[number] for number in group) for group in groups]
    assert all(total <= budget or len(group) == 1 for total, group in zip(sums, groups, strict=True))
    # Greedy: no group could have taken the first of the next.
    assert all(total + sizes[after.start] > budget for total, (_, after) in zip(sums, pairwise(groups), strict=False))


@settings(max_examples=20)
@given(st.sets(st.sampled_from([name for name in TENSORS if name != "image"]), min_size=1), st.integers(1, 80_000))
def test_segments_read_only_what_earlier_ones_carry(wanted: set[str], budget: int) -> None:
    graph = unet_graph(8).graph
    segments = plan_segments(graph, sorted(wanted), dict.fromkeys(wanted, 16_384), budget)
    assert sorted(name for segment in segments for name in segment.wanted) == sorted(wanted)
    handed = {"image"}
    for segment in segments:
        assert segment.reads.keys() <= handed
        handed |= set(segment.outputs)
    read = {name for segment in segments for name in segment.reads}
    assert all(name in read for segment in segments for name in segment.carried)


@pytest.mark.parametrize("budget", [1, 40_000, 10**9])
def test_histograms_are_those_of_the_tensors_of_all_inputs_together(unet: Path, budget: int) -> None:
    images = [image_of(seed=seed) * (seed + 1) for seed in range(3)]
    seen = [outputs_of(onnx.load(unet), image, list(TENSORS)) for image in images]
    whole = {name: np.concatenate([values[name].ravel() for values in seen]) for name in TENSORS}
    bounds = {name: float(np.abs(values).max()) for name, values in whole.items()}
    found = find_histograms(unet, bounds, images, budget=budget)
    assert list(found) == list(TENSORS)
    for name, values in whole.items():
        expected, edges = np.histogram(values, BINS, (-bounds[name], bounds[name]))
        assert found[name].total == values.size
        assert found[name].width == pytest.approx((edges[-1] - edges[0]) / BINS)
        # The network is computed in other pieces: its float32 values may differ in the last digit and cross an edge.
        assert np.abs(np.cumsum(found[name].counts) - np.cumsum(expected)).max() <= 1 + 1e-3 * values.size
        magnitudes, _ = np.histogram(np.abs(values), BINS // 2, (0, bounds[name]))
        assert np.abs(np.cumsum(found[name].magnitudes) - np.cumsum(magnitudes)).max() <= 1 + 1e-3 * values.size
    np.testing.assert_array_equal(found["image"].counts, np.histogram(whole["image"], BINS, (-bounds["image"], bounds["image"]))[0])


def test_each_tensor_is_shown_once_for_every_input_as_it_is(unet: Path) -> None:
    images, shown = [image_of(seed=seed) for seed in range(2)], list[tuple[str, np.ndarray]]()
    for_each_tensor(unet, TENSORS, images, lambda name, values: shown.append((name, values)), budget=1)
    assert sorted(name for name, _ in shown) == sorted(TENSORS * 2)
    for number, image in enumerate(images):
        expected = outputs_of(onnx.load(unet), image, list(TENSORS))
        for name, values in shown[number * len(TENSORS) : (number + 1) * len(TENSORS)]:
            np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_an_exported_network_is_cut_too(tiny_fp32: Artifact) -> None:
    """It computes shapes from constants and its input, which a segment needs beside its tensors."""
    rng = np.random.default_rng(0)
    images = [rng.random((1, 3, 16, 16, 16), dtype=np.float32) for _ in range(2)]
    ends = widest(look(tiny_fp32.model_path, activations(onnx.load(tiny_fp32.model_path).graph), images).ranges)
    found = find_histograms(tiny_fp32.model_path, {name: max(map(abs, range_)) for name, range_ in ends.items()}, images, budget=1)
    for name, (low, high) in ends.items():
        held = np.flatnonzero(found[name].counts)
        edges = np.array([held[0], held[-1] + 1]) * found[name].width - found[name].bound
        np.testing.assert_allclose(edges, (low, high), atol=1.01 * found[name].width)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50), st.sampled_from([1.0, 2.5, 4.0]))
def test_values_beyond_the_bound_are_counted_at_the_ends_and_zeros_by_themselves(values: list[float], bound: float) -> None:
    array = np.array(values, np.float32)
    np.testing.assert_array_equal(count_values(array, bound), np.histogram(np.clip(array, -bound, bound), BINS, (-bound, bound))[0])
    one = histogram_of([array, array], bound)
    assert (one.total, one.zeros) == (2 * array.size, 2 * int((array == 0).sum()))
    points, counts = one.points()
    assert counts.sum() == pytest.approx(one.total - one.zeros)
    inside = np.abs(array) <= bound
    if inside.all():
        assert counts @ points == pytest.approx(2 * array.sum(dtype=np.float64), abs=one.width * array.size)


def test_a_tensor_of_zeros_has_a_histogram(unet: Path) -> None:
    found = find_histograms(unet, {"image": 0.0}, [image_of() * 0])["image"]
    assert found.zeros == found.total == found.counts.max()
    assert found.bound > 0


PROBE = """
import resource, sys
import numpy as np
from pathlib import Path
from edge_latup.quantize.histograms import find_histograms
found = find_histograms(Path(sys.argv[1]), dict.fromkeys(sys.argv[2].split(","), 1.0), [np.ones((1, 8, 64, 64, 64), np.float32)], budget=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_tensors(tmp_path: Path) -> None:
    """A chain of sixteen tensors of 8 MiB: those that were kept until the end would add up to 128 MiB."""
    names = [f"t{step}" for step in range(17)]
    nodes = [helper.make_node("Sin", [before], [after]) for before, after in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 64, 64, 64]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), tmp_path / "chain.onnx")

    def peak(asked: list[str]) -> int:
        """KiB."""
        command = [sys.executable, "-c", PROBE, tmp_path / "chain.onnx", ",".join(asked)]
        return int(subprocess.run(command, check=True, capture_output=True, cwd=tmp_path).stdout)

    assert peak(names) - peak(names[-1:]) < 40 * 1024


def test_what_cannot_be_counted_is_refused(unet: Path) -> None:
    with pytest.raises(InputError, match="has no tensor 'skipped'"):
        find_histograms(unet, {"skipped": 1.0}, [image_of()])
    with pytest.raises(InputError, match="there are none"):
        find_histograms(unet, {"skip": 1.0}, [])
