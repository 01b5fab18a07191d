"""Parity is measured as it says, on the same real-sized input every time, and a broken bound is refused with its figures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_latup.errors import ArtifactError
from edge_latup.segmentation import parity as module
from edge_latup.segmentation.parity import EXPORT_TOLERANCE, RUNTIME_TOLERANCE, check, compare, parity_input, prove
from edge_latup.spec import CentreCrop, ModelSpec

NAMES = ("pytorch fp32", "onnxruntime fp32")


def probabilities(seed: int = 0) -> np.ndarray:
    scores = np.random.default_rng(seed).random((1, 4, 6, 5, 4), dtype=np.float32)
    normalised: np.ndarray = scores / scores.sum(1, keepdims=True)
    return normalised


def test_equal_outputs_differ_in_nothing() -> None:
    assert compare(probabilities(), probabilities()) == {"max_abs": 0.0, "relative_l2": 0.0, "argmax_agreement": 1.0}


def test_the_figures_are_what_their_names_say() -> None:
    reference = np.zeros((1, 2, 1, 1, 2), np.float32)
    reference[0, 0] = [[[0.75, 1.0]]]
    reference[0, 1] = [[[0.25, 0.0]]]
    candidate = reference.copy()
    candidate[0, :, 0, 0, 0] = [0.25, 0.75]  # this voxel changes its class
    figures = compare(reference, candidate)
    assert figures["max_abs"] == 0.5
    assert figures["relative_l2"] == pytest.approx(np.sqrt(0.5) / np.sqrt(0.75**2 + 0.25**2 + 1))
    assert figures["argmax_agreement"] == 0.5


def test_other_shapes_are_not_compared() -> None:
    with pytest.raises(ArtifactError, match=r"output shapes differ: reference \(1, 4, 6, 5, 4\), candidate \(1, 4, 6, 5, 3\)"):
        compare(probabilities(), probabilities()[..., :3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_on_either_side(value: float) -> None:
    broken = probabilities()
    broken[0, 1, 2, 3, 1] = value
    with pytest.raises(ArtifactError, match="the candidate's output holds NaN or infinity"):
        compare(probabilities(), broken)
    with pytest.raises(ArtifactError, match="the reference's output holds NaN or infinity"):
        compare(broken, probabilities())


def test_a_bound_holds_up_to_itself_and_agreement_is_bounded_from_below() -> None:
    tolerance = {"max_abs": 0.1, "relative_l2": 0.2, "argmax_agreement": 0.9}
    assert check(dict(tolerance), tolerance) == []
    assert check({"max_abs": 0.11, "relative_l2": 0.1, "argmax_agreement": 0.95}, tolerance) == ["max_abs 0.11 (bound 0.1)"]
    assert check({"max_abs": 0.0, "relative_l2": 0.0, "argmax_agreement": 0.89}, tolerance) == ["argmax_agreement 0.89 (bound 0.9)"]


def test_the_export_is_held_to_tighter_bounds_than_a_runtime() -> None:
    assert EXPORT_TOLERANCE.keys() == RUNTIME_TOLERANCE.keys() == compare(probabilities(), probabilities()).keys()
    assert EXPORT_TOLERANCE["max_abs"] < RUNTIME_TOLERANCE["max_abs"]
    assert EXPORT_TOLERANCE["relative_l2"] < RUNTIME_TOLERANCE["relative_l2"]
    assert EXPORT_TOLERANCE["argmax_agreement"] > RUNTIME_TOLERANCE["argmax_agreement"]


def test_what_is_proven_is_recorded_with_its_bounds() -> None:
    candidate = probabilities() + np.float32(1e-5)
    record = prove(probabilities(), candidate, NAMES, EXPORT_TOLERANCE, input_shape=(1, 3, 8, 8, 8))
    assert (record.reference, record.candidate) == NAMES
    assert record.tolerance == EXPORT_TOLERANCE
    assert record.input_shape == (1, 3, 8, 8, 8)
    assert record.max_abs == pytest.approx(1e-5, rel=1e-2)


def test_what_is_not_proven_is_refused_with_its_figures() -> None:
    with pytest.raises(ArtifactError, match="onnxruntime fp32 does not compute what pytorch fp32 computes: max_abs 0") as caught:
        prove(probabilities(), probabilities(1), NAMES, EXPORT_TOLERANCE, input_shape=(1, 3, 8, 8, 8))
    assert "relative_l2" in caught.value.message
    assert "argmax_agreement" in caught.value.message
    assert caught.value.hint


def test_the_input_is_the_crop_of_a_real_sized_head_and_the_same_every_time() -> None:
    spec = ModelSpec(name="tiny", spatial=CentreCrop(size=(16, 16, 16)))
    batch = parity_input(spec, (48, 40, 32))
    assert (batch.shape, batch.dtype) == ((1, 3, 48, 40, 32), np.float32)
    assert (batch.min(), batch.max()) == (0, 1)
    assert batch.std() > 0.05
    first = batch.copy()
    batch[:] = 0  # what is handed out may be changed
    np.testing.assert_array_equal(parity_input(spec, (48, 40, 32)), first)


def test_the_phantom_is_drawn_once_for_artifacts_of_one_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(name="tiny", spatial=CentreCrop(size=(16, 16, 16)))
    parity_input(spec, (48, 40, 32))
    monkeypatch.setattr(module, "make_phantom", lambda *_: pytest.fail("drawn again"))
    parity_input(spec, (48, 40, 32))


def test_regions_agree_where_a_voxel_belongs_to_the_same_ones() -> None:
    """Their likeliest channel says nothing: it changes here where no region does, and stays where one does."""
    reference = np.float32([[0.9, 0.2, 0.8, 0.1], [0.8, 0.1, 0.6, 0.2]]).reshape(1, 2, 1, 1, 4)
    candidate = np.float32([[0.8, 0.1, 0.8, 0.1], [0.9, 0.2, 0.4, 0.2]]).reshape(1, 2, 1, 1, 4)
    assert compare(reference, candidate, regions=True)["argmax_agreement"] == 0.75
    one = np.float32([0.9, 0.2, 0.6, 0.1]).reshape(1, 1, 1, 1, 4)
    assert compare(one, 1 - one, regions=True)["argmax_agreement"] == 0.0
    with pytest.raises(ArtifactError, match="argmax_agreement 0.75"):
        prove(reference, candidate, NAMES, {"argmax_agreement": 0.8}, input_shape=(1, 3, 8, 8, 8), regions=True)
